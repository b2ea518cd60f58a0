# Unpacking an overlay bundle into a tree that overlayfs can use as a layer: shared by the initrd and the agent.
# shellcheck shell=dash

# unpack_bundle TAR DIRECTORY: replaces DIRECTORY by the bundle's tree. Returns 1 with the reason on standard error.
# Nothing outside DIRECTORY can be written: both GNU tar and busybox make links that lead outside last of all.
unpack_bundle() {
  local tar="$1" tree="$2"
  refuse_names "$tar" || return 1
  rm -rf "$tree" && mkdir -p "$tree" && chmod 0755 "$tree" || return 1
  if ! tar -x --numeric-owner -f "$tar" -C "$tree"; then
    echo "Cannot unpack the bundle $tar: see tar's message above" >&2
    return 1
  fi
  refuse_kinds "$tree" && make_whiteouts "$tree"
}

# refuse_names TAR [WHAT]: 1 when a name in the archive is absolute or climbs out of its directory.
refuse_names() {
  local names odd what="${2:-bundle}"
  # Busybox lists such names without what leads outside, and says so on standard error in the words of GNU tar.
  names="$(tar -tf "$1" 2>&1)" || {
    echo "Cannot read the $what $1: not a tar archive" >&2
    return 1
  }
  odd="$(printf '%s\n' "$names" | grep -E '^/|(^|/)\.\.(/|$)|^tar: [Rr]emoving leading' | head -n 1)"
  [ -z "$odd" ] && return 0
  echo "Cannot use the $what: a name in it leads outside ($odd)" >&2
  return 1
}

# refuse_kinds TREE [WHAT]: 1 when the tree holds anything but files, directories and symbolic links, or a control
# character in a name (everything that walks a tree reads one path a line, and some a tab after it).
refuse_kinds() {
  local odd what="${2:-bundle}"
  odd="$(find "$1" ! -type d ! -type f ! -type l | head -n 1)"
  [ -n "$odd" ] || odd="$(find "$1" -type f -links +1 | head -n 1)"
  [ -n "$odd" ] || odd="$(find "$1" -name '*[[:cntrl:]]*' | head -n 1)"
  [ -z "$odd" ] && return 0
  echo "Cannot use the $what: ${odd#"$1"} is a device, a hard link or has a control character in its name" >&2
  return 1
}

# make_whiteouts TREE: `.wh.<name>` (OCI image layer specification, "Whiteouts") becomes what overlayfs takes for
# "not there": a character device 0:0 (kernel, Documentation/filesystems/overlayfs.rst).
make_whiteouts() {
  local mark name place
  find "$1" -name '.wh.*' | while IFS= read -r mark; do
    name="${mark##*/.wh.}"
    place="${mark%/*}/$name"
    case "$name" in
      '' | . | .. | .wh.*)
        echo "Cannot use the bundle: ${mark#"$1"} deletes nothing that has a name" >&2
        exit 1
        ;;
    esac
    rm -f "$mark" || exit 1
    # The bundle itself has something there: that wins over the deletion.
    [ -e "$place" ] || [ -L "$place" ] || mknod "$place" c 0 0 || exit 1
  done
}
