# The machine's own partitions: finding and mounting them; and putting a file on kit-esp so that a power cut cannot hurt it.
# Read before slots.sh, loader*.sh and slot-write.sh; shared by the initrd and the agent. What refuses returns 1 with the
# reason as the last line on standard error.
# shellcheck shell=dash

# Tests point these elsewhere; nothing else does.
: "${KIT_RUN:=/run/kit}" "${KIT_SYS:=/sys}" "${KIT_DEV:=/dev}" "${KIT_PROC:=/proc}"
: "${KIT_ESP:=$KIT_RUN/esp}" "${KIT_OVERLAY:=$KIT_RUN/overlay}" "${KIT_PERSIST:=$KIT_RUN/persist}"

# dirsync: vfat writes the new name before it takes away the old one, where a plain write-back may do it the other way
# round and a cut leave neither (Linux, fs/fat/namei_vfat.c, vfat_rename). What is in files is synced by those who write.
# errors=continue: see put_on_esp; a kit-esp that turned read-only could not even fall back.
KIT_ESP_OPTIONS='rw,noatime,dirsync,umask=0077,shortname=mixed,errors=continue'
KIT_EXT4_OPTIONS='rw,noatime,errors=remount-ro'

# complain TEXT: "Cannot <do> <thing>: <current value>" for people and the server; status 1.
complain() {
  printf '%s\n' "$*" >&2
  return 1
}

# find_partition LABEL [DISK]: prints the device of the partition with that label, on that disk (`vda`, `/dev/vda`) when
# one is given. Status 1 when there is none, 2 when there are several.
find_partition() {
  local file name disk="${2:-}" found='' count=0
  disk="${disk##*/}"
  for file in "$KIT_SYS"/class/block/*/uevent; do
    grep -qx "PARTNAME=$1" "$file" 2>/dev/null || continue
    name="${file%/uevent}"
    name="${name##*/}"
    # A disk's folder holds those of its partitions.
    [ -z "$disk" ] || [ -d "$KIT_SYS/class/block/$disk/$name" ] || continue
    found="$found${found:+ }$KIT_DEV/$name"
    count=$((count + 1))
  done
  case "$count" in
    0) complain "Cannot find the partition $1${disk:+ on $disk}: no disk has one" ;;
    1) printf '%s\n' "$found" ;;
    *)
      complain "Cannot tell which partition $1 is this machine's: $found"
      return 2
      ;;
  esac
}

# kit_disk: the disk (`vda`) whose kit-overlay is mounted, or nothing: a machine may have a second one that was installed once.
kit_disk() {
  local device
  device="$(awk -v place="$KIT_OVERLAY" '$5 == place { sub(/.* - /, ""); split($0, part, " "); print part[2]; exit }' "$KIT_PROC/self/mountinfo")"
  if [ -z "$device" ] || [ ! -e "$KIT_SYS/class/block/${device##*/}" ]; then return 0; fi
  device="$(readlink -f "$KIT_SYS/class/block/${device##*/}")"
  device="${device%/*}"
  printf '%s\n' "${device##*/}"
}

# is_mount_point DIRECTORY
is_mount_point() {
  awk -v place="$1" '$5 == place { found = 1 } END { exit !found }' "$KIT_PROC/self/mountinfo"
}

# mount_kit_partitions [DISK]: kit-esp, kit-overlay and kit-persist to where everything expects them. Can run twice.
mount_kit_partitions() {
  mount_kit_partition kit-esp "$KIT_ESP" vfat "$KIT_ESP_OPTIONS" "${1:-}" || return 1
  mount_kit_partition kit-overlay "$KIT_OVERLAY" ext4 "$KIT_EXT4_OPTIONS" "${1:-}" || return 1
  mount_kit_partition kit-persist "$KIT_PERSIST" ext4 "$KIT_EXT4_OPTIONS" "${1:-}"
}

# mount_kit_partition LABEL DIRECTORY TYPE OPTIONS [DISK]: one that cannot be mounted is mended as far as that needs no
# questions, and tried once more. Nothing is ever made anew here.
mount_kit_partition() {
  local device
  if is_mount_point "$2"; then return 0; fi
  device="$(find_partition "$1" "${5:-}")" || return 1
  mkdir -p "$2" || return 1
  mount -t "$3" -o "$4" "$device" "$2" && return 0
  if [ "$3" = ext4 ]; then
    e2fsck -p "$device" >&2
    # 0 clean, 1 mended, 2 mended and wants a reboot, which is for file systems that are in use (e2fsck(8)).
    [ $? -le 2 ] && mount -t "$3" -o "$4" "$device" "$2" && return 0
  fi
  complain "Cannot mount $1 ($device): it is no $3 that can be mended by itself"
}

# unmount_kit_partitions: whatever of them is mounted, written out.
unmount_kit_partitions() {
  local place status=0
  for place in "$KIT_PERSIST" "$KIT_OVERLAY" "$KIT_ESP"; do
    if ! is_mount_point "$place"; then continue; fi
    sync -f "$place"
    umount "$place" || { complain "Cannot unmount $place: something is still using it" || status=1; }
  done
  return "$status"
}

# put_on_esp SOURCE TARGET: TARGET is then a copy of SOURCE, read back; after a cut it is the old file or the new one.
# A rename cut on FAT can leave both names on the same clusters, and taking one away would free those of the other. So a
# name that a cut left behind is neither written to nor removed before TARGET has clusters of its own again; that the
# clusters are then freed a second time is what errors=continue is for.
put_on_esp() {
  local fresh number
  for number in 1 2 3 4; do
    fresh="$2.$number"
    [ -e "$fresh" ] || break
  done
  mkdir -p "${2%/*}" || return 1
  if ! { cp "$1" "$fresh" && sync "$fresh" && sync -f "${2%/*}" && forget_cached "$fresh" && cmp -s "$1" "$fresh"; }; then
    rm -f "$fresh"
    complain "Cannot write $2: $(esp_free_kib) KiB are free on kit-esp, $(($(stat -c %s "$1") / 1024)) are needed; or the disk does not keep what is written"
    return 1
  fi
  { mv -f "$fresh" "$2" && sync -f "${2%/*}"; } || { complain "Cannot rename $fresh" || return 1; }
  remove_leftovers "$2"
}

# remove_leftovers TARGET: what cuts left of earlier attempts at it. Only right after TARGET was written anew or removed.
remove_leftovers() {
  local leftover found=''
  for leftover in "$1".[1-4]; do
    [ -e "$leftover" ] || continue
    rm -f "$leftover"
    found=1
  done
  [ -z "$found" ] || sync -f "${1%/*}"
}

esp_free_kib() {
  # Free blocks and their size; both busybox and coreutils have these two.
  stat -f -c '%a %S' "$KIT_ESP" | awk '{ printf "%d\n", $1 * $2 / 1024 }'
}

# forget_cached FILE: the next read of the synced FILE comes from the disk.
forget_cached() {
  # coreutils can ask for this one file; busybox cannot, and in the initrd the whole cache may go. 4 of the 5: the kernel says
  # so on the console once, not a hundred times (Documentation/admin-guide/sysctl/vm.rst).
  dd if="$1" of=/dev/null iflag=nocache count=0 2>/dev/null || { echo 5 >"$KIT_PROC/sys/vm/drop_caches"; } 2>/dev/null || true
}
