#!/bin/sh
# Loads the drivers of the hardware that is there, and the kernel modules that the root of this plan needs.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../drivers.sh
. "$KIT_LIB/drivers.sh"

# A bus driver brings new devices, so look again until nothing new turns up. Another attempt asks for everything again.
rm -f "$KIT_RUN/modaliases"
for round in 1 2 3 4 5; do
  echo "round $round"
  load_new_drivers || break
done

# af_packet: udhcpc's raw socket. ext4 and dm-snapshot: to look for a kept key (kept.sh).
modprobe -a -q af_packet loop squashfs overlay crc32c-intel ext4 dm-snapshot 2>&1 || true
filesystems='squashfs overlay'
if [ "$KIT_PLAN" != live ]; then
  # The fast hashes first: dm-verity and ext4 take what is there when they start.
  modprobe -a -q sha256-ssse3 nls_cp437 nls_ascii nls_utf8 vfat dm-verity efivarfs 2>&1 || true
  filesystems="$filesystems ext4 vfat"
fi
for filesystem in $filesystems; do
  grep -qw "$filesystem" "$KIT_PROC/filesystems" ||
    fail "Cannot use $filesystem: the initrd has no such module for kernel $(uname -r)"
done
