# Trees of files as overlayfs sees them: what a path shows when a bundle's tree is laid over the image.
# shellcheck shell=dash
# shellcheck disable=SC2034 # SHOWN is for apply.sh

# The two questions below are asked many times per path, so they answer in a variable: a `$(…)` is a process each.

# kind_of FILE: sets KIND to f, d, l, w (a whiteout), o (something else) or - (nothing there, or no name given).
kind_of() {
  if [ -L "$1" ]; then
    KIND=l
  elif [ -d "$1" ]; then
    KIND=d
  elif [ -f "$1" ]; then
    KIND=f
  elif [ -c "$1" ] && [ "$(stat -c %t:%T "$1")" = 0:0 ]; then
    KIND=w
  elif [ -e "$1" ]; then
    KIND=o
  else
    KIND=-
  fi
}

# manifest TREE: a line for each path below TREE, `<path> TAB <kind, mode, owner, content>`, sorted. Of a link the
# target alone counts: busybox tar, which unpacks the first bundle, does not give links an owner.
manifest() {
  (
    cd "$1" || exit 1
    {
      find . -mindepth 1 -type l -printf '%P\tl %l\n'
      find . -mindepth 1 -type d -printf '%P\td %m %U:%G\n'
      find . -mindepth 1 -type c -printf '%P\tw\n'
      find . -mindepth 1 -type f -printf '%P\tf %m %U:%G\n'
      find . -mindepth 1 -type f -exec sha256sum --zero -- '{}' + | tr '\0' '\n' | sed 's|^\([0-9a-f]*\)  \./\(.*\)$|\2\tsha256 \1|'
    } | LC_ALL=C sort
  )
}

# changed_paths OLD NEW: every path that is not the same in both trees, sorted, parents first.
changed_paths() {
  local work
  work="$(mktemp -d)" || return 1
  manifest "$1" >"$work/old" && manifest "$2" >"$work/new" &&
    LC_ALL=C comm -3 "$work/old" "$work/new" | sed 's/^\t//' | cut -f 1 | LC_ALL=C sort -u
  rm -rf "$work"
}

# show TREE PATH: sets SHOWN to the file that PATH (no slash in front) shows when TREE lies over the image: one in TREE,
# one in the image, or nothing (empty).
show() {
  local tree="$1" path="$2" prefix='' rest="$2" in_image=1
  SHOWN=''
  while [ "$rest" != "${rest#*/}" ]; do
    prefix="$prefix${prefix:+/}${rest%%/*}"
    rest="${rest#*/}"
    kind_of "$tree/$prefix"
    # A whiteout, a file or a link in the bundle hides whatever the image has below it.
    case "$KIND" in
      d | -) ;;
      *) return 0 ;;
    esac
    # A directory in the bundle replaces what is no directory in the image.
    kind_of "$KIT_IMAGE_TREE/$prefix"
    [ "$KIND" = d ] || in_image=0
  done
  kind_of "$tree/$path"
  case "$KIND" in
    w) return 0 ;;
    -) ;;
    *) SHOWN="$tree/$path" && return 0 ;;
  esac
  kind_of "$KIT_IMAGE_TREE/$path"
  if [ "$in_image" = 0 ] || [ "$KIND" = - ]; then return 0; fi
  SHOWN="$KIT_IMAGE_TREE/$path"
}

# same FILE FILE: are both the same in kind, content, mode and owner? An empty name stands for nothing there.
same() {
  local kind
  kind_of "$1"
  kind="$KIND"
  kind_of "$2"
  [ "$kind" = "$KIND" ] || return 1
  case "$kind" in
    -) return 0 ;;
    l) [ "$(readlink "$1")" = "$(readlink "$2")" ] ;;
    d) have_same_facts '%a %u:%g' "$1" "$2" ;;
    f) have_same_facts '%a %u:%g %s' "$1" "$2" && have_same_content "$1" "$2" ;;
    *) return 1 ;;
  esac
}

# have_same_facts FORMAT FILE FILE: as stat says.
have_same_facts() {
  local facts
  facts="$(stat -c "$1" "$2" "$3")" && [ "${facts%%
*}" = "${facts#*
}" ]
}

have_same_content() {
  local sums second
  # Two lines; no cmp, because the image does without diffutils.
  sums="$(sha256sum -- "$1" "$2")" || return 1
  second="${sums#*
}"
  [ "${sums%% *}" = "${second%% *}" ]
}
