# The read-only root file system image.
# shellcheck shell=bash

# zstd 15 in 128 KiB blocks: docs/decisions/squashfs-root-image.md has the measurements.
make_squashfs() {
  # SOURCE_DATE_EPOCH (exported by lib.sh) dates the file system and clamps the files.
  isolated mksquashfs "$1" "$2" -noappend -no-progress -quiet -comp zstd -Xcompression-level "$squashfs_level" -b 128K \
    -xattrs -reproducible >&2 ||
    fail 'Cannot make the root file system image: mksquashfs failed' 'see the lines above'
  chmod 644 "$2"
}

squashfs_level=15
