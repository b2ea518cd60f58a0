# Disks for the bats tests of boot/: files behind loop devices, and the /sys a kernel would show of them, because the
# kernels of test machines have neither GPT nor FAT nor device-mapper. Everything else is real: sfdisk, ext4, e2fsck,
# wipefs, blkid, veritysetup.
# shellcheck shell=bash

# make_stand_ins: programs that tell of partitions, FAT and dm-verity where the kernel here cannot; first in the PATH by
# STAND_INS. Those that write ask cut_here afterwards, which kills the machine when it is the one to be killed at.
make_stand_ins() {
  export STAND_INS="$BATS_TEST_TMPDIR/bin" LOOPS="$BATS_TEST_TMPDIR/loops"
  mkdir -p "$STAND_INS"
  stand_in sfdisk "$(command -v sfdisk)"' --no-reread --no-tell-kernel "$@" && show_partitions "${@: -1}"'
  # `-t vfat` is mounted as ext4 (in_disk_machine).
  stand_in mkfs.vfat "$(command -v mkfs.ext4)"' -q -F -L KIT-ESP "${@: -1}"'
  stand_in mkfs.ext4 "$(command -v mkfs.ext4)"' "$@"'
  stand_in wipefs "$(command -v wipefs)"' "$@"'
  stand_in dmsetup 'fake_dmsetup "$@"'
  for program in blkid e2fsck signify-openbsd; do ln -sf "$(command -v "$program")" "$STAND_INS/$program"; done
}

stand_in() {
  cat >"$STAND_INS/$1" <<SH
#!/bin/bash
PATH=/usr/sbin:/usr/bin:/sbin:/bin
. "$BOOT_FOLDER/testing/disks.bash"
$2
status=\$?
cut_here
exit \$status
SH
  chmod +x "$STAND_INS/$1"
}

# cut_here: with a number in the file `cut-at`, the power goes at that call: every process of the machine is killed.
cut_here() {
  local left
  [ -s "$BATS_TEST_TMPDIR/cut-at" ] || return 0
  left=$(($(cat "$BATS_TEST_TMPDIR/cut-at") - 1))
  echo "$left" >"$BATS_TEST_TMPDIR/cut-at"
  # `timeout` has put them all into one process group.
  [ "$left" -ne 0 ] || kill -KILL 0
}

# fake_dmsetup create NAME … --table TABLE | remove … NAME: the data device under the name it would get; for dm-verity if
# veritysetup finds all of it as the root hash says.
fake_dmsetup() {
  local name="$2" table
  mkdir -p "$KIT_DEV/mapper"
  case "$1" in
    create)
      table="${*: -1}"
      # shellcheck disable=SC2086 # words of the table
      set -- $table
      # What looks at a disk without writing to it (kept.sh) writes to it here.
      if [ "$3" = snapshot ]; then set -- 0 0 0 0 "$4"; else veritysetup verify "$5" "$6" "${12}" >&2 || return 1; fi
      ln -s "$(readlink -f "$5")" "$KIT_DEV/mapper/$name"
      ;;
    remove) rm "$KIT_DEV/mapper/${*: -1}" ;;
  esac
}

# make_disk NAME MIB [SERIAL]: a blank disk.
make_disk() {
  local file="$BATS_TEST_TMPDIR/$1.img" path="$KIT_SYS/devices/pci0000:00/0000:00:05.0/virtio1/block/$1"
  truncate -s "$2M" "$file"
  mkdir -p "$KIT_SYS/block" "$KIT_SYS/class/block" "$path/queue" "$path/holders"
  ln -sfn "$path" "$KIT_SYS/block/$1"
  ln -sfn "$path" "$KIT_SYS/class/block/$1"
  echo 0 | tee "$path/ro" >"$path/removable"
  echo 512 >"$path/queue/logical_block_size"
  [ -z "${3:-}" ] || echo "$3" >"$path/serial"
  echo "DEVNAME=$1" >"$path/uevent"
  attach_device "$1" "$path" --show "$file"
}

# attach_device NAME SYSFS_FOLDER LOSETUP_ARGUMENTS…
attach_device() {
  local loop
  loop="$(losetup --find "${@:3}")"
  echo "$loop $1" >>"$LOOPS"
  ln -sfn "$loop" "$KIT_DEV/$1"
  echo "$(($(blockdev --getsize64 "$loop") / 512))" >"$2/size"
  lsblk -ndo MAJ:MIN "$loop" | tr -d ' ' >"$2/dev"
}

# drop_disk NAME: it is pulled out and thrown away.
drop_disk() {
  detach_loops "$1"
  find "$KIT_SYS/devices" -type d -name "$1" -exec rm -rf '{}' +
  rm -f "$KIT_SYS"/block/"$1" "$KIT_SYS"/class/block/"$1"* "$BATS_TEST_TMPDIR/$1.img"
}

# show_partitions DEVICE: what a kernel does when a table was written; DEVICE is KIT_DEV/<name>.
show_partitions() {
  local name="${1##*/}" path number start size label
  path="$(readlink -f "$KIT_SYS/block/$name")"
  sync
  detach_loops "${name}[0-9]"
  sfdisk --dump "$1" 2>/dev/null | sed -n 's/^[^ ]*[^0-9]\([0-9]*\) : start= *\([0-9]*\), size= *\([0-9]*\),.* name="\([^"]*\)".*/\1 \2 \3 \4/p' |
    while read -r number start size label; do
      mkdir -p "$path/$name$number/holders"
      ln -sfn "$path/$name$number" "$KIT_SYS/class/block/$name$number"
      echo "$number" >"$path/$name$number/partition"
      echo "$start" >"$path/$name$number/start"
      printf 'DEVNAME=%s\nPARTN=%s\nPARTNAME=%s\n' "$name$number" "$number" "$label" >"$path/$name$number/uevent"
      attach_device "$name$number" "$path/$name$number" --show --offset $((start * 512)) --sizelimit $((size * 512)) "$BATS_TEST_TMPDIR/$name.img"
    done
}

# detach_loops [PATTERN]: those of devices with such a name, else all.
detach_loops() {
  local loop name rest=''
  [ -e "$LOOPS" ] || return 0
  while read -r loop name; do
    # shellcheck disable=SC2053 # a pattern
    if [[ "$name" == ${1:-*}* ]]; then
      losetup --detach "$loop"
      rm -rf "${KIT_DEV:?}/$name" "$KIT_SYS/class/block/$name"
      [ "${1:-}" = '' ] || find "$KIT_SYS/devices" -type d -name "$name" -exec rm -rf '{}' +
    else
      rest="$rest$loop $name"$'\n'
    fi
  done <"$LOOPS"
  printf '%s' "$rest" >"$LOOPS"
}

# device_of LABEL: the loop device of that partition.
device_of() {
  readlink -f "$KIT_DEV/$(basename "$(dirname "$(grep -lx "PARTNAME=$1" "$KIT_SYS"/class/block/*/uevent)")")"
}

# disk_plan TABLE [PERSISTENCE]: what the server would say of vda.
disk_plan() {
  local first=4096 label sectors
  printf 'disk vda\nserial KIT-1\ntable %s\n' "$1"
  if [ "$1" = make ]; then
    echo 'part kit-bios 2048 2048 21686148-6449-6E6F-744E-656564454649'
    while read -r label sectors; do
      echo "part $label $first $((sectors * 2048)) 0FC63DAF-8483-4772-8E79-3D69D8477DE4"
      first=$((first + sectors * 2048))
    done <<'PARTS'
kit-esp 63
kit-root-a 32
kit-verity-a 2
kit-root-b 32
kit-verity-b 2
kit-overlay 64
kit-containers 64
kit-persist 64
PARTS
  fi
  printf 'persistence %s\narguments kit.url=%s kit.tls=%s kit.ca=%s kit.mac=%s console=ttyS0\n' "${2:-keep}" "$KIT_URL" "$KIT_TLS" "$KIT_CA" "$KIT_MAC"
}

# make_signed_image FOLDER VERSION: root.squashfs with 6 MiB that do not compress, its hash tree, kernel and initrd, loaders, and a
# manifest signed with BATS_FILE_TMPDIR/key.sec, all as the server hands them out.
make_signed_image() {
  local folder="$1/images/$2" root="$BATS_FILE_TMPDIR/image-root" file
  make_root "$root"
  mkdir -p "$folder" "$root/usr/lib/kit/boot"
  for file in systemd-bootx64.efi ipxe.efi ipxe.lkrn grub.cfg grub-boot.img grub-core.img; do
    echo "this is $file" >"$root/usr/lib/kit/boot/$file"
  done
  [ -e "$root/noise" ] || head -c 6291456 /dev/urandom >"$root/noise"
  mksquashfs "$root" "$folder/root.squashfs" -quiet -no-progress -noappend -comp gzip >/dev/null
  veritysetup format --salt=- "$folder/root.squashfs" "$folder/root.verity" | sed -n 's/^Root hash:[[:space:]]*//p' >"$folder/root-hash"
  echo "kernel $2" >"$folder/vmlinuz"
  head -c 100000 /dev/urandom >"$folder/initrd.img"
  [ -e "$BATS_FILE_TMPDIR/key.sec" ] || signify-openbsd -G -n -p "$BATS_FILE_TMPDIR/key.pub" -s "$BATS_FILE_TMPDIR/key.sec"
  sign_image "$1" "$2"
}

# sign_image FOLDER VERSION [LINE…]: lines of the manifest that are to be other than they should.
sign_image() {
  local folder="$1/images/$2" name line
  {
    printf 'kateskit-image 1\nversion %s\narch amd64\nepoch 3\nsigned 1\nexpires 99999999999\nroot-hash %s\n' "$2" "$(cat "$folder/root-hash")"
    for name in root.squashfs root.verity vmlinuz initrd.img; do
      echo "file $name $(stat -c %s "$folder/$name") $(sha256sum <"$folder/$name" | cut -d ' ' -f 1)"
    done
  } >"$folder/manifest"
  for line in "${@:3}"; do sed -i "s/^${line%% *} .*/$line/" "$folder/manifest"; done
  signify-openbsd -S -s "$BATS_FILE_TMPDIR/key.sec" -m "$folder/manifest" -x "$folder/manifest.sig"
}

# open_mounts: a mount namespace that stays between the boots of a machine; its keeper in MOUNTS.
open_mounts() {
  unshare --mount --propagation private sleep 600 3>&- &
  MOUNTS=$!
  until [ "$(readlink "/proc/$MOUNTS/ns/mnt" 2>/dev/null)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.01; done
}

close_mounts() {
  power_off
  kill "$MOUNTS"
  wait "$MOUNTS" 2>/dev/null || true
}

# power_off: nothing is mounted any more. What was killed may hold on to a mount for a moment.
power_off() {
  local place
  awk -v below="$BATS_TEST_TMPDIR/" 'index($5, below) == 1 { print $5 }' "/proc/$MOUNTS/mountinfo" | sort -r | while read -r place; do
    for _ in $(seq 100); do
      nsenter --mount="/proc/$MOUNTS/ns/mnt" umount "$place" 2>/dev/null && break
      sleep 0.02
    done
  done
}

# in_disk_machine TEXT: TEXT, with the libraries of the initrd loaded, under the initrd's shell, in that namespace. The
# server is outside of it.
in_disk_machine() {
  local text
  text="$(printf '. "$KIT_LIB/%s.sh"\n' lib json disk identity ask report run)
$1"
  run timeout -k 1 60 nsenter --mount="/proc/$MOUNTS/ns/mnt" "$BUSYBOX" env PATH="$STAND_INS:$APPLETS" "$BUSYBOX" sh -c "$text"
  power_off
}

# on LABEL TEXT [rw]: TEXT in the root of that partition, while the machine is off.
on() {
  local there="$BATS_TEST_TMPDIR/there"
  mkdir -p "$there"
  unshare --mount bash -c "mount -o ${3:-ro} '$(device_of "$1")' '$there' && (cd '$there' && $2); status=\$?; umount '$there'; exit \$status"
}
