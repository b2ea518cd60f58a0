#!/bin/sh
# Writes the image and the bundle into a slot, and offers it to the boot loaders: with that the machine is installed.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in json install download stream bundle disk identity slots loader loader-uefi loader-bios manifest slot-write; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

# As many as the first boot may fail by bad luck; the agent calls it good.
TRIES=3
BUNDLE_TAR="$KIT_RUN/bundle.tar"

# What write_slot asks for (slot-write.sh). They end the step with a reason of their own.
# shellcheck disable=SC2317
fetch_root() {
  stream "$KIT_URL/images/$KIT_IMAGE/root.squashfs" "$1" "$MANIFEST_ROOT_SIZE"
}

# shellcheck disable=SC2317
fetch_part() {
  stream "$KIT_URL/images/$KIT_IMAGE/$1" "$2" "$(manifest_size "$1")"
}

# shellcheck disable=SC2317
fetch_bundle_into() {
  download "$KIT_URL/bundles/$KIT_BUNDLE.tar" "$BUNDLE_TAR" "$KIT_BUNDLE"
  unpack_bundle "$BUNDLE_TAR" "$1" || fail_as_said
  rm -f "$BUNDLE_TAR"
}

# shellcheck disable=SC2317
slot_progress() {
  progress "$*"
}

# choose_slot: where an attempt at the same image was cut, else a.
choose_slot() {
  local slot
  for slot in b a; do
    if [ "$(slot_state "$slot")" = writing ] && [ "$(slot_field "$slot" image)" = "$KIT_IMAGE" ]; then break; fi
  done
  echo "$slot"
}

# put_loaders SLOT: out of the image that was just written and read back.
put_loaders() {
  local root="$KIT_RUN/slot-image" device
  device="$(find_partition "kit-root-$1" "$disk")"
  mkdir -p "$root"
  mount -t squashfs -o ro "$device" "$root" || fail "Cannot mount the root image in slot $1 as squashfs"
  install_loaders "$root" "$disk" || fail_as_said
  umount "$root"
}

[ -z "$(installed_slot)" ] || exit 0
disk="$(plan_value disk)"
release_disk
mount_kit_partitions "$disk" || fail_as_said
# Sets what write_slot goes by; kit-persist is mounted now, so its epoch counts.
check_epoch
# Here already: after kit-persist was made new, a cut must not cost the machine its key.
keep_identity || progress "cannot keep the machine's key on kit-persist"
slot="$(choose_slot)"
write_slot "$slot" "$KIT_BUNDLE" "$(plan_value arguments)" "$disk" || fail_as_said
put_loaders "$slot"
loader_offer "$slot" "$TRIES" || fail_as_said
sync
note_slot "$slot"
progress "slot $slot is installed"
