# What the build needs of the machine it runs on, said before an hour is lost.
# shellcheck shell=bash

# The Debian tree, its copy with modules unpacked, the archives and the image: measured peak 1.3 GB, so 3 GB is roomy.
needed_mb=3000

# check_host <folder…>: folders that will be written to.
check_host() {
  local tool folder free missing=()
  [ "$(id -u)" = 0 ] || fail 'Cannot build the image: not root' 'sudo npm start'
  [ "$(dpkg --print-architecture 2>/dev/null)" = "$KIT_ARCH" ] ||
    fail "Cannot build the image for $KIT_ARCH on this machine: $(uname -m)" 'build it on an amd64 Debian or Ubuntu and copy the folder'
  for tool in mmdebstrap mksquashfs veritysetup cpio zstd xz unshare setpriv flock; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} = 0 ] ||
    fail "Cannot build the image: missing ${missing[*]}" 'apt-get install mmdebstrap squashfs-tools cryptsetup-bin cpio zstd xz-utils util-linux'
  for folder in "$@"; do
    mkdir -p -- "$folder" || fail "Cannot write to $folder"
    free=$(df --output=avail -BM -- "$folder" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge "$needed_mb" ] ||
      fail "Cannot build the image: $free MB free in $folder, $needed_mb MB needed" 'free some space, or set XDG_CACHE_HOME to a folder on another disk'
  done
}
