# Writing a partition table, and what is to be gone before. Everything is said in sectors of 512 bytes, as the disk plan
# and sysfs do, whatever the disk's own sectors are.
# shellcheck shell=dash

# Signatures lie within so much of a partition's ends: btrfs and ZFS have theirs up to 512 KiB into it, RAID at its end.
HEAD_SECTORS=2048
SETTLE_TENTHS=150

# plan_parts: `<label> <first> <sectors> <type>` for each partition of the plan.
plan_parts() {
  sed -n 's/^part //p' "$KIT_RUN/disk-plan"
}

# check_parts DISK: fails the step for a plan that cannot be carried out.
check_parts() {
  local odd size sector
  odd="$(plan_parts | grep -Evx 'kit-[a-z-]{1,32} [1-9][0-9]{0,14} [1-9][0-9]{0,14} [0-9A-Fa-f-]{36}' | head -n 1)"
  [ -z "$odd" ] || fail "Cannot partition $1: the plan has the partition $odd"
  [ -n "$(plan_parts)" ] || fail "Cannot partition $1: the plan has no partitions"
  size="$(attribute "$KIT_SYS/block/$1/size")"
  sector="$(sector_units "$1")"
  plan_parts | while read -r label first sectors _; do
    # The second table, at the very end, takes 33 sectors of the disk's own.
    [ $((first + sectors + 33 * sector)) -le "$size" ] ||
      fail "Cannot partition $1: $label would end at sector $((first + sectors)), and the disk has $size"
    [ $(((first | sectors) % sector)) -eq 0 ] ||
      fail "Cannot partition $1: $label does not lie on its sectors of $((sector * 512)) bytes"
  done
}

# sector_units DISK: the disk's own sectors in units of 512 bytes: 8 for a 4Kn disk.
sector_units() {
  echo $(($(attribute "$KIT_SYS/block/$1/queue/logical_block_size" 512) / 512))
}

# wipe_disk DISK: nothing of the old table can be found, and nothing where the new partitions will be: what is not wiped
# now would be taken for a file system of ours after a cut.
# -f: a table inside a partition too, as disks of virtual machines on one have (wipefs(8)). 41-disk saw that nobody uses it.
wipe_disk() {
  local partition
  for partition in $(partitions_of "$1"); do
    wipefs -a -f -q "$KIT_DEV/$partition" || fail "Cannot wipe $partition"
  done
  wipefs -a -f -q "$KIT_DEV/$1" || fail "Cannot wipe $1"
  plan_parts | while read -r label first sectors _; do
    zero_sectors "$1" "$first" "$((sectors < HEAD_SECTORS ? sectors : HEAD_SECTORS))"
    zero_sectors "$1" "$((sectors < HEAD_SECTORS ? first : first + sectors - HEAD_SECTORS))" \
      "$((sectors < HEAD_SECTORS ? sectors : HEAD_SECTORS))"
  done
  sync
  blockdev --flushbufs "$KIT_DEV/$1"
}

# zero_sectors DISK FIRST COUNT
zero_sectors() {
  dd if=/dev/zero of="$KIT_DEV/$1" bs=512 seek="$2" count="$3" conv=notrunc 2>"$KIT_RUN/dd.error" ||
    fail "Cannot write to $1: $(tail -n 1 "$KIT_RUN/dd.error")"
}

# hand_back DISK: until it has a boot loader, a firmware that starts from the disk gets a call that hands back to it
# (INT 18h) and goes on to the network. With a table and no code it would run zeros, for ever (seen on SeaBIOS 1.16).
hand_back() {
  printf '\315\030' | dd of="$KIT_DEV/$1" conv=notrunc,fsync 2>"$KIT_RUN/dd.error" ||
    fail "Cannot write to $1: $(tail -n 1 "$KIT_RUN/dd.error")"
}

# write_table DISK: of a disk that wipe_disk has been over; sfdisk leaves boot code alone when it need not wipe.
write_table() {
  local unit
  hand_back "$1"
  unit="$(sector_units "$1")"
  {
    echo 'label: gpt'
    plan_parts | while read -r label first sectors type; do
      echo "start=$((first / unit)), size=$((sectors / unit)), type=$type, name=\"$label\""
    done
  } | sfdisk --quiet --wipe never --wipe-partitions always "$KIT_DEV/$1" ||
    fail "Cannot write the partition table of $1"
  sync
  # The kernel and its devtmpfs follow by themselves; there is no udev to wait for.
  within "$SETTLE_TENTHS" has_parts "$1" || fail "Cannot use the new partition table of $1: the kernel does not show $(missing_part "$1")"
}

# has_parts DISK: does the kernel show the partitions of the plan, where they should be?
has_parts() {
  [ -z "$(missing_part "$1")" ] && return 0
  blockdev --rereadpt "$KIT_DEV/$1" 2>/dev/null || true
  return 1
}

# missing_part DISK: the first label of the plan that is not there as planned.
missing_part() {
  plan_parts | while read -r label first sectors _; do
    device="$(find_partition "$label" "$1" 2>/dev/null)" || device=''
    path="$KIT_SYS/class/block/${device##*/}"
    [ -n "$device" ] && [ -b "$device" ] && [ "$(cat "$path/start")" = "$first" ] && [ "$(cat "$path/size")" = "$sectors" ] && continue
    echo "$label"
    break
  done
}
