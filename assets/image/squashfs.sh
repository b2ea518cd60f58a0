# The read-only root file system image.
# shellcheck shell=bash

# zstd 9 in 128 KiB blocks: level 19 is 4 % smaller and takes 18 times as long (docs/decisions/squashfs-root-image.md).
make_squashfs() {
  # SOURCE_DATE_EPOCH (exported by lib.sh) dates the file system and clamps the files.
  isolated mksquashfs "$1" "$2" -noappend -no-progress -quiet -comp zstd -Xcompression-level 9 -b 128K \
    -xattrs -reproducible >&2 ||
    fail 'Cannot make the root file system image: mksquashfs failed' 'see the lines above'
  chmod 644 "$2"
}
