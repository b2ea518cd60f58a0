#!/bin/sh
# Makes the machine's folders new, as the disk steps do with partitions: kit-containers, and kit-persist for powerwash-all.
# An installation leaves alone what is there, as one does that finds a good slot.
# shellcheck shell=dash
set -eu

# shellcheck source=/dev/null
. "$KIT_LIB/lib.sh"
for library in json report download disk identity ask; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

# empty FOLDER: but for the folder, where something is mounted.
empty() {
  find "$1" -mindepth 1 -maxdepth 1 -exec rm -rf {} + || fail "Cannot empty $1"
}

made=/lab/containers/.made
if [ "$KIT_PLAN" = install ] && [ -e "$made" ]; then
  progress 'is installed already'
  exit 0
fi
# The server has to know before the first thing is lost: that ends its request.
check_in_body installing >"$KIT_RUN/installing.json"
ask check-in "$KIT_RUN/installing.json" "$KIT_RUN/installing.answer"
progress "is being made new ($KIT_PLAN)"
empty /lab/containers
[ "$KIT_PLAN" != powerwash-all ] || empty "$KIT_RUN/persist"
: >"$made"
