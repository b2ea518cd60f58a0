# Writing a slot, so that a cut at any moment leaves the machine what it had (docs/disk.md, "Writing a slot"). Needs disk.sh,
# slots.sh, loader*.sh and manifest.sh; shared by the initrd and the agent, who differ in how they fetch.
#
# The caller has called verify_manifest (the MANIFEST_ values are what is written), mounted kit-esp and kit-overlay, and
# defines three functions; each returns 1 with its reason on standard error:
#   fetch_root DEVICE           root.squashfs onto the device; anything that is not right is found afterwards
#   fetch_part NAME FILE        root.verity, vmlinuz or initrd.img into a file (or onto a device)
#   fetch_bundle_into DIRECTORY the bundle's tree into an empty directory
# It may define slot_progress TEXT, which is told of each step.
# shellcheck shell=dash

# write_slot SLOT BUNDLE ARGUMENTS [DISK]: afterwards the slot is `ready`: the image of the manifest, the bundle with that digest,
# started with those kernel arguments; loader_offer makes it count. Status 1 with the reason on standard error; the slot is
# then `writing`, or as it was when nothing was touched. Run again, it begins again.
write_slot() {
  local slot="$1" bundle="$2" arguments="$3" disk="${4:-}"
  SLOT_DATA="$(find_partition "kit-root-$slot" "$disk")" && SLOT_HASHES="$(find_partition "kit-verity-$slot" "$disk")" || return 1
  may_write_slot "$slot" "$bundle" "$arguments" || return 1
  tell_slot "$slot" 'begins'
  loader_forget "$slot" || return 1
  printf 'state writing\nimage %s\ngeneration %s\n' "$MANIFEST_VERSION" "$(next_generation)" | write_slot_record "$slot" || return 1
  write_slot_root "$slot" || return 1
  check_slot_root "$slot" "$SLOT_DATA" "$SLOT_HASHES" "$MANIFEST_ROOT_HASH" "$MANIFEST_ROOT_SIZE" || return 1
  lay_bundle "$bundle" || return 1
  put_boot_file "$slot" vmlinuz && put_boot_file "$slot" initrd.img || return 1
  write_slot_record "$slot" <<RECORD || return 1
state written
image $MANIFEST_VERSION
epoch $MANIFEST_EPOCH
root-hash $MANIFEST_ROOT_HASH
root-size $MANIFEST_ROOT_SIZE
bundle $bundle
generation $(slot_generation "$slot")
arguments $arguments
RECORD
  tell_slot "$slot" 'is ready'
}

tell_slot() {
  if command -v slot_progress >/dev/null; then slot_progress "slot $1: $2"; fi
}

# may_write_slot SLOT BUNDLE ARGUMENTS: everything that can be known before the first byte.
may_write_slot() {
  local slot="$1" size
  [ "$slot" != "$(running_slot)" ] || { complain "Cannot write slot $slot: this machine runs from it" || return 1; }
  [ "$slot" != "$(good_slots | head -n 1)" ] || { complain "Cannot write slot $slot: it is the last one that is known to be good" || return 1; }
  printf '%s\n' "$2" | grep -Eqx '[0-9a-f]{64}' || { complain "Cannot write slot $slot: $2 is no digest of a bundle" || return 1; }
  may_be_arguments "$3" || return 1
  [ $((MANIFEST_ROOT_SIZE % 4096)) = 0 ] ||
    { complain "Cannot write slot $slot: root.squashfs has $MANIFEST_ROOT_SIZE bytes, which are no whole blocks of 4096" || return 1; }
  fits_device "$SLOT_DATA" root.squashfs && fits_device "$SLOT_HASHES" root.verity && fits_esp "$slot"
}

# may_be_arguments ARGUMENTS: one line of printable text; and for GRUB, which changes what it hands on, nothing that quotes
# (grub-core/lib/cmdline.c puts a backslash before each).
may_be_arguments() {
  case "$1" in
    *[![:print:]]*) complain 'Cannot use the kernel arguments: there is a character in them that cannot be printed' || return 1 ;;
  esac
  [ "$(loader_kind)" = bios ] || return 0
  case "$1" in
    *[\"\'\\]*) complain "Cannot use the kernel arguments on a BIOS machine: GRUB cannot hand on quotation marks and backslashes ($1)" || return 1 ;;
  esac
}

# fits_device DEVICE NAME
fits_device() {
  local size place
  size="$(manifest_size "$2")"
  place="$(blockdev --getsize64 "$1")" || { complain "Cannot ask $1 for its size" || return 1; }
  [ "$size" -le "$place" ] || complain "Cannot write $2 to $1: it has $size bytes, there is room for $place"
}

# fits_esp SLOT: kernel and initrd, in place of those that are there now, and a MiB for entries and what rounding takes.
fits_esp() {
  local file free needed=1024
  free="$(esp_free_kib)"
  for file in vmlinuz initrd.img; do
    needed=$((needed + $(manifest_size "$file") / 1024 + 1))
    free=$((free + $(stat -c %s "$KIT_ESP/kit/$1/$file" 2>/dev/null || echo 0) / 1024))
  done
  [ "$free" -ge "$needed" ] ||
    complain "Cannot write slot $1: kit-esp is full: kernel and initrd need $needed KiB, there is room for $free"
}

# write_slot_root SLOT: the root image and its hash tree.
write_slot_root() {
  tell_slot "$1" "writes the root image, $((MANIFEST_ROOT_SIZE / 1048576)) MiB"
  fetch_root "$SLOT_DATA" || { complain "Cannot write slot $1: its root image did not get onto $SLOT_DATA" || return 1; }
  flush_device "$SLOT_DATA"
  fetch_part root.verity "$SLOT_HASHES" || { complain "Cannot write slot $1: its hash tree did not get onto $SLOT_HASHES" || return 1; }
  flush_device "$SLOT_HASHES"
}

# flush_device DEVICE: written out, and forgotten: the next read comes from the disk. A write that failed is found by that.
flush_device() {
  sync "$1" 2>/dev/null || true
  blockdev --flushbufs "$1" 2>/dev/null || true
}

# open_verity NAME DATA HASHES ROOT_HASH BYTES: a device-mapper device of that name which gives out only what the root hash says.
open_verity() {
  close_verity "$1"
  # No udev here, or one that need not be waited for: dmsetup makes the node itself.
  DM_DISABLE_UDEV=1 dmsetup create "$1" --readonly --noudevsync --table \
    "0 $(($5 / 512)) verity 1 $2 $3 4096 4096 $(($5 / 4096)) 1 sha256 $4 -" >&2 ||
    complain "Cannot open $2 through dm-verity: see dmsetup's message above"
}

close_verity() {
  [ -e "$KIT_DEV/mapper/$1" ] || return 0
  DM_DISABLE_UDEV=1 dmsetup remove --noudevsync "$1" >&2
}

# check_slot_root SLOT DATA HASHES ROOT_HASH BYTES: reads all of it through dm-verity.
check_slot_root() {
  local name="kit-check-$1" status=0
  tell_slot "$1" 'reads the root image back'
  open_verity "$name" "$2" "$3" "$4" "$5" || return 1
  dd if="$KIT_DEV/mapper/$name" of=/dev/null bs=1M 2>/dev/null || status=1
  close_verity "$name"
  [ "$status" = 0 ] || complain "Cannot use slot $1: its root image is damaged, dm-verity refuses to read it"
}

# lay_bundle DIGEST: complete or absent.
lay_bundle() {
  local folder="$KIT_OVERLAY/bundles"
  mkdir -p "$folder" || return 1
  drop_unused_bundles "$1"
  [ ! -d "$folder/$1" ] || return 0
  mkdir "$folder/.new" && fetch_bundle_into "$folder/.new" && sync -f "$folder" && mv "$folder/.new" "$folder/$1" && sync -f "$folder" && return 0
  rm -rf "$folder/.new"
  complain "Cannot lay the bundle $1 on kit-overlay ($(stat -f -c '%a %S' "$KIT_OVERLAY" | awk '{ printf "%d", $1 * $2 / 1048576 }') MiB are free)"
}

# put_boot_file SLOT NAME: vmlinuz or initrd.img onto kit-esp, read back; from the other slot when that has the same.
put_boot_file() {
  local file="$KIT_ESP/kit/$1/$2" wanted other
  wanted="$(manifest_sha256 "$2")"
  other="$KIT_ESP/kit/$(other_slot "$1")/$2"
  mkdir -p "${file%/*}" || return 1
  # From an attempt before this one.
  if [ -e "$file" ]; then forget_cached "$file"; fi
  if has_sha256 "$file" "$wanted"; then return 0; fi
  rm -f "$file" || return 1
  if has_sha256 "$other" "$wanted"; then
    cp "$other" "$file"
  else
    fetch_part "$2" "$file"
  fi || { complain "Cannot write $2 of slot $1 to kit-esp ($(esp_free_kib) KiB are free)" || return 1; }
  sync "$file" && sync -f "$KIT_ESP" && forget_cached "$file"
  has_sha256 "$file" "$wanted" || complain "Cannot use $2 of slot $1: what the disk gives back has another sha256 than the manifest says"
}

# has_sha256 FILE SHA256
has_sha256() {
  [ -e "$1" ] && [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ]
}
