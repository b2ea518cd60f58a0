#!/bin/sh
# Tells the server what disks there are and what is on them; its answer, the disk plan, stays for 41-disk.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../json.sh
. "$KIT_LIB/json.sh"
# shellcheck source=../drivers.sh
. "$KIT_LIB/drivers.sh"
# shellcheck source=../download.sh
. "$KIT_LIB/download.sh"
# shellcheck source=../ask.sh
. "$KIT_LIB/ask.sh"
# shellcheck source=../inventory.sh
. "$KIT_LIB/inventory.sh"

DISK_TENTHS=100
SETTLE_ROUNDS=5

# shellcheck disable=SC2317 # called by within
has_disk() {
  [ -z "$(inventory_disks)" ] || return 0
  # It may hang on a bus whose own driver was slow.
  load_new_drivers || true
  return 1
}

# settle: a disk that is still to come may be the second one to choose from, which makes the first one the wrong one.
settle() {
  local before='' now round=1
  now="$(inventory_disks)"
  while [ "$round" -le "$SETTLE_ROUNDS" ] && { [ "$now" != "$before" ] || load_new_drivers; }; do
    before="$now" round=$((round + 1))
    sleep 1
    now="$(inventory_disks)"
  done
}

plan="$KIT_RUN/disk-plan"
body="$KIT_RUN/disks.json"
rm -f "$plan"
if [ "$KIT_PLAN" = live ]; then
  # Only for people to see.
  inventory_json >"$body" || exit 0
  ask_once disks "$body" "$plan.ignored" || progress "the server did not take the list of disks: $(tail -n 1 "$plan.ignored.error")"
  exit 0
fi
within "$DISK_TENTHS" has_disk || progress 'no disk has turned up'
settle
inventory_json >"$body"
progress "$(inventory_disks | grep -c .) disks"
ask disks "$body" "$plan.new"
mv "$plan.new" "$plan"
