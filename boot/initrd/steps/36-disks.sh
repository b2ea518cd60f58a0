#!/bin/sh
# Tells the server what disks there are and what is on them; its answer, the disk plan, stays for 41-disk.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in json drivers download disk identity ask inventory wait-for-disks; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

plan="$KIT_RUN/disk-plan"
body="$KIT_RUN/disks.json"
rm -f "$plan"
if [ "$KIT_PLAN" = live ]; then
  # Only for people to see.
  inventory_json >"$body" || exit 0
  ask_once disks "$body" "$plan.ignored" || progress "the server did not take the list of disks: $(tail -n 1 "$plan.ignored.error")"
  exit 0
fi
wait_for_disks || progress 'no disk has turned up'
inventory_json >"$body"
progress "$(inventory_disks | grep -c .) disks"
ask disks "$body" "$plan.new"
mv "$plan.new" "$plan"
