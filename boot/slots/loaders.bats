#!/usr/bin/env bats
# What the boot loaders are told: systemd-boot's entries, GRUB's environment block and script, the firmware's variables.

load slots.bash

setup_file() {
  make_applets
}

entries='cd "$KIT_ESP/loader/entries" && ls | xargs'

@test "loader_offer() and loader_bless() write an entry, and one only" {
  prepare() { record a 'image 2025.11.1' "arguments kit.url=http://10.77.0.1:8080 it's=\"quoted\" \$x"; }
  on_machine uefi "loader_offer a 3; loader_tries a; cat \"\$KIT_ESP/loader/entries/kit-a+3.conf\"
    loader_offer a 2; loader_bless a; loader_bless a; loader_tries a; $entries"
  [ "$output" = "3
title KatesKit 2025.11.1, slot a
sort-key kit-a
version 1
linux /kit/a/vmlinuz
initrd /kit/a/initrd.img
options kit.plan=disk kit.slot=a kit.image=2025.11.1 kit.root-hash=$ROOT_HASH kit.root-size=4096 panic=10 kit.url=http://10.77.0.1:8080 it's=\"quoted\" \$x
kit-a.conf" ]
}

@test "loader_condemn() leaves an entry without tries and the reason in one line; loader_forget() leaves none" {
  prepare() { record a && record b; }
  on_machine uefi "loader_offer a 0; loader_offer b 3; loader_condemn b 'kernel
panic'; $entries; slot_field b reason; slot_state b; loader_forget b; $entries; loader_forget b; slot_field b image"
  [ "$output" = "kit-a.conf kit-b+0.conf
kernel panic
bad
kit-a.conf
1" ]
}

@test "loader_offer() refuses a slot that is not written, and tries that cannot be" {
  prepare() { record a 'state writing'; }
  for firmware in uefi bios; do
    on_machine "$firmware" 'loader_offer a 3 2>&1 || loader_offer b 3 2>&1 || loader_offer a 12 2>&1 || loader_bless a 2>&1'
    [ "$output" = "Cannot offer slot a: it is writing
Cannot offer slot b: it is empty
Cannot offer slot a: 12 tries are not 0 to 9
Cannot call slot a good: it is writing" ]
  done
}

@test "of several entries of a slot the one systemd-boot would take counts, and loader_tidy() leaves that one" {
  while IFS='|' read -r files wanted state; do
    prepare() {
      record a
      mkdir -p "$KIT_ESP/loader/entries"
      for file in $files; do
        printf 'version %s\nlinux /kit/a/vmlinuz\n' "${file#*@}" >"$KIT_ESP/loader/entries/${file%@*}"
        case "$file" in *@empty) : >"$KIT_ESP/loader/entries/${file%@*}" ;; esac
      done
    }
    on_machine uefi "slot_state a; loader_tidy; $entries"
    [ "$(xargs <<<"$output")" = "$(xargs <<<"$state $wanted")" ] || { echo "$files gave $output" && false; }
  done <<'TABLE'
kit-a.conf@1 kit-a+3.conf@2|kit-a+3.conf|trying
kit-a+3.conf@1 kit-a.conf@2|kit-a.conf|good
kit-a+0-3.conf@9 kit-a.conf@2|kit-a.conf|good
kit-a+3.conf@1 kit-a+2-1.conf@1|kit-a+3.conf|trying
kit-a.conf@1 kit-a+2-1.conf@1|kit-a.conf|good
kit-a.conf@empty kit-a+2-1.conf@1|kit-a+2-1.conf|trying
kit-a+10.conf@1 kit-a+9-1.conf@1|kit-a+10.conf|trying
kit-a.conf@1 kit-a.conf.1@1|kit-a.conf|good
kit-a+1-2.conf.2@1||ready
TABLE
}

@test "grubenv is GRUB's, 1024 bytes, and changes only in its first sector" {
  prepare() { record a && record b 'generation 2'; }
  on_machine bios 'loader_offer a 3; loader_bless a; loader_offer b 3; loader_network_once; cat "$KIT_ESP/kit/grub/grubenv"'
  [ "${#output}" -eq 1024 ]
  [ "$(head -n 6 <<<"$output" | sed 's/^#\{5,\}$/#/')" = "# GRUB Environment Block
boot=a
try=b
tries=3
network=1
#" ]
  if command -v grub-editenv >/dev/null; then
    [ "$(grub-editenv "$KIT_ESP/kit/grub/grubenv" list | xargs)" = 'boot=a try=b tries=3 network=1' ]
  fi
}

@test "on BIOS the good slot before the last is the spare one" {
  prepare() { record a && record b 'generation 2'; }
  env='sed -n "s/^\([a-z]*=.\)$/\1/p" "$KIT_ESP/kit/grub/grubenv" | xargs'
  on_machine bios "loader_offer a 3; $env; loader_bless a; $env; loader_offer b 2; $env; loader_tries b; loader_bless b; $env
    loader_condemn b no; $env; slot_state b; loader_offer b 0; $env; loader_forget a; $env; slot_state a; loader_condemn b no; $env"
  [ "$output" = "try=a tries=3
boot=a
boot=a try=b tries=2
2
boot=b spare=a
boot=a
bad
boot=b spare=a
boot=b
ready
try=b tries=0" ]
}

@test "the slot's grub.cfg quotes every argument, and GRUB hands them on as they are" {
  prepare() { record a "arguments a=\$(reboot) b=\${x};c|d  e=#f <g> 100% \`h\`"; }
  on_machine bios 'loader_offer a 3; cat "$KIT_ESP/kit/a/grub.cfg"'
  wanted="linux /kit/a/vmlinuz 'kit.plan=disk' 'kit.slot=a' 'kit.image=1' 'kit.root-hash=$ROOT_HASH' 'kit.root-size=4096' 'panic=10' 'a=\$(reboot)' 'b=\${x};c|d' 'e=#f' '<g>' '100%' '\`h\`' \$kit_trial"
  [ "${lines[1]}" = "if $wanted; then" ]
  if command -v grub-script-check >/dev/null; then grub-script-check "$KIT_ESP/kit/a/grub.cfg"; fi
}

# grub_says BLOCK…: what GRUB itself, with our grub.cfg, does with such an environment block; the block afterwards in block.
# Commands that start something only say so.
grub_says() {
  local folder="$BATS_TEST_TMPDIR/grub" slot
  rm -rf "$folder" && mkdir "$folder"
  truncate -s 4M "$folder/disk"
  mkfs.vfat "$folder/disk" >/dev/null
  mmd -i "$folder/disk" ::/kit ::/kit/grub ::/kit/a ::/kit/b
  sed -e 's/linux16 .kit.ipxe.lkrn/echo NETWORK/; s/initrd16 .kit.autoexec.ipxe/echo SCRIPT/; s/^\( *\)boot$/\1exit/; s/^sleep 60/echo END/; s/^reboot/exit/' \
    "$BOOT_FOLDER/node/root/usr/lib/kit/boot/grub.cfg" >"$folder/grub.cfg"
  mcopy -i "$folder/disk" "$folder/grub.cfg" ::/kit/grub/grub.cfg
  for slot in ${slots-a b}; do
    if [ "$slot" = script ]; then echo '#!ipxe' | mcopy -i "$folder/disk" - ::/kit/autoexec.ipxe && continue; fi
    echo "if echo SLOT $slot \$kit_trial; then true; else false; fi" | mcopy -i "$folder/disk" - "::/kit/$slot/grub.cfg"
  done
  if [ "$1" != none ]; then
    { printf '# GRUB Environment Block\n%b' "$1" && head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 | mcopy -i "$folder/disk" - ::/kit/grub/grubenv
  fi
  echo "(hd0) $folder/disk" >"$folder/map"
  TERM=dumb timeout 20 script -qec "grub-emu -m $folder/map -r hd0 -d /kit/grub" /dev/null </dev/null | tr -d '\r' |
    sed 's,\x1b\[[0-9;?]*[A-Za-z],\n,g' | grep -a '^SLOT\|^NETWORK\|^SCRIPT\|^END' | xargs
  block="$(mcopy -n -i "$folder/disk" ::/kit/grub/grubenv - 2>/dev/null | grep -av '^#' | xargs)" || true
}

@test "grub.cfg decides in GRUB itself as docs/disk.md says" {
  for program in grub-emu mcopy mkfs.vfat script; do
    command -v "$program" >/dev/null || skip "$program is not here"
  done
  while IFS='|' read -r slots before wanted after; do
    run grub_says "$before"
    grub_says "$before" >/dev/null
    [ "$output" = "$wanted" ] || { echo "$before: GRUB said $output" && false; }
    [ "$block" = "$after" ] || { echo "$before: left $block" && false; }
  done <<'TABLE'
a b|boot=a\ntry=b\ntries=3\n|SLOT b kit.trial=1|boot=a try=b tries=2
a b|boot=a\ntry=b\ntries=1\n|SLOT b kit.trial=1|boot=a try=b tries=0
a b|boot=a\ntry=b\ntries=0\n|SLOT a|boot=a try=b tries=0
a b|boot=b\nspare=a\n|SLOT b|boot=b spare=a
a|boot=b\nspare=a\n|SLOT a|boot=b spare=a
a|boot=a\ntry=b\ntries=9\n|SLOT a|boot=a try=b tries=8
a b|boot=a\nnetwork=1\n|NETWORK|boot=a
b|try=b\ntries=0\n|NETWORK|try=b tries=0
b script|try=b\ntries=0\n|NETWORK SCRIPT|try=b tries=0
a b script|boot=a\nnetwork=1\n|NETWORK SCRIPT|boot=a
||NETWORK|
b|boot=\n|SLOT b|boot=
a b|none|SLOT a|
TABLE
}

@test "loader_is_trial() is true when the loader counted" {
  for name in "" LoaderBootCountPath; do
    prepare() { [ -z "$name" ] || touch "$KIT_SYS/firmware/efi/efivars/$name-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"; }
    on_machine uefi 'loader_is_trial && echo yes || echo no'
    [ "$output" = "$([ -z "$name" ] && echo no || echo yes)" ]
    prepare() { echo "kit.plan=disk kit.trial=${name:+1}" >"$KIT_PROC/cmdline"; }
    on_machine bios 'loader_is_trial && echo yes || echo no'
    [ "$output" = "$([ -z "$name" ] && echo no || echo yes)" ]
  done
}

@test "loader_network_once() writes systemd-boot's variable in one piece when the firmware has no entry" {
  prepare() { :; }
  on_machine uefi 'KIT_MAC=52-54-00-12-34-56; loader_network_once; od -An -v -t x1 "$KIT_SYS/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f" | xargs'
  text="$(printf 'kit-network.conf' | od -An -v -t x1 | xargs | sed 's/ / 00 /g') 00 00 00"
  [ "$output" = "07 00 00 00 $text" ]
}

# firmware_of TEXT: an efibootmgr that prints TEXT and notes what else it is asked.
firmware_of() {
  printf '%s\n' "$1" >"$MACHINE/firmware"
  # shellcheck disable=SC2016
  stand_in efibootmgr 'case "$*" in "" | -v) cat "$MACHINE/firmware" ;; *) echo "$*" >>"$MACHINE/asked"
    case "$*" in *-C*) printf "Boot0007* KatesKit\tHD(2,GPT,new)/File(x)\n" >>"$MACHINE/firmware" ;; esac ;; esac'
}

OVMF='BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0000,0003,0004,0001,0002
Boot0000* UiApp	FvVol(7cb8bdc9)/FvFile(462caa21)
Boot0001* UEFI Misc Device	PciRoot(0x0)/Pci(0x3,0x0){auto_created_boot_option}
Boot0002* EFI Internal Shell	FvVol(7cb8bdc9)/FvFile(7c04a583)
Boot0003* UEFI PXEv4 (MAC:525400123456)	PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400123456,1)/IPv4(0.0.0.00.0.0.0,0,0)
Boot0004* UEFI PXEv6 (MAC:525400123456)	PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400123456,1)/IPv6([::]:<->[::]:,0,0)
Boot0005* UEFI HTTPv4 (MAC:525400123456)	PciRoot(0x0)/Pci(0x2,0x0)/MAC(525400123456,1)/IPv4(0.0.0.00.0.0.0,0,0)/Uri()
Boot0006* UEFI PXEv4 (MAC:525400AAAAAA)	PciRoot(0x0)/Pci(0x9,0x0)/MAC(525400aaaaaa,1)/IPv4(0.0.0.00.0.0.0,0,0)'

@test "loader_network_once() takes the firmware's own entry of the machine's interface, by IPv4 and PXE" {
  prepare() { firmware_of "$OVMF"; }
  on_machine uefi 'KIT_MAC=52-54-00-12-34-56; loader_network_once; cat "$MACHINE/asked"; ls "$KIT_SYS/firmware/efi/efivars"'
  [ "$output" = "-q -n 0003
LoaderInfo" ]
}

@test "order_with() puts a new entry behind the one the machine booted from" {
  while IFS='|' read -r order current wanted; do
    on_machine uefi "order_with '$order' '$current' 0007"
    [ "$output" = "$wanted" ] || { echo "$order $current: $output" && false; }
  done <<'TABLE'
0000,0003,0001|0003|0000,0003,0007,0001
0000,0003,0001||0000,0003,0001,0007
0000,0003|0009|0000,0003,0007
0007,0003|0003|0003,0007
|0003|0007
0003|0003|0003,0007
TABLE
}

# image_of_loaders: an image with all of them.
image_of_loaders() {
  local folder="$MACHINE/image/usr/lib/kit/boot" name
  mkdir -p "$folder"
  for name in systemd-bootx64.efi ipxe.efi ipxe.lkrn grub.cfg; do echo "$name" >"$folder/$name"; done
  head -c 440 /dev/urandom >"$folder/grub-boot.img"
  head -c 70000 /dev/urandom >"$folder/grub-core.img"
}

# disk_of_kit: vda with a partition table of its own in the first sectors, kit-bios and kit-esp.
disk_of_kit() {
  partition vda1 kit-bios 2048 1
  partition vda2 kit-esp 4096 1
  truncate -s 4M "$KIT_DEV/vda"
  printf 'label: gpt\nstart=2048, size=2048, name=kit-bios\nstart=4096, size=2048, name=kit-esp, uuid=1B2A3C4D-0011-2233-4455-66778899AABB\n' |
    sfdisk --quiet "$KIT_DEV/vda" >/dev/null
}

@test "install_loaders() writes both kinds, leaves the table of the first sector alone, and rewrites only what differs" {
  command -v sfdisk >/dev/null || skip 'sfdisk is not here'
  prepare() { image_of_loaders && disk_of_kit; }
  # shellcheck disable=SC2016
  text='tail -c +441 "$KIT_DEV/vda" | sha256sum >"$KIT_RUN/before"; install_loaders "$MACHINE/image" vda
    tail -c +441 "$KIT_DEV/vda" | sha256sum | cmp - "$KIT_RUN/before" && echo "the table is as it was"
    head -c 440 "$KIT_DEV/vda" | cmp - "$MACHINE/image/usr/lib/kit/boot/grub-boot.img" && head -c 70000 "$KIT_DEV/vda1" | cmp - "$MACHINE/image/usr/lib/kit/boot/grub-core.img"
    cd "$KIT_ESP" && find . -type f | sort; cat loader/loader.conf loader/entries/kit-network.conf; head -c 25 kit/grub/grubenv
    find . -exec touch -d @1 {} +; install_loaders "$MACHINE/image" vda; find . -type f -newermt @2 2>/dev/null || true'
  on_machine bios "${text%find*}"
  [ "$output" = "the table is as it was
./EFI/BOOT/BOOTX64.EFI
./EFI/systemd/systemd-bootx64.efi
./kit/grub/grub.cfg
./kit/grub/grubenv
./kit/ipxe.efi
./kit/ipxe.lkrn
./loader/entries/kit-network.conf
./loader/loader.conf
timeout 0
console-mode keep
title Network
sort-key kit-z
efi /kit/ipxe.efi
# GRUB Environment Block" ]
  [ -z "$(find "$KIT_ESP" -newermt '1970-01-02')" ]
}

@test "install_loaders() writes what the iPXE on the disk does, anew only for another server, and leaves it without one" {
  command -v sfdisk >/dev/null || skip 'sfdisk is not here'
  prepare() { image_of_loaders && disk_of_kit; }
  # shellcheck disable=SC2016
  on_machine bios 'file="$KIT_ESP/kit/autoexec.ipxe"; KIT_MAC=52-54-00-12-34-56 KIT_URL=http://10.77.0.1:8080
    install_loaders "$MACHINE/image" vda; cat "$file"; touch -d @1 "$file"
    install_loaders "$MACHINE/image" vda; KIT_URL=; install_loaders "$MACHINE/image" vda; stat -c %Y "$file"
    KIT_URL=http://10.77.0.2:8080; install_loaders "$MACHINE/image" vda; grep -c http://10.77.0.2 "$file"'
  [ "${lines[0]}" = '#!ipxe' ]
  grep -qx 'set want recover' <<<"$output"
  # shellcheck disable=SC2016
  grep -qxF 'iseq ${net${index}/mac} 52:54:00:12:34:56 && goto own ||' <<<"$output"
  # shellcheck disable=SC2016
  grep -qxF 'chain --autofree --replace http://10.77.0.1:8080/boot/${netX/mac:hexhyp}.ipxe?uuid=${uuid}&platform=${platform}&buildarch=${buildarch}&want=${want} ||' <<<"$output"
  [ "$(tail -n 2 <<<"$output" | xargs)" = '1 3' ]
  # Every label it goes to is there.
  for label in $(sed -n 's/.*goto \([a-z]*\).*/\1/p' <<<"$output" | sort -u); do grep -qx ":$label" <<<"$output"; done
}

@test "install_loaders() names what the image lacks, and refuses kit-bios in the wrong place" {
  prepare() { image_of_loaders && partition vda1 kit-bios 4096 && partition vda2 kit-esp && truncate -s 4M "$KIT_DEV/vda"; }
  on_machine bios 'install_loaders "$MACHINE/image" vda 2>&1 || rm "$MACHINE/image/usr/lib/kit/boot/ipxe.lkrn"; KIT=1; install_loaders "$MACHINE/image" vda 2>&1'
  [ "${lines[0]}" = 'Cannot install GRUB: kit-bios does not begin at sector 2048, where its boot code looks for it' ]
  [[ "${lines[1]}" == 'Cannot install the boot loaders: the image has no /usr/lib/kit/boot/ipxe.lkrn (is it for this architecture, '* ]]
}

@test "a core that is cut while it is written leaves boot code that hands back to the firmware" {
  command -v sfdisk >/dev/null || skip 'sfdisk is not here'
  fresh_machine bios
  image_of_loaders && disk_of_kit
  stand_in dd 'case "$*" in *of=*vda1*) exit 1 ;; esac; exec /bin/dd "$@"'
  run env PATH="$MACHINE/bin:$PATH" dash -c "$(printf '. "$KIT_LIB/%s.sh"\n' disk slots loader loader-uefi loader-bios)"'
    install_loaders "$MACHINE/image" vda; head -c 2 "$KIT_DEV/vda" | od -An -t x1'
  [[ "$output" == 'Cannot write the boot loader to '*'vda1: the disk does not keep what is written'*' cd 18' ]]
}

@test "install_loaders() adds an entry to the firmware once, behind the network it came from, and removes dead ones" {
  command -v sfdisk >/dev/null || skip 'sfdisk is not here'
  prepare() {
    image_of_loaders && disk_of_kit
    touch "$MACHINE/asked" "$KIT_SYS/firmware/efi/efivars/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    firmware_of "$OVMF
Boot0008* KatesKit	HD(2,GPT,00000000-0011-2233-4455-66778899aabb,0x1000,0x800)/File(\\EFI\\systemd\\systemd-bootx64.efi)"
    stand_in efibootmgr 'echo "$*" >>"$MACHINE/asked"; case "$*" in
      "" | -v) cat "$MACHINE/firmware" ;;
      *-B*) sed -i "/^Boot0008/d" "$MACHINE/firmware" ;;
      *-C*) printf "Boot0007* KatesKit\tHD(2,GPT,1b2a3c4d-0011-2233-4455-66778899aabb,0x1000,0x800)/File(x)\n" >>"$MACHINE/firmware" ;; esac'
  }
  on_machine uefi 'install_loaders "$MACHINE/image" vda; install_loaders "$MACHINE/image" vda; grep -v "^$\|^-v$" "$MACHINE/asked"; ls "$KIT_SYS/firmware/efi/efivars"'
  echo "$output"
  [ "${output//"$KIT_DEV"/DEV}" = '-q -B -b 0008
-q -C -d DEV/vda -p 2 -L KatesKit -l \EFI\systemd\systemd-bootx64.efi
-q -o 0000,0003,0007,0004,0001,0002
LoaderInfo' ]
}
