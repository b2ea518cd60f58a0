# What the steps that write a disk share: the server's disk plan, and letting go of what an attempt before this one held.
# shellcheck shell=dash

# plan_value NAME: of the disk plan (docs/ports-and-endpoints.md), or nothing.
plan_value() {
  sed -n "s/^$1 //p" "$KIT_RUN/disk-plan" | head -n 1
}

# installed_slot: the slot of a disk that needs no installation (41-disk), or nothing.
installed_slot() {
  cat "$KIT_RUN/installed" 2>/dev/null || true
}

# note_slot SLOT: the steps after this one start that slot, as its record says.
note_slot() {
  note SLOT "$1"
  note IMAGE "$(slot_field "$1" image)"
  note BUNDLE "$(slot_field "$1" bundle)"
  note ROOT_HASH "$(slot_field "$1" root-hash)"
  note ROOT_SIZE "$(slot_field "$1" root-size)"
}

# release_disk: unmounts everything that is ours and stops its verity devices, newest first.
release_disk() {
  local place name
  awk '{ print $5 }' "$KIT_PROC/self/mountinfo" | sort -r | while read -r place; do
    case "$place" in
      "$KIT_NEWROOT" | "$KIT_NEWROOT"/* | "$KIT_RUN"/*) umount "$place" || umount -l "$place" || true ;;
    esac
  done
  for name in "$KIT_SYS"/class/block/dm-*/dm/name; do
    [ -e "$name" ] || continue
    case "$(cat "$name")" in
      # No udev here that it could wait for.
      kit-*) DM_DISABLE_UDEV=1 dmsetup remove --noudevsync --retry "$(cat "$name")" || true ;;
    esac
  done
}

# disk_users DISK: what holds the disk or a partition of it: mount points, and devices made of them.
disk_users() {
  local path number
  for path in "$KIT_SYS/class/block/$1" "$KIT_SYS/class/block/$1/$1"*; do
    [ -e "$path/dev" ] || continue
    number="$(cat "$path/dev")"
    awk -v number="$number" '$3 == number { print $5 }' "$KIT_PROC/self/mountinfo"
    ls "$path/holders" 2>/dev/null || true
  done | sort -u
}

# check_epoch: fails the step when this machine ran a newer security epoch. kit-persist remembers, so it has to be
# mounted.
check_epoch() {
  verify_manifest "$KIT_RUN/manifest" "$KIT_RUN/manifest.sig" "$KIT_LIB/image-key.pub" "$KIT_PERSIST/machine/epoch" "$KIT_IMAGE" ||
    fail_as_said
}
