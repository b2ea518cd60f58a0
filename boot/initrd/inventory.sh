# What disks there are and what is on them, from sysfs and blkid: the body of POST …/disks (docs/ports-and-endpoints.md).
# shellcheck shell=dash

# The server takes 16 KiB. Contents are cut first: a disk with one thing on it is as little blank as one with twenty.
INVENTORY_BYTES=16000
INVENTORY_DISKS=24

# inventory_disks: names of the disks that a system could be installed to, one a line.
inventory_disks() {
  local path name
  for path in "$KIT_SYS"/block/*; do
    name="${path##*/}"
    case "$name" in
      loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd* | drbd* | mtdblock* | mmcblk*boot* | mmcblk*rpmb) continue ;;
    esac
    # A card reader without a card has no size; a path of a multipath NVMe disk is hidden behind the disk.
    [ "$(attribute "$path/size" 0)" -gt 0 ] || continue
    [ "$(attribute "$path/ro")" = 1 ] || [ "$(attribute "$path/hidden")" = 1 ] || echo "$name"
  done
}

# attribute FILE [OTHERWISE]: the text of a sysfs file without blanks around it or anything unprintable in it. By codes, for
# busybox's tr has no [:print:].
attribute() {
  local text
  text="$(tr -cd '\040-\176' 2>/dev/null <"$1" | sed 's/^ *//; s/ *$//')" || true
  printf '%s' "${text:-${2:-}}"
}

# disk_transport NAME: by the devices it hangs on. USB first: behind a USB bridge there is often SATA or NVMe.
disk_transport() {
  case "$(readlink -f "$KIT_SYS/block/$1")/" in
    */usb[0-9]*) echo usb ;;
    */nvme*) echo nvme ;;
    */mmc_host/*) echo mmc ;;
    */virtio[0-9]*/block/*) echo virtio ;;
    */ata[0-9]*) echo sata ;;
    */end_device-*) echo sas ;;
    */host[0-9]*/target*) echo scsi ;;
    *) echo unknown ;;
  esac
}

# disk_serial NAME: nothing when it has none.
disk_serial() {
  local path="$KIT_SYS/block/$1" serial place
  serial="$(attribute "$path/serial")"
  [ -n "$serial" ] || serial="$(attribute "$path/device/serial")"
  # SCSI: page 0x80 of the vital product data has four bytes before the number (SPC-4 §7.8.15).
  if [ -z "$serial" ] && [ -e "$path/device/vpd_pg80" ]; then
    serial="$(tail -c +5 "$path/device/vpd_pg80" 2>/dev/null | tr -cd '\040-\176' | sed 's/^ *//; s/ *$//')"
  fi
  # USB sticks: the number is the USB device's.
  place="$(readlink -f "$path/device" 2>/dev/null || true)"
  while [ -z "$serial" ] && [ "$(disk_transport "$1")" = usb ] && [ -n "${place#/}" ]; do
    if [ -e "$place/idVendor" ]; then
      serial="$(attribute "$place/serial")"
      break
    fi
    place="${place%/*}"
  done
  # The server gets so much of it, and names the disk by it.
  printf '%s' "$serial" | head -c 128
}

# disk_wwn NAME: `0x5000…` for SCSI and SATA, `eui.…` for NVMe, as makers print it and people write it.
disk_wwn() {
  local id
  id="$(attribute "$KIT_SYS/block/$1/wwid")"
  [ -n "$id" ] || id="$(attribute "$KIT_SYS/block/$1/device/wwid")"
  case "$id" in
    naa.*) printf '0x%s' "${id#naa.}" ;;
    eui.*) printf '%s' "$id" ;;
  esac
}

# disk_is_removable NAME: an SD card says of itself that it is not; whoever pulls it out knows better.
disk_is_removable() {
  [ "$(attribute "$KIT_SYS/block/$1/removable")" = 1 ] || [ "$(attribute "$KIT_SYS/block/$1/device/type")" = SD ]
}

# probe DEVICE: `TYPE=ext4`, `PTTYPE=gpt`, … by what lies on the device, without any cache. What cannot be read, or is two
# things at once, is not blank.
probe() {
  local found status=0
  if ! dd if="$1" of=/dev/null bs=4096 count=1 2>/dev/null; then
    echo TYPE=unreadable
    return 0
  fi
  found="$(blkid -p -o export "$1" 2>/dev/null)" || status=$?
  # 2: nothing found; 8: several signatures that contradict each other (blkid(8)).
  case "$status" in
    0 | 2) printf '%s\n' "$found" ;;
    8) echo TYPE=several ;;
    *) echo TYPE=unreadable ;;
  esac
}

# partitions_of DISK: the names of its partitions, in the order of their numbers.
partitions_of() {
  local path
  for path in "$KIT_SYS/block/$1"/*/partition; do
    [ -e "$path" ] || continue
    path="${path%/partition}"
    echo "$(attribute "$path/partition") ${path##*/}"
  done | sort -n | cut -d ' ' -f 2
}

# partition_label DISK PARTITION: its name in the GPT.
partition_label() {
  sed -n 's/^PARTNAME=//p' "$KIT_SYS/block/$1/$2/uevent" 2>/dev/null
}

# inventory_field NAME VALUE: `,"name":"value"`, or nothing without a value.
inventory_field() {
  [ -z "$2" ] || printf ',"%s":%s' "$1" "$(json_string "$(printf '%s' "$2" | head -c 128)")"
}

# whole_disk_type DISK: what lies on the disk outside of partitions. A table whose partitions this kernel does not know
# is not blank either.
whole_disk_type() {
  local found type
  found="$(probe "$KIT_DEV/$1")"
  type="$(printf '%s\n' "$found" | sed -n 's/^TYPE=//p')"
  if [ -z "$type" ] && [ -z "$(partitions_of "$1")" ]; then
    type="$(printf '%s\n' "$found" | sed -n '/^PTTYPE=\(gpt\|dos\)$/d; s/^PTTYPE=\(.*\)/table \1/p')"
  fi
  printf '%s' "$type"
}

# disk_contents DISK MOST: what is on the disk itself and on at most so many of its partitions, ours first.
disk_contents() {
  local type partition comma=''
  type="$(whole_disk_type "$1")"
  if [ -n "$type" ]; then
    printf '{"where":"%s"%s}' "$1" "$(inventory_field type "$type")"
    comma=,
  fi
  {
    partitions_of "$1" | while read -r partition; do
      case "$(partition_label "$1" "$partition")" in kit-*) echo "1 $partition" ;; *) echo "2 $partition" ;; esac
    done
  } | sort -s -n -k 1,1 | head -n "$2" | cut -d ' ' -f 2 | while read -r partition; do
    type="$(probe "$KIT_DEV/$partition" | sed -n 's/^TYPE=//p')"
    printf '%s{"where":"%s"%s%s}' "$comma" "$partition" "$(inventory_field label "$(partition_label "$1" "$partition")")" \
      "$(inventory_field type "$type")"
    comma=,
  done
}

# disk_json DISK MOST
disk_json() {
  local removable=false
  if disk_is_removable "$1"; then removable=true; fi
  printf '{"name":"%s","sizeBytes":%s,"removable":%s,"transport":"%s"' \
    "$1" "$(($(attribute "$KIT_SYS/block/$1/size") * 512))" "$removable" "$(disk_transport "$1")"
  inventory_field serial "$(disk_serial "$1")"
  inventory_field wwn "$(disk_wwn "$1")"
  inventory_field model "$(attribute "$KIT_SYS/block/$1/device/model" "$(attribute "$KIT_SYS/block/$1/device/name")")"
  inventory_field table "$(probe "$KIT_DEV/$1" | sed -n 's/^PTTYPE=//p')"
  printf ',"contents":[%s]}' "$(disk_contents "$1" "$2")"
}

# inventory_json: the whole body, cut until it fits.
inventory_json() {
  local disks most body firmware=bios
  [ ! -e "$KIT_SYS/firmware/efi" ] || firmware=uefi
  disks="$(inventory_disks)"
  for most in "64 $INVENTORY_DISKS" "16 $INVENTORY_DISKS" "9 $INVENTORY_DISKS" "1 $INVENTORY_DISKS" '1 12' '1 6'; do
    body="{\"boot\":$(json_string "$KIT_BOOT"),\"firmware\":\"$firmware\",\"disks\":[$(printf '%s\n' "$disks" | head -n "${most#* }" |
      while read -r disk; do
        [ -z "$disk" ] || printf '%s,' "$(disk_json "$disk" "${most% *}")"
      done | sed 's/,$//')]}"
    [ "${#body}" -gt "$INVENTORY_BYTES" ] || break
  done
  printf '%s' "$body"
}
