# Disks turn up after their drivers. Needs inventory.sh and drivers.sh.
# shellcheck shell=dash

DISK_TENTHS=100
SETTLE_ROUNDS=5

# wait_for_disks: until there is one and no other comes; status 1 when none came.
wait_for_disks() {
  within "$DISK_TENTHS" has_disk || return 1
  settle_disks
}

# shellcheck disable=SC2317 # called by within
has_disk() {
  [ -z "$(inventory_disks)" ] || return 0
  # It may hang on a bus whose own driver was slow.
  load_new_drivers || true
  return 1
}

# settle_disks: a disk that is still to come may be the second one to choose from, which makes the first one the wrong one.
settle_disks() {
  local before='' now round=1
  now="$(inventory_disks)"
  while [ "$round" -le "$SETTLE_ROUNDS" ] && { [ "$now" != "$before" ] || load_new_drivers; }; do
    before="$now" round=$((round + 1))
    sleep 1
    now="$(inventory_disks)"
  done
}
