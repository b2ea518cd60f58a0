# What makes a machine's disk bootable (/usr/lib/kit/boot), made of Debian's own files ([loaders] of packages.txt).
# shellcheck shell=bash

# Where GRUB's core lies on every disk: the start of the partition kit-bios (docs/disk.md).
core_sector=2048
core_sectors_max=2048

# make_boot_files <root tree> <image folder>
make_boot_files() {
  local to=$1/usr/lib/kit/boot
  mkdir -p "$to"
  install -m 644 "$1/.kit-build/loaders/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$2/ipxe/ipxe.efi" "$2/ipxe/ipxe.lkrn" "$to/"
  make_grub "$1" "$to"
}

# GRUB as grub-bios-setup would put it on such a disk, without a disk: that needs a device, and asks it for its partitions
# (docs/decisions/grub-core-without-install.md).
make_grub() {
  local root=$1 to=$2 from=/.kit-build/loaders modules
  modules=$from/usr/lib/grub/i386-pc
  # By the tree's own libraries: what the building machine has of GRUB plays no part.
  # shellcheck disable=SC2046 # one argument a module
  chroot "$root" "$from/usr/bin/grub-mkimage" --format=i386-pc --directory="$modules" --prefix='(,gpt2)/kit/grub' \
    --output="$from/core.img" $(list_column "$KIT_RECIPE/grub-modules.txt") ||
    fail 'Cannot make the BIOS boot loader: grub-mkimage failed' 'see the lines above, and assets/image/grub-modules.txt'
  # The first 440 bytes are code; the rest of the sector belongs to the disk's own tables.
  head -c 440 "$root$modules/boot.img" >"$to/grub-boot.img"
  cp "$root$from/core.img" "$to/grub-core.img"
  chmod 644 "$to"/grub-{boot,core}.img
  patch_grub "$to/grub-boot.img" "$to/grub-core.img"
}

# patch_grub <boot sector> <core>: the places are those of GRUB 2.12's include/grub/i386/pc/boot.h and
# include/grub/offsets.h. What stands there is looked at first: another GRUB may have them elsewhere.
patch_grub() {
  local boot=$1 core=$2 sectors=$((($(stat -c %s "$2") + 511) / 512))
  [ "$sectors" -le "$core_sectors_max" ] || fail "Cannot make the BIOS boot loader: its core has $sectors sectors, $core_sectors_max are there"
  # 0x5c: the core's first sector, 1 as shipped. 0x66: a jump over the mending of a wrong drive number, which GRUB's own
  # installer replaces by two nops on hard disks.
  expect_bytes "$boot" $((0x5c)) '01 00 00 00 00 00 00 00'
  expect_bytes "$boot" $((0x66)) 'eb 05'
  write_bytes "$boot" $((0x5c)) "$(little_endian 8 "$core_sector")"
  write_bytes "$boot" $((0x66)) '90 90'
  # The last twelve bytes of the core's first sector: from where, how many sectors, to which segment the rest goes.
  expect_bytes "$core" 500 "02 00 00 00 00 00 00 00 $(little_endian 2 $((sectors - 1))) 20 08"
  write_bytes "$core" 500 "$(little_endian 8 $((core_sector + 1)))"
}

# little_endian <bytes> <number>: `2 260` → `04 01`
little_endian() {
  local count=$1 number=$2 bytes=()
  while [ "$count" -gt 0 ]; do
    bytes+=("$(printf '%02x' $((number & 255)))")
    number=$((number >> 8))
    count=$((count - 1))
  done
  echo "${bytes[*]}"
}

# expect_bytes <file> <offset> <hexadecimal bytes>
expect_bytes() {
  local bytes found
  read -ra bytes <<<"$3"
  found=$(od -An -v -t x1 -j "$2" -N ${#bytes[@]} "$1" | xargs)
  [ "$found" = "$3" ] || fail "Cannot patch ${1##*/} at $2: $found, not $3" 'see what this version of GRUB has there (assets/image/boot-files.sh)'
}

write_bytes() {
  local byte
  for byte in $3; do printf '%b' "\\x$byte"; done | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
