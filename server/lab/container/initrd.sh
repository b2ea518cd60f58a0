#!/bin/sh
# In the place of the initrd's own init: its steps, but for those that are about a kernel or disks, and the lab's in their
# place. Tries again as that does.
# shellcheck shell=dash
set -u

PATH=/bin:/sbin
export PATH
export KIT_LIB=/lib/kit
for library in lib json parameters report run ask disk identity kept; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

ATTEMPTS=5
PAUSE_SECONDS=5

boot() {
  read_parameters /cmdline
  check_parameters || return 1
  run_steps
}

attempt=1
until boot; do
  [ "$attempt" -lt "$ATTEMPTS" ] || exit 133
  attempt=$((attempt + 1))
  sleep "$PAUSE_SECONDS"
done
deliver
say 'hands over to the root file system'
