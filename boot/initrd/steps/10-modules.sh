#!/bin/sh
# Loads the drivers of the hardware that is there, and the kernel modules a live root needs.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

# Every device names its driver (modalias); a bus driver brings new devices, so look again until nothing new turns up.
# What is built in or has no driver here is no failure. Each name is asked for once: it costs a read of modules.alias.
asked="$KIT_RUN/modaliases"
# Not empty: busybox's grep -v -f drops every line when it is given no pattern.
echo '(none)' >"$asked"
for round in 1 2 3 4 5; do
  fresh="$(find "$KIT_SYS/devices" -name modalias -exec cat '{}' + 2>/dev/null | sort -u | grep -vxF -f "$asked" || true)"
  [ -n "$fresh" ] || break
  echo "round $round: $(printf '%s\n' "$fresh" | wc -l) modaliases"
  printf '%s\n' "$fresh" | tee -a "$asked" | xargs modprobe -a -b -q 2>&1 || true
done

# af_packet: udhcpc's raw socket.
modprobe -a -q af_packet loop squashfs overlay 2>&1 || true
for filesystem in squashfs overlay; do
  grep -qw "$filesystem" "$KIT_PROC/filesystems" ||
    fail "Cannot use $filesystem: the initrd has no such module for kernel $(uname -r)"
done
