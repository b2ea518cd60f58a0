#!/bin/sh
# Takes the disk the server chose, after a last look at it, and begins: from here on the machine is being made new.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in json report download inventory install disk identity ask slots loader loader-uefi loader-bios slot-json manifest; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

# As 43-slot gives to the boot loader.
TRIES=3
# The kernel lets go of a disk that was just unmounted a moment later.
RELEASE_TENTHS=50

# obey_refusal: what the server refuses, people read on the console of the machine itself.
obey_refusal() {
  local line
  [ -n "$(plan_value refused)" ] || return 0
  sed -n 's/^refused //p' "$KIT_RUN/disk-plan" | while IFS= read -r line; do progress "$line"; done
  fail "$(sed -n 's/^refused //p' "$KIT_RUN/disk-plan" | tr '\n' ';' | sed 's/;$//; s/;/; /g')"
}

# shellcheck disable=SC2317 # called by within
is_free() {
  [ -z "$(disk_users "$disk")" ]
}

# check_disk: is it still the one that the server saw?
check_disk() {
  local serial found
  printf '%s\n' "$disk" | grep -Eqx '[a-z][a-z0-9]*' || fail "Cannot install: the server names the disk ${disk:-(none)}"
  inventory_disks | grep -qx "$disk" || fail "Cannot install to $disk: it is not there any more"
  serial="$(plan_value serial)"
  found="$(disk_serial "$disk")"
  [ -z "$serial" ] || [ "$serial" = "$found" ] ||
    fail "Cannot install to $disk: its serial number is ${found:-unknown}, and the server means $serial"
  within "$RELEASE_TENTHS" is_free || fail "Cannot install to $disk: in use by $(disk_users "$disk" | xargs)"
}

# check_table: a disk of ours has all its partitions, and the plan agrees with what was asked for.
check_table() {
  local label keeps=keep
  [ "$KIT_PLAN" != powerwash-all ] || keeps=wipe
  case "$(plan_value table)" in
    make) return 0 ;;
    keep) ;;
    *) fail "Cannot install to $disk: the server neither keeps nor makes its partition table" ;;
  esac
  [ "$(plan_value persistence)" = "$keeps" ] ||
    fail "Cannot install to $disk: the server says persistence $(plan_value persistence), and the boot script $KIT_PLAN"
  for label in kit-bios kit-esp kit-root-a kit-verity-a kit-root-b kit-verity-b kit-overlay kit-containers kit-persist; do
    find_partition "$label" "$disk" >/dev/null || fail "Cannot install to $disk: it has no partition $label"
  done
}

# mount_ours: as much of a disk of ours as can be mounted. What cannot is made new by 42-partitions, or refused there.
mount_ours() {
  mount_kit_partition kit-esp "$KIT_ESP" vfat "$KIT_ESP_OPTIONS" "$disk" || return 0
  mount_kit_partition kit-overlay "$KIT_OVERLAY" ext4 "$KIT_EXT4_OPTIONS" "$disk" || true
}

# find_startable_slot: sets slot to the one that this disk would start with: a good one, else one on trial.
find_startable_slot() {
  local candidate
  slot=''
  if ! is_mount_point "$KIT_ESP" || ! is_mount_point "$KIT_OVERLAY"; then return 0; fi
  slot="$(good_slots | head -n 1)"
  for candidate in a b; do
    if [ -n "$slot" ] || [ "$(slot_state "$candidate")" != trying ]; then continue; fi
    if may_try "$candidate"; then slot="$candidate"; fi
  done
}

# may_try SLOT: on a machine whose firmware starts from the network first, no boot loader counts the tries.
may_try() {
  local attempts reason
  attempts="$(grep -c '' "$KIT_OVERLAY/slots/$1.attempts" 2>/dev/null)" || attempts=0
  [ "$attempts" -ge "$TRIES" ] || return 0
  reason="$attempts starts of slot $1 ($(slot_field "$1" image)) did not become a good boot"
  progress "$reason: it is written anew"
  loader_condemn "$1" "$reason" || progress "cannot condemn slot $1"
  return 1
}

# use_installed SLOT: nothing is to be written; 61-disk-root starts what lies there.
use_installed() {
  progress "already installed: slot $1 ($(slot_field "$1" image)) is $(slot_state "$1"); nothing is written"
  echo "$1" >"$KIT_RUN/installed"
  note_slot "$1"
}

# forget_system: after this nothing on the disk starts by itself, so that a cut leads back here.
forget_system() {
  local slot
  if is_mount_point "$KIT_ESP"; then
    for slot in a b; do
      loader_forget "$slot" || fail "Cannot make $disk new: its boot loader keeps slot $slot"
    done
  fi
  release_disk
  if [ "$KIT_PLAN" = powerwash-all ]; then
    wipefs -a -f "$(find_partition kit-persist "$disk")" || fail "Cannot wipe kit-persist on $disk"
  fi
  sync
}

obey_refusal
rm -f "$KIT_RUN/installed" "$KIT_RUN/slot" "$KIT_RUN/installing.json"
disk="$(plan_value disk)"
release_disk
check_disk
check_table
if [ "$(plan_value table)" = keep ]; then
  mount_ours
  find_startable_slot
  if [ "$KIT_PLAN" = install ] && [ -n "$slot" ]; then
    use_installed "$slot"
    exit 0
  fi
  # What is known of the slots, and why they are bad, goes with kit-overlay.
  check_in_body installing >"$KIT_RUN/installing.json"
  # Before anything is lost for an image that this machine would refuse in the end.
  if [ "$KIT_PLAN" != powerwash-all ] && mount_kit_partition kit-persist "$KIT_PERSIST" ext4 "$KIT_EXT4_OPTIONS" "$disk"; then
    check_epoch
  fi
  case "$KIT_PLAN" in
    powerwash | powerwash-all) forget_system ;;
    *) release_disk ;;
  esac
fi
# The server has to know before the first write: it ends a powerwash request, which would else be carried out again. It
# refuses when the slots say that this very image has failed here: another boot is offered another one.
[ -s "$KIT_RUN/installing.json" ] || check_in_body installing >"$KIT_RUN/installing.json"
ask check-in "$KIT_RUN/installing.json" "$KIT_RUN/installing.answer"
progress "$disk is being made new ($KIT_PLAN)"
