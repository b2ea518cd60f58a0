#!/bin/sh
# Makes the root: writes go to memory, over the bundle, over the image.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

image="$KIT_RUN/image"
writes="$KIT_RUN/writes"

# An attempt before this one may have left any of them.
for place in "$KIT_NEWROOT" "$image" "$writes"; do
  if is_mounted "$place"; then umount "$place"; fi
done
mkdir -p "$KIT_NEWROOT" "$image" "$writes"

mount -t squashfs -o ro,loop "$KIT_RUN/store/root.squashfs" "$image" ||
  fail "Cannot mount the root image $KIT_IMAGE as squashfs"
# Half of the memory, as for any tmpfs of Debian: a log that runs away must not take the machine with it.
mount -t tmpfs -o mode=0755,size=50% tmpfs "$writes"
mkdir "$writes/upper" "$writes/work"
mount -t overlay -o "lowerdir=$KIT_RUN/bundle/root:$image,upperdir=$writes/upper,workdir=$writes/work" overlay "$KIT_NEWROOT" ||
  fail "Cannot lay the bundle over the root image: $(dmesg | grep overlayfs | tail -n 1)"
