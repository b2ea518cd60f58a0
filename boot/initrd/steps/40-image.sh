#!/bin/sh
# Gets the root image into memory and checks it.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../download.sh
. "$KIT_LIB/download.sh"

store="$KIT_RUN/store"
image="$store/root.squashfs"
# What the running system needs beside its image until somebody can log in.
RUNNING_MIB=320

# An attempt before this one may have come this far.
if [ -e "$image" ] && [ "$(cat "$image.verified" 2>/dev/null)" = "$KIT_ROOT_SHA256" ]; then
  progress 'already here'
  exit 0
fi
if is_mounted "$store"; then umount "$store"; fi

image_mib=$(((KIT_ROOT_SIZE + 1048575) / 1048576))
available_mib=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' "$KIT_PROC/meminfo") / 1024))
needed_mib=$((image_mib + RUNNING_MIB))
[ "$available_mib" -ge "$needed_mib" ] ||
  fail "Cannot run from memory: needs $needed_mib MiB ($image_mib for the image, $RUNNING_MIB to run), $available_mib MiB are available"

mkdir -p "$store"
mount -t tmpfs -o "mode=0700,nosuid,nodev,noexec,size=$((image_mib + 1))m" tmpfs "$store"
download "$KIT_URL/images/$KIT_IMAGE/root.squashfs" "$image" "$KIT_ROOT_SHA256" "$KIT_ROOT_SIZE"
echo "$KIT_ROOT_SHA256" >"$image.verified"
