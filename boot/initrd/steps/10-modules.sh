#!/bin/sh
# Loads the drivers of the hardware that is there, and the kernel modules a live root needs.
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

# af_packet: udhcpc's raw socket.
modprobe -a -q af_packet loop squashfs overlay 2>&1 || true
for filesystem in squashfs overlay; do
  grep -qw "$filesystem" "$KIT_PROC/filesystems" ||
    fail "Cannot use $filesystem: the initrd has no such module for kernel $(uname -r)"
done
