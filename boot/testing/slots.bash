# Helpers of the tests of boot/node: a machine that runs from slot a of a disk, and images for its other slot. Partitions are
# loop devices, kit-overlay is ext4, images are squashfs and signed; dm-verity is veritysetup's own reading (systemctl).
# shellcheck shell=bash

# shellcheck source=agent.bash
. "${BASH_SOURCE[0]%/*}/agent.bash"

PARTITIONS='kit-root-a:20 kit-verity-a:1 kit-root-b:20 kit-verity-b:1 kit-overlay:24'

# make_images: once in a file: versions 1, 2 (another program in it), 3 (quite another), 4 (as 3, but for one program in the
# initrd), and the key, in BATS_FILE_TMPDIR/images.
make_images() {
  local tree="$BATS_FILE_TMPDIR/tree" parts="$BATS_FILE_TMPDIR/parts" number
  mkdir -p "$tree/usr/bin" "$parts" "$BATS_FILE_TMPDIR/images"
  for number in $(seq 10 29); do head -c $((60000 + number * 4321)) /dev/urandom >"$parts/$number"; done
  for number in $(seq 40); do head -c $((150000 + number * 4321)) /dev/urandom >"$tree/usr/bin/program-$number"; done
  signify-openbsd -G -n -c 'test key' -p "$BATS_FILE_TMPDIR/key.pub" -s "$BATS_FILE_TMPDIR/key.sec"
  make_image 1
  head -c 200001 /dev/urandom >"$tree/usr/bin/program-20"
  make_image 2
  rm "$tree"/usr/bin/*
  for number in $(seq 30); do head -c 200000 /dev/urandom >"$tree/usr/bin/program-$number"; done
  make_image 3
  head -c 200001 /dev/urandom >"$parts/15"
  make_image 4
}

# make_image VERSION: of the tree as it is now.
make_image() {
  local folder="$BATS_FILE_TMPDIR/images/$1" hash
  mkdir -p "$folder"
  mksquashfs "$BATS_FILE_TMPDIR/tree" "$folder/root.squashfs" -quiet -no-progress -reproducible -mkfs-time 0 -all-time 0 >/dev/null
  truncate -s %4096 "$folder/root.squashfs"
  hash="$(veritysetup format --hash=sha256 --data-block-size=4096 --hash-block-size=4096 --salt=- "$folder/root.squashfs" "$folder/root.verity" |
    sed -n 's/^Root hash:[[:space:]]*//p')"
  head -c 100000 /dev/zero | tr '\0' "$1" >"$folder/vmlinuz"
  cat "$BATS_FILE_TMPDIR"/parts/* >"$folder/initrd.img"
  list_chunks "$folder/root.squashfs" >"$folder/root.chunks"
  list_chunks "$folder/initrd.img" >"$folder/initrd.chunks"
  sign_image "$1" "$hash" "$(($(/bin/date +%s) + 86400))" 1
}

# list_chunks FILE: as the server does.
list_chunks() {
  "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/testing/list-chunks.ts" "$1"
}

# sign_image VERSION HASH EXPIRES EPOCH
sign_image() {
  local folder="$BATS_FILE_TMPDIR/images/$1" name
  {
    printf 'kateskit-image 1\nversion %s\narch amd64\nepoch %s\nsigned 1\nexpires %s\nroot-hash %s\n' "$1" "$4" "$3" "$2"
    for name in root.squashfs root.verity vmlinuz initrd.img root.chunks initrd.chunks; do
      [ -e "$folder/$name" ] || continue
      printf 'file %s %s %s\n' "$name" "$(stat -c %s "$folder/$name")" "$(sha256_of "$folder/$name")"
    done
  } >"$folder/manifest"
  signify-openbsd -S -s "$BATS_FILE_TMPDIR/key.sec" -m "$folder/manifest" -x "$folder/manifest.sig"
}

# make_slots: a machine (make_node) that runs image 1 from slot a, which is good; slot b is empty.
make_slots() {
  local pair number=1
  export KIT_DEV="$BATS_TEST_TMPDIR/dev" KIT_ESP="$KIT_RUN/esp" KIT_OVERLAY="$KIT_RUN/overlay" KIT_PERSIST="$KIT_RUN/persist"
  export KIT_MACHINE=x86_64 KIT_IMAGE=1 KIT_BOOT=''
  mkdir -p "$KIT_DEV/mapper" "$KIT_ESP/kit/a" "$KIT_OVERLAY" "$KIT_PERSIST/machine" "$KIT_SYS/firmware/efi" "$KIT_RUN/writes/upper"
  cp -r "$BATS_FILE_TMPDIR/images/." "$FOLDER/images"
  for pair in $PARTITIONS; do
    truncate -s "${pair#*:}M" "$BATS_TEST_TMPDIR/${pair%:*}.img"
    ln -s "$(losetup --find --show "$BATS_TEST_TMPDIR/${pair%:*}.img")" "$KIT_DEV/vda$number"
    mkdir -p "$KIT_SYS/class/block/vda$number"
    echo "PARTNAME=${pair%:*}" >"$KIT_SYS/class/block/vda$number/uevent"
    number=$((number + 1))
  done
  mkfs.ext4 -q -m 0 "$KIT_DEV/vda5"
  mount "$KIT_DEV/vda5" "$KIT_OVERLAY"
  cp "$BATS_FILE_TMPDIR/key.pub" "$KIT_RUN/image-key.pub"
  dd if="$FOLDER/images/1/root.squashfs" of="$KIT_DEV/vda1" conv=notrunc status=none
  dd if="$FOLDER/images/1/root.verity" of="$KIT_DEV/vda2" conv=notrunc status=none
  cp "$FOLDER/images/1/vmlinuz" "$FOLDER/images/1/initrd.img" "$KIT_ESP/kit/a/"
  echo from-disk-1 >"$FOLDER/boots"
  echo one >"$SOURCE/etc/motd"
  pack
  export KIT_BUNDLE="$DIGEST"
  mkdir -p "$KIT_OVERLAY/bundles/$KIT_BUNDLE" "$KIT_OVERLAY/slots"
  cp -a "$SOURCE/." "$KIT_OVERLAY/bundles/$KIT_BUNDLE"
  cp -a "$SOURCE/." "$KIT_LIVE"
  rmdir "$KIT_RUN/bundle"
  record a 1 "$KIT_BUNDLE"
  echo a >"$KIT_RUN/slot"
  offer a 0
  echo active >"$NOTES/unit.multi-user.target"
}

# record SLOT IMAGE BUNDLE [LINE]…: what lies in a slot.
record() {
  local slot="$1" image="$2" bundle="$3" hash
  shift 3
  hash="$(sed -n 's/^root-hash //p' "$FOLDER/images/$image/manifest")"
  {
    printf 'state written\nimage %s\nepoch 1\nroot-hash %s\nroot-size %s\n' "$image" "$hash" "$(stat -c %s "$FOLDER/images/$image/root.squashfs")"
    printf 'bundle %s\ngeneration 1\narguments quiet\n' "$bundle"
    [ $# = 0 ] || printf '%s\n' "$@"
  } >"$KIT_OVERLAY/slots/$slot"
}

# slots TEXT: runs TEXT with the library of slots.
slots() {
  with_parts paths disk slots loader loader-uefi loader-bios -- "$@"
}

# offer SLOT TRIES
offer() {
  slots "loader_offer $1 $2"
}

state_of() {
  slots "slot_state $1"
}

# field SLOT NAME
field() {
  sed -n "s/^$2 //p" "$KIT_OVERLAY/slots/$1"
}

end_slots() {
  local link
  end_node
  [ -z "${KIT_DEV:-}" ] || {
    umount "$KIT_OVERLAY" 2>/dev/null || umount -l "$KIT_OVERLAY" 2>/dev/null || true
    for link in "$KIT_DEV"/vda*; do losetup -d "$(readlink "$link")" || true; done
  }
}

# fetched_of NAME: bytes of that file that the server has sent.
fetched_of() {
  awk -v name="$1" '$1 ~ name { sum += $3 } END { print sum + 0 }' "$FOLDER/fetched"
}
