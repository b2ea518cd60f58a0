#!/bin/sh
# Makes the root as a live boot does: writes go to memory, over the bundle, over the image. Containers live in a folder.
# shellcheck shell=dash
set -eu

# shellcheck source=/dev/null
. "$KIT_LIB/lib.sh"
# shellcheck source=/dev/null
. "$KIT_LIB/root.sh"

lay_root "$KIT_RUN/image" "$KIT_RUN/bundle/root"
# 62-persist finds it mounted there.
mkdir -p "$KIT_RUN/containers"
mount -o bind /lab/containers "$KIT_RUN/containers"
