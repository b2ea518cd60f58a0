# The identity on a kit-persist that nothing may be written to yet. Needs disk.sh and identity.sh.
# shellcheck shell=dash

# Of the journal, as much as is not in its place yet; it takes no memory before it is written.
LOOK_BYTES=1073741824

# find_kept_identity: load_identity from kit-persist, mounted or not; status 1 with the reason on standard error. Of several
# disks with one, who could say which is this machine's?
find_kept_identity() {
  local device place="$KIT_RUN/look" status=0
  if is_mount_point "$KIT_PERSIST"; then
    load_identity
    return
  fi
  device="$(find_partition kit-persist)" || return 1
  end_look "$place" 2>/dev/null
  if begin_look "$device" "$place"; then load_identity "$place/root/machine" || status=1; else status=1; fi
  end_look "$place"
  return "$status"
}

# begin_look DEVICE FOLDER: the file system in FOLDER/root. ext4 replays its journal even when it is mounted read-only, and
# without the replay (noload) keys of the last minute may not be there. So it writes, but into memory: a snapshot.
begin_look() {
  local loop
  mkdir -p "$2/root" && truncate -s "$LOOK_BYTES" "$2/changes" && loop="$(losetup -f)" && losetup "$loop" "$2/changes" &&
    echo "$loop" >"$2/loop" &&
    DM_DISABLE_UDEV=1 dmsetup create kit-look --noudevsync --table "0 $(blockdev --getsz "$1") snapshot $1 $loop N 8" &&
    mount -t ext4 -o ro,nosuid,nodev,noexec "$KIT_DEV/mapper/kit-look" "$2/root" && return 0
  complain "Cannot look for a key on kit-persist ($1): it is no ext4 that can be mounted"
}

# end_look FOLDER: can run after half of begin_look.
end_look() {
  if is_mount_point "$1/root"; then umount "$1/root"; fi
  if [ -e "$KIT_DEV/mapper/kit-look" ]; then DM_DISABLE_UDEV=1 dmsetup remove --noudevsync --retry kit-look; fi
  if [ -s "$1/loop" ]; then losetup -d "$(cat "$1/loop")"; fi
  rm -rf "$1"
}
