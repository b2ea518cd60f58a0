#!/bin/sh
# Makes the root from a slot of the disk: its image through dm-verity, its bundle over that, writes to memory over both.
# A slot that is not what its record says, or is damaged, is condemned: KIT_RUN/condemned has the reason then.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../drivers.sh
. "$KIT_LIB/drivers.sh"
# shellcheck source=../root.sh
. "$KIT_LIB/root.sh"
for part in disk slots loader loader-uefi loader-bios slot-write; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$part.sh"
done

# Disks turn up after their drivers; those on USB take longest.
DISK_TENTHS=300
# Starts that did not become a good boot, before the slot and its bundle are doubted.
DOUBTED_ATTEMPTS=2

# shellcheck disable=SC2317 # called by within
has_partitions() {
  local label
  for label in kit-esp "kit-root-$KIT_SLOT" "kit-verity-$KIT_SLOT" kit-overlay kit-persist; do
    find_partition "$label" >/dev/null 2>"$KIT_RUN/partition-error" && continue
    # Several will not become one.
    [ $? -ne 2 ] || return 0
    load_new_drivers || true
    return 1
  done
}

# refused FILE: what a function left on standard error, as the failure of the step.
refused() {
  cat "$1"
  fail "$(tail -n 1 "$1")"
}

# condemn REASON: the loader does not choose this slot any more.
condemn() {
  loader_condemn "$KIT_SLOT" "$1" || progress "cannot condemn slot $KIT_SLOT"
  printf '%s\n' "$1" >"$KIT_RUN/condemned"
  fail "Cannot start slot $KIT_SLOT: $1"
}

# check_record: what the loader started is what lies in the slot.
check_record() {
  local name wanted found
  reason="$(slot_field "$KIT_SLOT" reason)"
  # A cut came before the loader heard of it.
  [ -z "$reason" ] || condemn "$reason"
  [ "$(slot_field "$KIT_SLOT" state)" = written ] || condemn "it was never written to the end (state $(slot_state "$KIT_SLOT"))"
  for name in root-hash root-size; do
    if [ "$name" = root-hash ]; then wanted="$KIT_ROOT_HASH"; else wanted="$KIT_ROOT_SIZE"; fi
    found="$(slot_field "$KIT_SLOT" "$name")"
    [ "$found" = "$wanted" ] || condemn "mixed versions: the kernel was started for $name $wanted, the slot has ${found:-none}"
  done
}

# count_attempt: a line for this start; sets attempts to those before it.
count_attempt() {
  local file="$KIT_OVERLAY/slots/$KIT_SLOT.attempts"
  attempts=0
  [ ! -e "$file" ] || attempts="$(grep -c '' "$file" || true)"
  { date +%s >>"$file" && sync -f "$file"; } || progress 'cannot count this start: kit-overlay is full or read-only'
}

# choose_bundle: sets bundle. A slot that was good and does not get there any more is read as a whole first; when it is
# sound, what changed since is the bundle.
choose_bundle() {
  local good
  bundle="$(slot_field "$KIT_SLOT" bundle)"
  good="$(slot_field "$KIT_SLOT" bundle-good)"
  rm -f "$KIT_RUN/bundle-refused"
  if [ "$attempts" -ge "$DOUBTED_ATTEMPTS" ] && [ "$(slot_state "$KIT_SLOT")" = good ]; then
    progress "$attempts starts did not become a good boot: reads the whole slot"
    check_whole
    if [ -n "$good" ] && [ "$good" != "$bundle" ]; then other_bundle "$good" 'the machine did not get up with it'; fi
  fi
  if [ ! -d "$KIT_OVERLAY/bundles/$bundle" ] && [ -d "$KIT_OVERLAY/bundles/${good:-none}" ]; then
    other_bundle "$good" 'it is not on kit-overlay'
  fi
  [ -d "$KIT_OVERLAY/bundles/${bundle:-none}" ] || condemn "its bundle ${bundle:-(none)} is not on kit-overlay"
}

# other_bundle DIGEST WHY: the agent finds in KIT_RUN/bundle-refused which one was not used, and why.
other_bundle() {
  progress "starts with bundle $1 instead of $bundle: $2"
  printf '%s %s\n' "$bundle" "$2" >"$KIT_RUN/bundle-refused"
  bundle="$1"
}

# check_whole: reads all of the slot; a damaged one is condemned.
check_whole() {
  check_slot_root "$KIT_SLOT" "$data" "$hashes" "$KIT_ROOT_HASH" "$KIT_ROOT_SIZE" && return 0
  condemn 'its root image is damaged: dm-verity refuses to read it'
}

# mount_image
mount_image() {
  open_verity kit-root "$data" "$hashes" "$KIT_ROOT_HASH" "$KIT_ROOT_SIZE" 2>"$KIT_RUN/error" || refused "$KIT_RUN/error"
  mount -t squashfs -o ro "$KIT_DEV/mapper/kit-root" "$KIT_RUN/image" && return 0
  close_verity kit-root
  check_whole
  fail "Cannot mount the root image $KIT_IMAGE of slot $KIT_SLOT as squashfs, although it is undamaged: is the module in the initrd?"
}

leave_root
rm -f "$KIT_RUN/condemned"
within "$DISK_TENTHS" has_partitions || refused "$KIT_RUN/partition-error"
mount_kit_partitions 2>"$KIT_RUN/error" || refused "$KIT_RUN/error"
disk="$(kit_disk)"
data="$(find_partition "kit-root-$KIT_SLOT" "$disk")"
hashes="$(find_partition "kit-verity-$KIT_SLOT" "$disk")"
loader_tidy || progress "cannot tidy the boot loader’s entries"
check_record
count_attempt
choose_bundle
mount_image
mkdir -p "$KIT_RUN/bundle/root"
mount -o bind "$KIT_OVERLAY/bundles/$bundle" "$KIT_RUN/bundle/root"
lay_root "$KIT_RUN/image" "$KIT_RUN/bundle/root"
note BUNDLE "$bundle"
# From here on it is the running slot (slots.sh).
printf '%s\n' "$KIT_SLOT" >"$KIT_RUN/slot"
progress "slot $KIT_SLOT: image $KIT_IMAGE, bundle $(printf '%.12s' "$bundle")"
