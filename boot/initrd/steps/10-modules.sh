#!/bin/sh
# Loads the drivers of the hardware that is there, and the kernel modules a live root needs.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

# Sooner or later every device names its driver; a bus driver brings new devices, so look again until nothing new
# turns up. Modules that are built in or have no driver here are no failure.
seen=''
for round in 1 2 3 4 5; do
  aliases="$(find "$KIT_SYS/devices" -name modalias -exec cat '{}' + 2>/dev/null | sort -u)"
  [ "$aliases" != "$seen" ] || break
  echo "round $round: $(printf '%s\n' "$aliases" | wc -l) modaliases"
  printf '%s\n' "$aliases" | xargs modprobe -a -b -q 2>&1 || true
  seen="$aliases"
done

# af_packet: udhcpc's raw socket.
modprobe -a -q af_packet loop squashfs overlay 2>&1 || true
for filesystem in squashfs overlay; do
  grep -qw "$filesystem" "$KIT_PROC/filesystems" ||
    fail "Cannot use $filesystem: the initrd has no such module for kernel $(uname -r)"
done
