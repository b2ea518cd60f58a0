#!/bin/sh
# Makes the root of a live boot: writes go to memory, over the bundle, over the image in memory.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../root.sh
. "$KIT_LIB/root.sh"

leave_root
mount -t squashfs -o ro,loop "$KIT_RUN/store/root.squashfs" "$KIT_RUN/image" ||
  fail "Cannot mount the root image $KIT_IMAGE as squashfs"
lay_root "$KIT_RUN/image" "$KIT_RUN/bundle/root"
