#!/usr/bin/env bats
# The steps that write a disk, from the signed manifest to a slot that is offered to the boot loader: on real ext4, with the
# real sfdisk, against a real HTTP server (testing/disks.bash says what has stand-ins).

load ../testing/machine.bash
load ../testing/disks.bash

setup_file() {
  make_applets
  [ "$(id -u)" -eq 0 ] || skip 'disks need root'
  unshare --mount --pid --fork true || skip 'no namespaces here'
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
  sed -i 's/sleep 1$/:/' "$KIT_LIB/steps/36-disks.sh"
  printf '%s\n' 35-manifest 36-disks 41-disk 42-partitions 43-slot | tee "$KIT_LIB/plans/install" "$KIT_LIB/plans/powerwash" >"$KIT_LIB/plans/powerwash-all"
  KIT_PLAN=install
  # The machine has its address.
  echo 'address 10.77.0.50' >"$KIT_RUN/net"
  export FOLDER KIT_LIB KIT_NEWROOT KIT_BUNDLE KIT_PLAN
  start_server "$FOLDER"
  export KIT_URL="$SERVER_URL"
  make_disk vda 512 KIT-1
  disk_plan make >"$FOLDER/disk-plan"
}

teardown() {
  [ -z "${SERVER_PID:-}" ] || stop_server
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

# on LABEL COMMAND: with the partition mounted at `there`, out of the machine.
on() {
  local there="$BATS_TEST_TMPDIR/there"
  mkdir -p "$there"
  unshare --mount bash -c "mount -o ${3:-ro} '$(device_of "$1")' '$there' && cd '$there' && $2"
}

install_once() {
  in_disk_machine run_steps
  [ "$status" -eq 0 ] || failed
  disk_plan keep >"$FOLDER/disk-plan"
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
