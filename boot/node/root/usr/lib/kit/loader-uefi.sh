# systemd-boot: one entry file per slot, whose name counts the tries (Boot Loader Specification, "Boot counting").
# Needs disk.sh, slots.sh, loader.sh.
# shellcheck shell=dash

# systemd's own (systemd.io/BOOT_LOADER_INTERFACE).
LOADER_GUID='4a67b082-0a4c-41cf-b6c7-440b29bb8c4f'

uefi_entries_folder() {
  printf '%s\n' "$KIT_ESP/loader/entries"
}

# uefi_names SLOT: the slot's entry files, by name, the one that counts first: as systemd-boot sorts them (src/boot/boot.c,
# boot_entry_compare): those without tries last, then by version, then by tries. A file without a kernel is none for it.
# Of a counted one and one that is not, with the same version, it takes either; here the slot was good already.
uefi_names() {
  local path name tries version
  for path in "$(uefi_entries_folder)/kit-$1"*.conf; do
    name="${path##*/}"
    printf '%s\n' "$name" | grep -Eqx "kit-$1(\+[0-9]{1,9}(-[0-9]{1,9})?)?\.conf" || continue
    grep -q '^linux ' "$path" 2>/dev/null || continue
    version="$(sed -n 's/^version \([0-9]\{1,15\}\)$/\1/p' "$path" | head -n 1)"
    tries="$(uefi_count "$name")"
    printf '%d %d %d %s\n' "$([ "$tries" = 0 ] && echo 0 || echo 1)" "${version:-0}" "${tries:-99}" "$name"
  done | sort -k 1,1nr -k 2,2nr -k 3,3nr | cut -d ' ' -f 4
}

# uefi_count NAME: the tries left in the name of an entry, or nothing.
uefi_count() {
  printf '%s\n' "$1" | sed -n 's/^[^+]*+0*\([0-9][0-9]*\)\(-[0-9]*\)\{0,1\}\.conf$/\1/p'
}

uefi_name() {
  uefi_names "$1" | head -n 1
}

uefi_knows() {
  local name tries
  name="$(uefi_name "$1")"
  tries="$(uefi_count "$name")"
  case "$name:$tries" in
    :*) ;;
    *:) echo good ;;
    *:0) echo tried ;;
    *) echo trying ;;
  esac
}

uefi_tries() {
  uefi_count "$(uefi_name "$1")"
}

# uefi_write SLOT NAME: the slot has that entry, made from its record, and no other.
uefi_write() {
  local text="$KIT_RUN/entry" folder
  folder="$(uefi_entries_folder)"
  cat >"$text" <<ENTRY || return 1
title KatesKit $(slot_field "$1" image), slot $1
sort-key kit-a
version $(slot_generation "$1")
linux /kit/$1/vmlinuz
initrd /kit/$1/initrd.img
options $(slot_options "$1")
ENTRY
  put_on_esp "$text" "$folder/$2" && uefi_remove_others "$1" "$2"
}

# uefi_remove_others SLOT [NAME]: every file of the slot but that one, and what cuts left.
uefi_remove_others() {
  local name
  for name in $(uefi_files "$1"); do
    [ "$name" != "${2:-}" ] || continue
    rm -f "$(uefi_entries_folder)/$name" || { complain "Cannot remove $(uefi_entries_folder)/$name" || return 1; }
  done
  sync -f "$KIT_ESP"
}

uefi_offer() {
  if [ "$2" = 0 ]; then uefi_write "$1" "kit-$1.conf"; else uefi_write "$1" "kit-$1+$2.conf"; fi
}

uefi_bless() {
  [ "$(uefi_files "$1")" = "kit-$1.conf" ] || uefi_write "$1" "kit-$1.conf"
}

# uefi_files SLOT: every file of the slot, entry or not.
uefi_files() {
  local path
  for path in "$(uefi_entries_folder)/kit-$1.conf"* "$(uefi_entries_folder)/kit-$1+"*; do
    [ ! -e "$path" ] || printf '%s\n' "${path##*/}"
  done
}

# uefi_tidy: of several files of a slot the one that counts remains, written anew: see put_on_esp for why.
uefi_tidy() {
  local slot name
  for slot in a b; do
    name="$(uefi_name "$slot")"
    [ "$(uefi_files "$slot")" != "$name" ] || continue
    if [ -n "$name" ]; then uefi_write "$slot" "$name"; else uefi_forget "$slot"; fi || return 1
  done
}

# uefi_condemn SLOT: its entry stays, for people, and is never chosen before the network.
uefi_condemn() {
  [ -n "$(uefi_name "$1")" ] || return 0
  # On a kit-esp that takes nothing any more, gone is as good.
  uefi_write "$1" "kit-$1+0.conf" || uefi_forget "$1"
}

uefi_forget() {
  [ ! -d "$(uefi_entries_folder)" ] || uefi_remove_others "$1"
}

# uefi_is_trial: systemd-boot leaves this variable when it counted.
uefi_is_trial() {
  mount_efivars
  [ -e "$KIT_SYS/firmware/efi/efivars/LoaderBootCountPath-$LOADER_GUID" ]
}

mount_efivars() {
  local place="$KIT_SYS/firmware/efi/efivars"
  # An empty folder is one where nothing is mounted: firmware always has variables.
  [ -z "$(ls "$place" 2>/dev/null)" ] || return 0
  mount -t efivarfs efivarfs "$place" 2>/dev/null || true
}

# uefi_network_once: by the firmware, when it has an entry for this machine's interface; else by systemd-boot.
uefi_network_once() {
  local number
  mount_efivars
  number="$(network_boot_number "${KIT_MAC:-}")"
  if [ -n "$number" ] && efibootmgr -q -n "$number" >/dev/null 2>&1; then return 0; fi
  write_efivar LoaderEntryOneShot kit-network.conf
}

# uefi_forget_network_once: a wish that was overtaken (the machine came from the network by itself) must not act later.
uefi_forget_network_once() {
  local file="$KIT_SYS/firmware/efi/efivars/LoaderEntryOneShot-$LOADER_GUID"
  [ -e "$file" ] || return 0
  chattr -i "$file" 2>/dev/null || true
  rm -f "$file" 2>/dev/null || true
}

# network_boot_number MAC: the number of the firmware's entry that boots from that interface, by IPv4 and PXE where it has
# several; nothing when there is none or no efibootmgr.
network_boot_number() {
  local mac
  mac="$(printf '%s' "$1" | tr -d ':-')"
  [ -n "$mac" ] && command -v efibootmgr >/dev/null || return 0
  efibootmgr -v 2>/dev/null | grep -i "^Boot[0-9A-F]\{4\}\*.*MAC($mac" | awk '
    { rank = /IPv6\(/ ? 2 : 0; if (/Uri\(/) rank++; print rank, substr($1, 5, 4) }' | sort | head -n 1 | cut -d ' ' -f 2
}

# write_efivar NAME TEXT: one of systemd-boot's variables: kept by the firmware, seen while it boots and after (7: UEFI
# specification, "SetVariable"), as UTF-16LE with a NUL at its end.
write_efivar() {
  local file="$KIT_SYS/firmware/efi/efivars/$1-$LOADER_GUID" bytes="$KIT_RUN/efivar"
  # efivarfs guards what is there against rm.
  [ ! -e "$file" ] || chattr -i "$file" 2>/dev/null || true
  {
    printf '\007\000\000\000'
    printf '%s' "$2" | sed 's/./&\n/g' | tr '\n' '\0'
    printf '\000\000'
  } >"$bytes"
  # efivarfs wants all of it in one write.
  dd if="$bytes" of="$file" bs=4096 conv=notrunc 2>/dev/null && return 0
  complain "Cannot write the firmware's variable $1: efivarfs does not take it"
}

# uefi_install FOLDER DISK: systemd-boot and its network entry; and an entry of the firmware's own where it can be made.
uefi_install() {
  local text="$KIT_RUN/entry"
  put_different "$1/systemd-bootx64.efi" "$KIT_ESP/EFI/systemd/systemd-bootx64.efi" &&
    put_different "$1/systemd-bootx64.efi" "$KIT_ESP/EFI/BOOT/BOOTX64.EFI" || return 1
  printf 'timeout 0\nconsole-mode keep\n' >"$text" && put_different "$text" "$KIT_ESP/loader/loader.conf" || return 1
  # After every slot that may boot (kit-a), before those without tries.
  printf 'title Network\nsort-key kit-z\nefi /kit/ipxe.efi\n' >"$text" &&
    put_different "$text" "$(uefi_entries_folder)/kit-network.conf" || return 1
  [ "$(loader_kind)" = uefi ] || return 0
  mount_efivars
  uefi_forget_network_once
  # Firmware finds EFI/BOOT/BOOTX64.EFI without an entry: one that cannot be made is no failure.
  add_boot_entry "$2" || echo 'the firmware takes no boot entry; EFI/BOOT/BOOTX64.EFI has to do' >&2
}

# add_boot_entry DISK: "KatesKit" among the firmware's entries, right after the one this machine booted from, so that a
# machine that asks the network first goes on doing so; last when that is not known. Entries of that name that lead
# elsewhere (the disk was partitioned anew) go.
add_boot_entry() {
  local esp guid number order current
  command -v efibootmgr >/dev/null || return 0
  esp="$(find_partition kit-esp "$1")" || return 1
  guid="$(partition_guid "$1" "$esp")" || return 1
  for number in $(boot_numbers | grep -vi ",$guid," | cut -d ' ' -f 1); do
    efibootmgr -q -B -b "$number" >/dev/null || return 1
  done
  [ -z "$(boot_numbers)" ] || return 0
  efibootmgr -q -C -d "$KIT_DEV/${1##*/}" -p "$(cat "$KIT_SYS/class/block/${esp##*/}/partition")" -L KatesKit \
    -l '\EFI\systemd\systemd-bootx64.efi' >/dev/null || return 1
  number="$(boot_numbers | cut -d ' ' -f 1 | head -n 1)"
  [ -n "$number" ] || return 1
  order="$(efibootmgr | sed -n 's/^BootOrder: //p')"
  current="$(efibootmgr | sed -n 's/^BootCurrent: //p')"
  efibootmgr -q -o "$(order_with "$order" "$current" "$number")" >/dev/null
}

# boot_numbers: the firmware's entries called KatesKit, `<number> <path>` a line.
boot_numbers() {
  efibootmgr -v 2>/dev/null | sed -n 's/^Boot\([0-9A-F]\{4\}\)[* ] KatesKit[[:space:]]\(.*\)$/\1 \2/p'
}

# order_with ORDER CURRENT NUMBER: `0003,0001` with NUMBER behind CURRENT, else behind all.
order_with() {
  printf '%s' "$1" | awk -v current="$2" -v number="$3" -v RS=, -v ORS='' '
    $1 == number { next }
    { print (count++ ? "," : "") $1 }
    $1 == current { print "," number; placed = 1 }
    END { if (!placed) print (count ? "," : "") number }'
}

# partition_guid DISK PARTITION: the partition's own GUID, in lower case, from the table (UEFI specification, "GPT Partition
# Entry Array"): the kernel shows it nowhere in sysfs.
partition_guid() {
  local number sector
  number="$(cat "$KIT_SYS/class/block/${2##*/}/partition")" || return 1
  sector="$(cat "$KIT_SYS/class/block/${1##*/}/queue/logical_block_size" 2>/dev/null || echo 512)"
  # Its first three parts are little-endian.
  dd if="$KIT_DEV/${1##*/}" bs=1 skip=$((2 * sector + (number - 1) * 128 + 16)) count=16 2>/dev/null | od -An -v -t x1 |
    awk '{ print $4 $3 $2 $1 "-" $6 $5 "-" $8 $7 "-" $9 $10 "-" $11 $12 $13 $14 $15 $16 }'
}
