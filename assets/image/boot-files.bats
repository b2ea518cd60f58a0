#!/usr/bin/env bats
# The boot files of the image start a machine from its disk, and the patch of GRUB refuses a GRUB it does not know.

setup() {
  recipe=$BATS_TEST_DIRNAME
  work=$BATS_TEST_TMPDIR
}

teardown() {
  [ -z "${machine:-}" ] || kill "$machine" 2>/dev/null || true
}

# find_boot_files: those of the image of this recipe, in $boot.
find_boot_files() {
  local image
  image=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
  [ -f "$image/manifest.json" ] || skip 'no image of this recipe is built (assets/image/build.sh)'
  boot=$work/files/usr/lib/kit/boot
  unsquashfs -q -n -d "$work/files" "$image/root.squashfs" usr/lib/kit/boot
}

# make_disk: as install_loaders leaves one (docs/disk.md), as far as a BIOS looks at it; kit-esp holds $work/esp.
make_disk() {
  truncate -s 128M "$work/disk"
  sfdisk -q "$work/disk" <<TABLE
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=kit-bios
start=4096, size=204800, type=C12A7328-F81F-11D2-BA4B-00C04FC93EC9, name=kit-esp
TABLE
  truncate -s 100M "$work/esp"
  mkfs.vfat -F 32 -n KIT-ESP "$work/esp" >/dev/null
  mmd -i "$work/esp" ::kit ::kit/grub
  mcopy -i "$work/esp" "$work/grub.cfg" "$work/grubenv" ::kit/grub/
  mcopy -i "$work/esp" "$boot/ipxe.lkrn" ::kit/ipxe.lkrn
  dd if="$work/esp" of="$work/disk" bs=1M seek=2 conv=notrunc,sparse status=none
  dd if="$boot/grub-boot.img" of="$work/disk" conv=notrunc status=none
  dd if="$boot/grub-core.img" of="$work/disk" bs=512 seek=2048 conv=notrunc status=none
}

# boot_until <text>: starts the machine and returns when its console says so; fails after a minute.
boot_until() {
  local line
  mkfifo "$work/console"
  # -nographic: what goes to the screen by the BIOS shows on the serial port as well, iPXE among it.
  timeout 60 qemu-system-x86_64 -accel tcg -m 256 -nographic -nic none -serial stdio -monitor none \
    -drive "file=$work/disk,format=raw,if=virtio" <&- >"$work/console" 2>&1 3>&- &
  machine=$!
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$work/said"
    case $line in *"$1"*) return 0 ;; esac
  done <"$work/console"
  cat "$work/said"
  return 1
}

@test "a disk with the boot files starts GRUB under a BIOS, which keeps its environment on FAT and starts iPXE" {
  for tool in qemu-system-x86_64 sfdisk mkfs.vfat mcopy unsquashfs; do
    command -v "$tool" >/dev/null || skip "no $tool (npm test installs it)"
  done
  find_boot_files
  { printf '# GRUB Environment Block\ntries=3\n' && head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 >"$work/grubenv"
  cat >"$work/grub.cfg" <<'SCRIPT'
load_env
if [ "$tries" = 3 ]; then
  set tries=2
  save_env tries
  set tries=none
  load_env
fi
echo "grub: $root $prefix, tries $tries"
linux16 ($root)/kit/ipxe.lkrn
boot
SCRIPT
  make_disk
  boot_until 'iPXE 1.'
  grep -q 'grub: hd0,gpt2 (hd0,gpt2)/kit/grub, tries 2' "$work/said"
  mtype -i "$work/disk@@2M" ::kit/grub/grubenv | grep -qx 'tries=2'
}

@test "patch_grub() refuses a GRUB that has something else in its places" {
  head -c 512 /dev/zero >"$work/boot"
  head -c 2048 /dev/zero >"$work/core"
  run bash -euo pipefail -c '. "$1/lib.sh"; . "$1/boot-files.sh"; patch_grub "$2/boot" "$2/core"' bash "$recipe" "$work"
  [ "$status" = 1 ]
  [[ $output == *'Cannot patch boot at 92: 00 00 00 00 00 00 00 00, not 01 00 00 00 00 00 00 00'* ]]
  cmp "$work/boot" <(head -c 512 /dev/zero)
}

@test "patch_grub() refuses a core that is larger than its partition" {
  head -c 512 /dev/zero >"$work/boot"
  truncate -s 1048577 "$work/core"
  run bash -euo pipefail -c '. "$1/lib.sh"; . "$1/boot-files.sh"; patch_grub "$2/boot" "$2/core"' bash "$recipe" "$work"
  [ "$status" = 1 ]
  [[ $output == *'its core has 2049 sectors, 2048 are there'* ]]
}
