#!/usr/bin/env bats
# The steps that write a disk, from the signed manifest to a slot that is offered to the boot loader: on real ext4, with the
# real sfdisk, against a real HTTP server (testing/disks.bash says what has stand-ins).

load ../testing/machine.bash
load ../testing/disks.bash

setup_file() {
  make_applets
  [ "$(id -u)" -eq 0 ] || skip 'disks need root'
  unshare --mount true || skip 'no namespaces here'
  losetup --find >/dev/null || skip 'no loop devices here'
  for program in sfdisk wipefs blkid e2fsck mkfs.ext4 veritysetup signify-openbsd mksquashfs; do
    command -v "$program" >/dev/null || skip "no $program here"
  done
  make_signed_image "$BATS_FILE_TMPDIR" 2025.11.1
  mkdir -p "$BATS_FILE_TMPDIR/tree/etc"
  echo 'from the bundle' >"$BATS_FILE_TMPDIR/tree/etc/motd"
  tar -C "$BATS_FILE_TMPDIR/tree" -cf "$BATS_FILE_TMPDIR/bundle.tar" .
}

setup() {
  make_machine
  make_stand_ins
  FOLDER="$BATS_TEST_TMPDIR/server" KIT_LIB="$BATS_TEST_TMPDIR/lib" KIT_NEWROOT="$BATS_TEST_TMPDIR/newroot"
  mkdir -p "$FOLDER/bundles" "$FOLDER/images"
  cp -r "$BATS_FILE_TMPDIR/images/2025.11.1" "$FOLDER/images/"
  KIT_BUNDLE="$(sha256_of "$BATS_FILE_TMPDIR/bundle.tar")"
  cp "$BATS_FILE_TMPDIR/bundle.tar" "$FOLDER/bundles/$KIT_BUNDLE.tar"
  cp -rL "$BOOT_FOLDER/initrd" "$KIT_LIB"
  cp "$BATS_FILE_TMPDIR/key.pub" "$KIT_LIB/image-key.pub"
  # No FAT here (testing/disks.bash). A function, for busybox's shell takes its own mount before any other.
  cat >>"$KIT_LIB/lib.sh" <<'SH'
mount() {
  if [ "$2" = vfat ]; then shift 4 && set -- -t ext4 -o noatime "$@"; fi
  command mount "$@"
}
SH
  # Waiting is tried out once; the machines of these tests are quick.
  sed -i 's/sleep "\$pause"/sleep 0.05/' "$KIT_LIB/download.sh" "$KIT_LIB/ask.sh"
  sed -i 's/sleep 1$/:/' "$KIT_LIB/wait-for-disks.sh"
  cp "$KIT_LIB/plans/install" "$BATS_TEST_TMPDIR/whole-plan"
  printf '%s\n' 35-manifest 36-disks 41-disk 42-partitions 43-slot | tee "$KIT_LIB/plans/install" "$KIT_LIB/plans/powerwash" >"$KIT_LIB/plans/powerwash-all"
  KIT_PLAN=install
  # The machine has its address.
  echo 'address 10.77.0.50' >"$KIT_RUN/net"
  # Proving it is tried out with the whole plan, and in identity.bats.
  give_identity
  export FOLDER KIT_LIB KIT_NEWROOT KIT_BUNDLE KIT_PLAN
  start_server "$FOLDER"
  export KIT_URL="$SERVER_URL" KIT_TLS="$SERVER_URL"
  open_mounts
  make_disk vda 512 KIT-1
  disk_plan make >"$FOLDER/disk-plan"
}

teardown() {
  [ -z "${SERVER_PID:-}" ] || stop_server
  [ -z "${MOUNTS:-}" ] || close_mounts
  detach_loops
}

# failed: what there is to see when a machine did not get there.
failed() {
  printf '%s\n' "$output"
  cat "$KIT_DEV/tty0" "$KIT_RUN"/log/*
  return 1
}

# reason_of STEP: why the step failed, as the server was told.
reason_of() {
  sed -n "s/^events .*\"step\":\"$1\",\"status\":\"failed\".*\"message\":\"\([^\"]*\)\".*/\1/p" "$FOLDER/reports" | tail -n 1
}

# netboot [TEXT]: as the server would have it: a disk with all the labels is ours.
netboot() {
  local table=make persistence=keep
  [ "$KIT_PLAN" != powerwash-all ] || persistence=wipe
  [ "$(cat "$KIT_SYS"/class/block/vda*/uevent | grep -c PARTNAME=kit-)" -ne 9 ] || table=keep
  disk_plan "$table" "$persistence" >"$FOLDER/disk-plan"
  in_disk_machine "${1:-run_steps}"
}

install_once() {
  netboot
  [ "$status" -eq 0 ] || failed
  : >"$FOLDER/reports"
  : >"$FOLDER/fetched"
}

is_installed() {
  [ "$(on kit-overlay "sed -n 's/^state //p' slots/a")" = written ]
  [ "$(on kit-overlay "cat bundles/$KIT_BUNDLE/etc/motd")" = 'from the bundle' ]
  [ "$(on kit-esp 'head -n 3 kit/grub/grubenv | tail -n 2 | xargs')" = 'try=a tries=3' ]
  cmp -n "$(stat -c %s "$FOLDER/images/2025.11.1/root.squashfs")" "$FOLDER/images/2025.11.1/root.squashfs" "$(device_of kit-root-a)"
}

@test "an install makes the table, the file systems and slot a, tells the server first, and notes what to start" {
  in_disk_machine 'run_steps && echo "$KIT_SLOT $KIT_IMAGE $KIT_BUNDLE $KIT_ROOT_SIZE"'
  [ "$status" -eq 0 ] || failed
  [ "$(tail -n 1 <<<"$output")" = "a 2025.11.1 $KIT_BUNDLE $(stat -c %s "$FOLDER/images/2025.11.1/root.squashfs")" ]
  is_installed
  grep -q '^check-in {"boot":"boot-1","phase":"installing","image":"2025.11.1","address":"10.77.0.50"}$' "$FOLDER/reports"
  [ "$(on kit-esp 'cat kit/a/vmlinuz')" = 'kernel 2025.11.1' ]
  [ "$(sfdisk --dump "$BATS_TEST_TMPDIR/vda.img" | grep -c 'name="kit-')" -eq 9 ]
  [ "$(grep -c '/root.squashfs 0$' "$FOLDER/fetched")" -eq 1 ]
}

@test "an install goes straight on into the slot it has just written" {
  # The network is tried out in steps.bats, drivers are not for this kernel.
  sed '/10-modules/d; /20-network/d' "$BATS_TEST_TMPDIR/whole-plan" >"$KIT_LIB/plans/install"
  netboot 'run_steps && cat "$KIT_RUN/env" "$KIT_NEWROOT/etc/motd" && ls -d "$KIT_NEWROOT/persist/volumes"'
  [ "$status" -eq 0 ] || failed
  [ "$output" = "KIT_URL=$KIT_URL
KIT_TLS=$KIT_TLS
KIT_CA=$KIT_CA
KIT_MAC=$MAC
KIT_BOOT=boot-1
KIT_IMAGE=2025.11.1
KIT_BUNDLE=$KIT_BUNDLE
KIT_PLAN=install
KIT_SLOT=a
from the bundle
$KIT_NEWROOT/persist/volumes" ]
  # And the second attempt in the same boot lets go of all that first.
  KIT_PLAN=powerwash
  cp "$KIT_LIB/plans/install" "$KIT_LIB/plans/powerwash"
  netboot 'run_steps && run_steps'
  [ "$status" -eq 0 ] || failed
}

# prove_in_plans: the plans, short as they are, with the step that proves who the machine is; which is new.
prove_in_plans() {
  sed -i '1i 25-identity' "$KIT_LIB"/plans/install "$KIT_LIB"/plans/powerwash "$KIT_LIB"/plans/powerwash-all
  sed -i 's/^REFUSED_SECONDS=.*/REFUSED_SECONDS=0.1/' "$KIT_LIB/steps/25-identity.sh"
  rm -rf "$KIT_RUN/identity"
}

@test "nothing is written before the server knows who the machine is, which its consoles say" {
  prove_in_plans
  echo 'refuse its identity must be tpm-approved, and it shows no TPM' >"$FOLDER/identity"
  in_disk_machine 'run_steps & machine=$!
    until grep -q "asks again" "$KIT_DEV/ttyS0"; do sleep 0.1; done
    blkid -p "$KIT_DEV/vda"; rm "$FOLDER/identity"; wait "$machine"'
  [ "$status" -eq 0 ] || failed
  # blkid found nothing.
  [ -z "$output" ]
  for console in tty0 ttyS0; do
    grep -q '25-identity: Cannot prove who this machine is: its identity must be tpm-approved, and it shows no TPM (ask a person); asks again in 0.1 s$' "$KIT_DEV/$console"
  done
  is_installed
}

@test "the key is kept by an install, found by the netboots after it, and carried over a powerwash-all" {
  prove_in_plans
  install_once
  [ "$(on kit-persist 'stat -c %a machine/identity machine/identity/key.pem | xargs')" = '700 600' ]
  key="$(on kit-persist 'cat machine/identity/key.pem')"
  for KIT_PLAN in powerwash powerwash-all live; do
    rm -rf "$KIT_RUN/identity"
    [ "$KIT_PLAN" != live ] || echo 25-identity >"$KIT_LIB/plans/live"
    netboot
    [ "$status" -eq 0 ] || failed
    [ "$(cat "$KIT_RUN/identity/key.pem")" = "$key" ]
    [ "$(on kit-persist 'cat machine/identity/key.pem')" = "$key" ]
  done
  grep -q 'has the key that is kept on its disk' "$KIT_DEV/ttyS0"
}

@test "a machine that is known by another MAC goes on with that one" {
  prove_in_plans
  echo 'machine 52:54:00:00:00:99' >"$FOLDER/identity"
  netboot 'run_steps && echo "$KIT_MAC"'
  [ "$status" -eq 0 ] || failed
  [ "$(tail -n 1 <<<"$output")" = 52-54-00-00-00-99 ]
  grep -q 'is known as 52-54-00-00-00-99' "$KIT_DEV/ttyS0"
}

@test "a BIOS that starts from a disk whose install was cut is handed back to, and goes on to the network" {
  printf '35-manifest\n36-disks\n41-disk\n42-partitions\n' >"$KIT_LIB/plans/install"
  in_disk_machine run_steps
  [ "$status" -eq 0 ] || failed
  # A signature, so that firmware starts it, and INT 18h.
  [ "$(od -An -tx1 -j510 -N2 "$BATS_TEST_TMPDIR/vda.img" | xargs)" = '55 aa' ]
  [ "$(od -An -tx1 -N4 "$BATS_TEST_TMPDIR/vda.img" | xargs)" = 'cd 18 00 00' ]
}

@test "36-disks tells what is on which disk, and is not taken in by what is none" {
  install_once
  make_disk sda 64
  make_disk sr0 64
  make_disk sdb 64 'STICK "1"'
  mkfs.ext4 -q "$KIT_DEV/sda"
  # A name of a disk, on another bus each; and one that is read-only.
  for move in 'sda ata1/host0/target0:0:0/0:0:0:0' 'sdb usb1/1-1/1-1:1.0/host1/target1:0:0/1:0:0:0'; do
    name="${move%% *}" place="$KIT_SYS/devices/pci0000:00/${move#* }/block"
    mkdir -p "$place"
    mv "$KIT_SYS/devices/pci0000:00/0000:00:05.0/virtio1/block/$name" "$place/"
    ln -s ../.. "$place/$name/device"
    for link in block class/block; do ln -sfn "$place/$name" "$KIT_SYS/$link/$name"; done
  done
  echo 1 >"$KIT_SYS/block/sdb/removable"
  echo naa.5000c500a1b2c3d4 >"$KIT_SYS/block/sda/device/wwid"
  echo 'Samsung SSD 870 ' >"$KIT_SYS/block/sda/device/model"
  printf '\0\200\0\010  S4EV1  ' >"$KIT_SYS/block/sda/device/vpd_pg80"
  netboot
  [ "$(sed -n 's/^disks //p' "$FOLDER/reports" | "$BOOT_FOLDER/../node_modules/.bin/node" -e '
    const { boot, firmware, disks } = JSON.parse(require("fs").readFileSync(0, "utf8"))
    console.log(boot, firmware)
    for (const { contents, ...disk } of disks) console.log(JSON.stringify(disk), contents.map((c) => `${c.where}:${c.label}:${c.type}`).join(" "))')" = 'boot-1 bios
{"name":"sda","sizeBytes":67108864,"removable":false,"transport":"sata","serial":"S4EV1","wwn":"0x5000c500a1b2c3d4","model":"Samsung SSD 870"} sda:undefined:ext4
{"name":"sdb","sizeBytes":67108864,"removable":true,"transport":"usb","serial":"STICK \"1\""} 
{"name":"vda","sizeBytes":536870912,"removable":false,"transport":"virtio","serial":"KIT-1","table":"gpt"} vda1:kit-bios:undefined vda2:kit-esp:ext4 vda3:kit-root-a:squashfs vda4:kit-verity-a:DM_verity_hash vda5:kit-root-b:undefined vda6:kit-verity-b:undefined vda7:kit-overlay:ext4 vda8:kit-containers:ext4 vda9:kit-persist:ext4' ] || failed
}

@test "36-disks cuts a list that is too long for the server, but never to a blank disk" {
  path="$KIT_SYS/devices/many"
  for number in $(seq 100 139); do
    mkdir -p "$path/sd$number/sd${number}1" "$path/sd$number/sd${number}2"
    ln -s "$path/sd$number" "$KIT_SYS/block/"
    echo 1000000 >"$path/sd$number/size"
    head -c 128 /dev/zero | tr '\0' '"' >"$path/sd$number/serial"
    for part in 1 2; do
      echo "$part" >"$path/sd$number/sd$number$part/partition"
      printf 'PARTNAME=%s\n' "$(head -c 100 /dev/zero | tr '\0' '\\')" >"$path/sd$number/sd$number$part/uevent"
    done
  done
  in_disk_machine '. "$KIT_LIB/inventory.sh"; inventory_json'
  [ "${#output}" -le 16384 ]
  [ "$("$BOOT_FOLDER/../node_modules/.bin/node" -e '
    const { disks } = JSON.parse(process.argv[1])
    console.log(disks.length >= 12 && disks.every((disk) => disk.contents.length > 0))' "$output")" = true ]
}

@test "a live boot is refused when what was signed is another root image, and goes on without a key or a disk plan" {
  KIT_PLAN=live
  printf '%s\n' 35-manifest 36-disks >"$KIT_LIB/plans/live"
  rm "$FOLDER/disk-plan"
  export KIT_ROOT_SHA256 KIT_ROOT_SIZE
  KIT_ROOT_SHA256="$(sha256_of "$FOLDER/images/2025.11.1/root.squashfs")" KIT_ROOT_SIZE=4096
  in_disk_machine run_steps
  [ "$status" -eq 1 ]
  [[ "$(reason_of 35-manifest)" == *' of 4096 bytes by the kernel command line, and '* ]] || failed
  KIT_ROOT_SIZE="$(stat -c %s "$FOLDER/images/2025.11.1/root.squashfs")"
  in_disk_machine run_steps
  [ "$status" -eq 0 ] || failed
  rm "$KIT_LIB/image-key.pub"
  in_disk_machine run_steps
  [ "$status" -eq 0 ] || failed
  [ -z "$(wipefs "$KIT_DEV/vda")" ]
}

# fresh_disk: the disk is another one, and the server has heard nothing.
fresh_disk() {
  drop_disk vda
  make_disk vda 512 KIT-1
  : >"$FOLDER/reports"
  : >"$FOLDER/fetched"
}

# cut_at NUMBER: a netboot whose power goes after so many of the programs that write; status 1 when there were not so many.
cut_at() {
  echo "$1" >"$BATS_TEST_TMPDIR/cut-at"
  netboot
  rm "$BATS_TEST_TMPDIR/cut-at"
  [ "$status" -ne 0 ] || return 1
  [ "$status" -eq 137 ] || failed
}

@test "an install that is cut anywhere is picked up by the next netboot" {
  cut=1
  while cut_at "$cut"; do
    netboot
    [ "$status" -eq 0 ] || { echo "cut at $cut" && failed; }
    is_installed || { echo "cut at $cut" && failed; }
    fresh_disk
    cut=$((cut + 1))
  done
  # wipefs, sfdisk, four times mkfs, two times dmsetup.
  [ "$cut" -eq 9 ]
}

@test "a powerwash keeps persistence, wherever it is cut; powerwash-all does not" {
  install_once
  on kit-persist 'mkdir machine; echo 2 >machine/epoch; echo keep >mine' rw
  on kit-overlay 'touch old' rw
  KIT_PLAN=powerwash
  cut=1
  while cut_at "$cut"; do
    # The flag is gone with the check-in: the next netboots are to install.
    KIT_PLAN=install
    netboot
    [ "$status" -eq 0 ] || { echo "cut at $cut" && failed; }
    is_installed || { echo "cut at $cut" && failed; }
    [ "$(on kit-persist 'cat mine')" = keep ]
    KIT_PLAN=powerwash
    cut=$((cut + 1))
  done
  [ "$cut" -eq 5 ]
  is_installed
  [ "$(on kit-persist 'cat mine')" = keep ]
  [ "$(on kit-overlay 'ls old 2>/dev/null | wc -l')" -eq 0 ]
  grep -q '"phase":"installing"' "$FOLDER/reports"
  KIT_PLAN=powerwash-all
  netboot
  [ "$status" -eq 0 ] || failed
  is_installed
  [ "$(on kit-persist 'ls mine 2>/dev/null | wc -l')" -eq 0 ]
}

@test "a disk with a good slot is started as it is, whatever image the server has by now" {
  install_once
  on kit-esp 'sed -i "s/^try=a/boot=a/; /^tries/d" kit/grub/grubenv' rw
  sum="$(sha256_of "$(device_of kit-overlay)")"
  make_signed_image "$FOLDER" 2025.11.2
  KIT_IMAGE=2025.11.2
  netboot 'run_steps && echo "$KIT_SLOT $KIT_IMAGE $KIT_BUNDLE"'
  [ "$status" -eq 0 ] || failed
  [ "$(tail -n 1 <<<"$output")" = "a 2025.11.1 $KIT_BUNDLE" ]
  grep -q 'already installed: slot a (2025.11.1) is good; nothing is written' "$KIT_DEV/tty0"
  [ "$(grep -c installing "$FOLDER/reports")" -eq 0 ]
  [ "$(grep -c root.squashfs "$FOLDER/fetched")" -eq 0 ]
}

@test "a slot on trial is started from the network three times and no more" {
  install_once
  on kit-overlay 'printf "1\n2\n" >slots/a.attempts' rw
  netboot
  [ "$status" -eq 0 ] || failed
  grep -q 'already installed: slot a (2025.11.1) is trying; nothing is written' "$KIT_DEV/tty0"
  on kit-overlay 'echo 3 >>slots/a.attempts' rw
  netboot
  [ "$status" -eq 0 ] || failed
  grep -q '"phase":"installing".*"slots":{"a":{"state":"bad","image":"2025.11.1",.*"reason":"3 starts of slot a (2025.11.1) did not become a good boot"},"b":{"state":"empty"}}' "$FOLDER/reports"
  is_installed
  [ "$(on kit-overlay 'ls slots')" = a ]
}

@test "the image goes on where the line broke, byte by byte what was signed" {
  echo '1500001 always' >"$FOLDER/cut"
  netboot
  [ "$status" -eq 0 ] || failed
  is_installed
  [ "$(sed -n 's,^/images/2025.11.1/root.squashfs ,,p' "$FOLDER/fetched" | head -n 4 | xargs)" = '0 1500001 3000002 4500003' ]
}

@test "a server that stays away fails the step, and the next netboot begins again" {
  sed -i 's/^DOWNLOAD_ATTEMPTS=.*/DOWNLOAD_ATTEMPTS=2/' "$KIT_LIB/download.sh"
  echo '0 always' >"$FOLDER/cut"
  sed -i '/35-manifest/d' "$KIT_LIB/plans/install"
  cp "$FOLDER/images/2025.11.1"/manifest* "$KIT_RUN/"
  netboot
  [ "$status" -eq 1 ]
  [[ "$(reason_of 43-slot)" == 'Cannot download '*'/root.squashfs: '*'(2 attempts, 0 bytes arrived)' ]] || failed
  [ "$(on kit-overlay 'cat slots/a' | head -n 1)" = 'state writing' ]
  rm "$FOLDER/cut"
  netboot
  [ "$status" -eq 0 ] || failed
  is_installed
}

@test "nothing is written before the server has taken the check-in, and nothing when it refuses it" {
  echo '3 check-in' >"$FOLDER/deaf"
  install_once
  grep -Eq '41-disk: the server does not answer \(check-in: .*\); again in 4 s' "$KIT_DEV/tty0"
  for plan in install powerwash; do
    KIT_PLAN="$plan"
    fresh_disk
    echo check-in >"$FOLDER/refuse"
    netboot
    [ "$status" -eq 1 ]
    [[ "$(reason_of 41-disk)" == 'Cannot go on: the server refused what this machine said (check-in): '*409* ]] || failed
    [ -e "$KIT_RUN/gone" ]
    [ -z "$(wipefs "$KIT_DEV/vda")" ]
  done
}

@test "35-manifest refuses an image for each thing that is wrong with it" {
  mkdir "$BATS_TEST_TMPDIR/good"
  cp "$FOLDER/images/2025.11.1"/manifest* "$BATS_TEST_TMPDIR/good/"
  while IFS='|' read -r change wanted; do
    cp "$BATS_TEST_TMPDIR/good"/* "$FOLDER/images/2025.11.1/"
    (cd "$FOLDER/images/2025.11.1" && eval "$change")
    netboot
    [ "$status" -eq 1 ]
    [[ "$(reason_of 35-manifest)" == *"$wanted"* ]] || { echo "$change" && failed; }
    [ ! -e "$KIT_RUN/gone" ] || [[ "$change" == 'rm manifest' ]]
    cp "$BATS_FILE_TMPDIR/key.pub" "$KIT_LIB/image-key.pub"
  done <<'TABLE'
rm manifest.sig|it is not signed
rm manifest|404
sed -i s/^epoch.*/epoch\ 9/ manifest|not what was signed
sign_image "$FOLDER" 2025.11.1 'expires 5'|expired on 1970-01-01
sign_image "$FOLDER" 2025.11.1 'arch arm64'|is for arm64
sign_image "$FOLDER" 2025.11.1 'version 7'|it is 7, where 2025.11.1 was asked for
rm "$KIT_LIB/image-key.pub"|has no key
signify-openbsd -G -n -p k.pub -s k.sec; cp k.pub "$KIT_LIB/image-key.pub"|does not belong to this server's key
TABLE
  [ -z "$(wipefs "$KIT_DEV/vda")" ]
}

@test "35-manifest takes an image that was signed anew between manifest and signature" {
  mkdir -p "$FOLDER/next/images/2025.11.1"
  cp -r "$FOLDER/images" "$BATS_TEST_TMPDIR/before"
  sign_image "$FOLDER" 2025.11.1 'signed 2'
  mv "$FOLDER/images/2025.11.1"/manifest* "$FOLDER/next/images/2025.11.1/"
  cp "$BATS_TEST_TMPDIR/before/2025.11.1"/manifest* "$FOLDER/images/2025.11.1/"
  printf '35-manifest\n' >"$KIT_LIB/plans/install"
  netboot
  [ "$status" -eq 0 ] || failed
  grep -qx 'signed 2' "$KIT_RUN/manifest"
  [ "$(grep -c '/manifest 0' "$FOLDER/fetched")" = 2 ]
}

@test "an older security epoch than the machine has run is refused before anything is lost" {
  install_once
  on kit-persist 'mkdir machine; echo 4 >machine/epoch' rw
  KIT_PLAN=powerwash
  netboot
  [ "$status" -eq 1 ]
  [[ "$(reason_of 41-disk)" == *'has security epoch 3, this machine has run epoch 4' ]] || failed
  [ "$(grep -c '"phase":"installing"' "$FOLDER/reports")" -eq 0 ]
  is_installed
}

@test "41-disk says what the server refuses on every console, and writes nothing" {
  printf 'refused vda has ext4 on vda1\nrefused nvme0n1 is too small\n' >"$FOLDER/disk-plan"
  in_disk_machine run_steps
  [ "$status" -eq 1 ]
  [ "$(reason_of 41-disk)" = 'vda has ext4 on vda1; nvme0n1 is too small' ]
  for console in tty0 ttyS0; do
    [ "$(grep -c '41-disk: vda has ext4 on vda1$\|41-disk: nvme0n1 is too small$' "$KIT_DEV/$console")" -eq 2 ]
  done
}

@test "41-disk refuses a disk that is not what the server saw" {
  while IFS='|' read -r change wanted; do
    disk_plan make | eval "$change" >"$FOLDER/disk-plan"
    in_disk_machine run_steps
    [ "$status" -eq 1 ]
    [[ "$(reason_of 41-disk)" == *"$wanted"* ]] || { echo "$change" && failed; }
  done <<'TABLE'
sed s/KIT-1/KIT-2/|its serial number is KIT-1, and the server means KIT-2
sed s/vda/vdb/|it is not there any more
sed 's/^disk .*/disk ../'|the server names the disk ..
sed 's/^table .*/table keep/'|it has no partition kit-bios
sed 's/^table .*/table/'|neither keeps nor makes
TABLE
  [ -z "$(wipefs "$KIT_DEV/vda")" ]
}

@test "41-disk refuses a disk that is in use" {
  install_once
  disk_plan make >"$FOLDER/disk-plan"
  mkdir "$BATS_TEST_TMPDIR/elsewhere"
  sed -i 's/^RELEASE_TENTHS=.*/RELEASE_TENTHS=1/' "$KIT_LIB/steps/41-disk.sh"
  in_disk_machine "mount -t ext4 '$(device_of kit-persist)' '$BATS_TEST_TMPDIR/elsewhere'; run_steps"
  [ "$status" -eq 1 ]
  [ "$(reason_of 41-disk)" = "Cannot install to vda: in use by $BATS_TEST_TMPDIR/elsewhere" ] || failed
}

@test "42-partitions leaves nothing of what was on the disk, tables inside of partitions included" {
  # Where kit-persist will be lies a file system, and the partition before it has a table of its own.
  install_once
  mkfs.ext4 -q -F "$(device_of kit-persist)"
  printf 'label: dos\n' | sfdisk -q --no-reread --no-tell-kernel "$(device_of kit-containers)"
  on kit-persist 'mkdir machine; echo 9 >machine/epoch' rw
  disk_plan make >"$FOLDER/disk-plan"
  in_disk_machine run_steps
  [ "$status" -eq 0 ] || failed
  is_installed
  [ "$(on kit-persist 'ls | xargs')" = 'lost+found machine' ]
  [ "$(on kit-persist 'ls machine')" = identity ]
  [ "$(wipefs --noheadings --output TYPE "$(device_of kit-containers)")" = ext4 ]
}

@test "42-partitions never makes kit-persist new when something is there" {
  install_once
  on kit-persist 'echo keep >mine' rw
  device="$(device_of kit-persist)"
  KIT_PLAN=powerwash
  for kind in damaged foreign; do
    if [ "$kind" = damaged ]; then
      # The root directory's inode: e2fsck -p leaves that to people.
      debugfs -w -R 'clri <2>' "$device" 2>/dev/null
      wanted='Cannot keep kit-persist: e2fsck -p cannot mend it'
    else
      wipefs -q -a "$device"
      mkswap -q "$device"
      wanted='Cannot keep kit-persist: it is swap and not ext4'
    fi
    netboot
    [ "$status" -eq 1 ]
    [[ "$(reason_of 42-partitions)" == "$wanted"* ]] || failed
    [ -n "$(wipefs "$device")" ]
  done
}

@test "42-partitions refuses a plan that does not fit the disk" {
  while IFS='|' read -r change wanted; do
    disk_plan make | eval "$change" >"$FOLDER/disk-plan"
    in_disk_machine run_steps
    [ "$status" -eq 1 ]
    [[ "$(reason_of 42-partitions)" == *"$wanted"* ]] || { echo "$change" && failed; }
  done <<'TABLE'
sed 's/^\(part kit-persist [0-9]*\) [0-9]*/\1 99999999/'|kit-persist would end at sector
sed 's/^part kit-esp.*/part kit-esp 4096 $(reboot) x/'|the plan has the partition kit-esp 4096
sed '/^part/d'|the plan has no partitions
TABLE
  # A disk with sectors of 4096 bytes, on which this does not lie.
  echo 4096 >"$KIT_SYS/block/vda/queue/logical_block_size"
  disk_plan make | sed 's/^part kit-esp 4096/part kit-esp 4097/' >"$FOLDER/disk-plan"
  in_disk_machine run_steps
  [[ "$(reason_of 42-partitions)" == *'kit-esp does not lie on its sectors of 4096 bytes' ]] || failed
  [ -z "$(wipefs "$KIT_DEV/vda")" ]
}
