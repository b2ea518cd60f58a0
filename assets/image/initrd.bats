#!/usr/bin/env bats
# The initrd's own programs run in it alone, none is hidden by busybox, and only what is in the initrd decides its bytes.

setup() {
  recipe=$BATS_TEST_DIRNAME
  work=$BATS_TEST_TMPDIR
  image=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
  [ -f "$image/manifest.json" ] || skip 'no image of this recipe is built (assets/image/build.sh)'
  [ "$(id -u)" -eq 0 ] || skip 'chroot and building need root'
}

# unpack_initrd: as the kernel does; a line per archive in $work/archives.
unpack_initrd() {
  mkdir "$work/initrd"
  "$recipe/../../node_modules/.bin/node" "$recipe/../../boot/testing/unpack-initrd.ts" "$image/initrd.img" "$work/initrd" >"$work/archives"
}

# programs: the names in initrd-programs.txt.
programs() {
  awk '$1 ~ /bin\// { sub(/.*\//, "", $1); print $1 }' "$recipe/initrd-programs.txt"
}

@test "the initrd is many archives, of which the kernel and cpio make the same tree" {
  unpack_initrd
  # What is ours, the modules, and what is of Debian's packages: the largest of those is openssl's, with 2.7 MB.
  [ "$(wc -l <"$work/archives")" -gt 30 ]
  [ "$(awk '{ print $2 }' "$work/archives" | sort -n | tail -n 2 | head -n 1)" -lt 4000000 ]
  mkdir "$work/other"
  # What zstd cannot read are the zeros at the end.
  zstd -dcq "$image/initrd.img" 2>/dev/null >"$work/all.cpio" || true
  (cd "$work/other" && while cpio -id --quiet 2>/dev/null; do :; done <"$work/all.cpio")
  diff <(cd "$work/initrd" && find . -printf '%y %m %l %p\n' | sort) <(cd "$work/other" && find . -printf '%y %m %l %p\n' | sort)
  diff -r --no-dereference "$work/initrd" "$work/other"
}

@test "every program of initrd-programs.txt starts in the initrd" {
  unpack_initrd
  [ "$(programs | wc -l)" -ge 10 ]
  for program in $(programs); do
    # Not what they print, which differs: that the loader finds every library and symbol they are linked to.
    run chroot "$work/initrd" /usr/bin/env -i LD_BIND_NOW=1 "/bin/$program" --version
    echo "$program: $status $output"
    [ "$status" -lt 126 ]
    [[ $output != *'shared librar'* && $output != *'symbol'* && $output != *BusyBox* ]]
  done
}

@test "every library of initrd-programs.txt that is opened at run time finds what it is linked to" {
  unpack_initrd
  libraries=$(awk '$1 ~ /\.so/ { print $1 }' "$recipe/initrd-programs.txt")
  [ "$(wc -l <<<"$libraries")" -ge 2 ]
  for library in $libraries; do
    run chroot "$work/initrd" /lib64/ld-linux-x86-64.so.2 --list "$library"
    echo "$library: $status $output"
    [ "$status" = 0 ]
    [[ $output != *'not found'* ]]
  done
}

@test "the initrd's programs make a key, a certificate request and a certificate" {
  unpack_initrd
  mknod "$work/initrd/dev/null" c 1 3
  mknod "$work/initrd/dev/urandom" c 1 9
  run chroot "$work/initrd" /bin/sh -euc '
    PATH=/bin:/sbin KIT_LIB=/lib/kit KIT_RUN=/run KIT_MAC=52-54-00-12-34-56 KIT_TLS=https://127.0.0.1:1
    for library in lib json disk identity kept; do . "$KIT_LIB/$library.sh"; done
    work=$KIT_IDENTITY
    make_key
    make_request
    read_request -verify -noout
    cat "$work/body"'
  echo "$output"
  [ "$status" = 0 ]
  [[ $output == *'verify OK'* && $output == *'{"csr":"-----BEGIN CERTIFICATE REQUEST-----'*'"macs":["52:54:00:12:34:56"],'* ]]
}

@test "no applet of busybox hides a program of initrd-programs.txt, but for mke2fs, which is called mkfs.ext4" {
  unpack_initrd
  [ "$(programs | grep -xF -f <(chroot "$work/initrd" /bin/busybox --list))" = mke2fs ]
  [ "$(chroot "$work/initrd" /bin/sh -c 'PATH=/bin:/sbin; command -v mkfs.ext4')" = /bin/mkfs.ext4 ]
}

@test "the initrd's programs make and mend the file systems of a disk" {
  unpack_initrd
  truncate -s 64M "$work/initrd/tmp/disk"
  mknod "$work/initrd/dev/null" c 1 3
  run chroot "$work/initrd" /bin/sh -euc '
    PATH=/bin:/sbin
    mkfs.ext4 -q -L kit-overlay /tmp/disk
    e2fsck -fn /tmp/disk
    blkid -p -o value -s TYPE /tmp/disk
    wipefs -qa /tmp/disk
    mkfs.vfat -F 32 -n KIT-ESP /tmp/disk
    blkid -p -o value -s LABEL /tmp/disk
    wipefs -qa /tmp/disk
    printf "label: gpt\nsize=1MiB, name=kit-bios\nname=kit-esp\n" | sfdisk -q /tmp/disk
    blkid -p -o value -s PTTYPE /tmp/disk
    signify-openbsd -G -n -p /tmp/key.pub -s /tmp/key.sec'
  echo "$output"
  [ "$status" = 0 ]
  [ "$(grep -xE 'ext4|KIT-ESP|gpt' <<<"$output" | xargs)" = 'ext4 KIT-ESP gpt' ]
}

@test "images of another version and with another package in the root have the same kernel and initrd, and another root" {
  mkdir -p "$work/added/usr/bin" "$work/added/var/lib/dpkg"
  echo 'another ss' >"$work/added/usr/bin/ss"
  unsquashfs -cat "$image/root.squashfs" var/lib/dpkg/status |
    sed '/^Package: iproute2$/,/^$/ s/^Version: .*/Version: 99.0-1/' >"$work/added/var/lib/dpkg/status"
  "$recipe/build.sh" --version 9.8.7-test --add "$work/added" --output "$work/other" 2>"$work/log" 3>&- || { cat "$work/log" && false; }
  cmp "$image/vmlinuz" "$work/other/vmlinuz"
  cmp "$image/initrd.img" "$work/other/initrd.img"
  if cmp -s "$image/root.squashfs" "$work/other/root.squashfs"; then false; fi
  grep -q '"version": "9.8.7-test"' "$work/other/manifest.json"
  grep -q '{ "name": "iproute2", "version": "99.0-1" }' "$work/other/manifest.json"
  [ "$(unsquashfs -cat "$work/other/root.squashfs" usr/bin/ss)" = 'another ss' ]
  [ "$(unsquashfs -cat "$work/other/root.squashfs" usr/lib/os-release | tail -n 1)" = IMAGE_VERSION=9.8.7-test ]
}
