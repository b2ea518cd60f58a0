#!/bin/sh
# Writes the partition table where it is not ours yet, and the file systems that are to be new. kit-persist only when there
# is none.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in inventory install partitions disk manifest; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

# make_ext4 LABEL: the tables are written later, in the background; nothing is discarded, which takes minutes on some disks.
# Called by this name because busybox has an mke2fs of its own.
make_ext4() {
  local device
  device="$(find_partition "$1" "$disk")"
  mkfs.ext4 -q -F -L "$1" -m 1 -E lazy_itable_init=1,lazy_journal_init=1,nodiscard "$device" ||
    fail "Cannot make the file system of $1 on $device"
  blockdev --flushbufs "$device"
  progress "$1 is new"
}

# keep_or_make_esp
keep_or_make_esp() {
  local device
  if mount_kit_partition kit-esp "$KIT_ESP" vfat "$KIT_ESP_OPTIONS" "$disk"; then
    umount "$KIT_ESP"
    return 0
  fi
  device="$(find_partition kit-esp "$disk")"
  mkfs.vfat -F 32 -n KIT-ESP "$device" || fail "Cannot make the file system of kit-esp on $device"
  blockdev --flushbufs "$device"
  progress 'kit-esp is new'
}

# keep_or_make_persist: what cannot be read is not blank, and nobody's data is thrown away for it.
keep_or_make_persist() {
  local device type
  device="$(find_partition kit-persist "$disk")"
  type="$(probe "$device" | sed -n 's/^TYPE=//p')"
  case "$type" in
    '')
      make_ext4 kit-persist
      return 0
      ;;
    ext4) ;;
    *) fail "Cannot keep kit-persist: it is $type and not ext4. To make it new: kateskit powerwash $KIT_MAC --persistence" ;;
  esac
  mount_kit_partition kit-persist "$KIT_PERSIST" ext4 "$KIT_EXT4_OPTIONS" "$disk" ||
    fail "Cannot keep kit-persist: e2fsck -p cannot mend it. By hand: e2fsck $device; to make it new: kateskit powerwash $KIT_MAC --persistence"
  check_epoch
  umount "$KIT_PERSIST"
}

[ -z "$(installed_slot)" ] || exit 0
disk="$(plan_value disk)"
if [ "$(plan_value table)" = make ]; then
  check_parts "$disk"
  wipe_disk "$disk"
  write_table "$disk"
  progress "$disk has a new partition table"
fi
keep_or_make_persist
keep_or_make_esp
# Neither holds anything that a machine without a good slot would miss.
make_ext4 kit-overlay
make_ext4 kit-containers
