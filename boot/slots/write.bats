#!/usr/bin/env bats
# Writing a slot: what it refuses before the first byte, and what it says when a write fails. Cuts are in simulator.bats.

load slots.bash

setup_file() {
  make_applets
  command -v veritysetup >/dev/null || skip 'veritysetup (package cryptsetup-bin) is not here'
  local folder="$BATS_FILE_TMPDIR/image"
  mkdir "$folder"
  head -c 65536 /dev/urandom >"$folder/root.squashfs"
  veritysetup format --salt=- "$folder/root.squashfs" "$folder/root.verity" | sed -n 's/^Root hash:[[:space:]]*//p' >"$folder/root-hash"
  head -c 9000 /dev/urandom >"$folder/vmlinuz"
  head -c 12000 /dev/urandom >"$folder/initrd.img"
  {
    printf 'kateskit-image 1\nversion 2\narch amd64\nepoch 1\nsigned 1\nexpires 9999999999\nroot-hash %s\n' "$(cat "$folder/root-hash")"
    for name in root.squashfs root.verity vmlinuz initrd.img; do
      echo "file $name $(stat -c %s "$folder/$name") $(sha256_of "$folder/$name")"
    done
  } >"$folder/manifest"
}

prepare() {
  local name number=3
  IMAGE="$BATS_FILE_TMPDIR/image"
  export IMAGE
  for name in root-a verity-a root-b verity-b; do
    partition "vda$number" "kit-$name"
    number=$((number + 1))
  done
  record a
  mkdir -p "$KIT_ESP/loader/entries" "$KIT_ESP/kit/a" "$KIT_ESP/kit/grub"
  printf 'version 1\nlinux /kit/a/vmlinuz\n' >"$KIT_ESP/loader/entries/kit-a.conf"
  { printf '# GRUB Environment Block\nboot=a\n' && head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 >"$KIT_ESP/kit/grub/grubenv"
  # shellcheck disable=SC2016
  stand_in blockdev '[ "$1" != --getsize64 ] || stat -L -c %s "$2"'
  # As the kernel would: the data, when all of it is as the root hash says.
  # shellcheck disable=SC2016
  stand_in dmsetup 'for last; do :; done
    case "$1" in
      create) name=$2; set -- $last; '"$(command -v veritysetup)"' verify "$5" "$6" "${12}" >&2 || set -- 0 0 0 0 /dev/full
        echo "verity $5" >&2; ln -s "$5" "$KIT_DEV/mapper/$name"; [ "$5" != /dev/full ] || { rm "$KIT_DEV/mapper/$name"; mkdir "$KIT_DEV/mapper/$name"; } ;;
      remove) rm -rf "$KIT_DEV/mapper/$last" ;;
    esac'
  change
}

# What a test adds to that.
change() { :; }

# busybox's shell takes its own applets before a program of the machine, so they are functions for both.
write='blockdev() { "$MACHINE/bin/blockdev" "$@"; }
read_manifest "$IMAGE/manifest"
fetch_root() { echo root >>"$KIT_RUN/fetched"; cat "$IMAGE/root.squashfs" >"$1"; }
fetch_part() { echo "$1" >>"$KIT_RUN/fetched"; cat "$IMAGE/$1" >"$2"; }
fetch_bundle_into() { echo bundle >>"$KIT_RUN/fetched"; echo hello >"$1/motd"; }'

@test "write_slot() makes a slot ready that lacks only its offer, and again costs only what changed" {
  for firmware in uefi bios; do
    on_machine "$firmware" "$write
      write_slot b $BUNDLE_1 'console=ttyS0 quiet' 2>/dev/null; slot_state b; sed 's/^root-hash .*/root-hash/' \"\$KIT_OVERLAY/slots/b\"; xargs <\"\$KIT_RUN/fetched\"
      cmp \"\$KIT_ESP/kit/b/vmlinuz\" \"\$IMAGE/vmlinuz\"; cat \"\$KIT_OVERLAY/bundles/$BUNDLE_1/motd\"
      rm \"\$KIT_RUN/fetched\"; write_slot b $BUNDLE_1 '' 2>/dev/null; xargs <\"\$KIT_RUN/fetched\"; slot_field b generation; good_slots"
    [ "$output" = "ready
state written
image 2
epoch 1
root-hash
root-size 65536
bundle $BUNDLE_1
generation 2
arguments console=ttyS0 quiet
root root.verity bundle vmlinuz initrd.img
hello
root root.verity
3
a" ] || { echo "$firmware: $output" && false; }
  done
}

@test "write_slot() copies a kernel that the other slot has, unless that one is damaged" {
  change() {
    cp "$IMAGE/vmlinuz" "$KIT_ESP/kit/a/vmlinuz"
    { cat "$IMAGE/initrd.img" | tr '\0' 'x'; } >"$KIT_ESP/kit/a/initrd.img"
  }
  on_machine uefi "$write
    write_slot b $BUNDLE_1 '' 2>/dev/null; xargs <\"\$KIT_RUN/fetched\"; cmp \"\$KIT_ESP/kit/b/vmlinuz\" \"\$IMAGE/vmlinuz\"; cmp \"\$KIT_ESP/kit/b/initrd.img\" \"\$IMAGE/initrd.img\""
  [ "$output" = 'root root.verity bundle initrd.img' ]
}

@test "write_slot() refuses before the first byte what it must not or cannot write" {
  while IFS='|' read -r firmware doing asked wanted; do
    change() { eval "$doing"; }
    on_machine "$firmware" "$write
      $asked 2>&1 | tail -n 1; ls \"\$KIT_RUN/fetched\" 2>/dev/null || true; slot_state b; slot_state a"
    [ "${output//"$KIT_DEV/"/}" = "$wanted
empty
good" ] || { echo "$asked gave $output" && false; }
  done <<TABLE
uefi||write_slot a $BUNDLE_1 ''|Cannot write slot a: it is the last one that is known to be good
bios||write_slot a $BUNDLE_1 ''|Cannot write slot a: it is the last one that is known to be good
uefi|echo b >"\$KIT_RUN/slot"|write_slot b $BUNDLE_1 ''|Cannot write slot b: this machine runs from it
uefi||write_slot b ../x ''|Cannot write slot b: ../x is no digest of a bundle
uefi|truncate -s 65535 "\$KIT_DEV/vda5"|write_slot b $BUNDLE_1 ''|Cannot write root.squashfs to vda5: it has 65536 bytes, there is room for 65535
uefi|truncate -s 4096 "\$KIT_DEV/vda6"|write_slot b $BUNDLE_1 ''|Cannot write root.verity to vda6: it has 8192 bytes, there is room for 4096
uefi||MANIFEST_ROOT_SIZE=65537; write_slot b $BUNDLE_1 ''|Cannot write slot b: root.squashfs has 65537 bytes, which are no whole blocks of 4096
uefi||write_slot b $BUNDLE_1 "\$(printf 'quiet\\ninit=/bin/sh')"|Cannot use the kernel arguments: there is a character in them that cannot be printed
bios||write_slot b $BUNDLE_1 'a="b c"'|Cannot use the kernel arguments on a BIOS machine: GRUB cannot hand on quotation marks and backslashes (a="b c")
uefi||esp_free_kib() { echo 500; }; write_slot b $BUNDLE_1 ''|Cannot write slot b: kit-esp is full: kernel and initrd need 1045 KiB, there is room for 500
uefi|rm "\$KIT_SYS/class/block/vda6/uevent"|write_slot b $BUNDLE_1 ''|Cannot find the partition kit-verity-b: no disk has one
TABLE
}

@test "write_slot() says which write failed, and leaves a slot that is writing and a good one that is good" {
  while IFS='|' read -r doing wanted; do
    change() { :; }
    on_machine uefi "$write
      $doing
      write_slot b $BUNDLE_1 '' 2>&1 | tail -n 1 | sed 's,/[^ ]*/,,; s/([0-9]* /(N /'; slot_state b; good_slots; ls -A \"\$KIT_OVERLAY/bundles\" 2>/dev/null | grep new || true"
    [ "$output" = "$wanted
writing
a" ] || { echo "$doing gave $output" && false; }
  done <<'TABLE'
fetch_root() { return 1; }|Cannot write slot b: its root image did not get onto vda5
fetch_root() { head -c 30000 "$IMAGE/root.squashfs" >"$1"; truncate -s 1M "$1"; }|Cannot use slot b: its root image is damaged, dm-verity refuses to read it
fetch_part() { return 1; }|Cannot write slot b: its hash tree did not get onto vda6
fetch_bundle_into() { return 1; }|Cannot lay the bundle 1111111111111111111111111111111111111111111111111111111111111111 on kit-overlay (N MiB are free)
fetch_part() { [ "$1" = root.verity ] && cat "$IMAGE/$1" >"$2"; }|Cannot write vmlinuz of slot b to kit-esp (N KiB are free)
fetch_part() { cat "$IMAGE/$1" >"$2"; case "$1" in initrd*) echo x >>"$2" ;; esac; }|Cannot use initrd.img of slot b: what the disk gives back has another sha256 than the manifest says
TABLE
}
