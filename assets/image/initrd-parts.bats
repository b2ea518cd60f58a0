#!/usr/bin/env bats
# pack_initrd: several archives, cut by what is updated together, that are one tree when the kernel unpacks them.

setup() {
  recipe=$BATS_TEST_DIRNAME
  project=$recipe/../..
  KIT_WORK=$BATS_TEST_TMPDIR/work
  KIT_CACHE=$BATS_TEST_TMPDIR/cache
  SOURCE_DATE_EPOCH=1700000000
  export LC_ALL=C.UTF-8
  # shellcheck source=assets/image/initrd-parts.sh
  . "$recipe/initrd-parts.sh"
  mkdir -p "$KIT_WORK" "$KIT_CACHE/initrds"
  root=$BATS_TEST_TMPDIR/root tree=$BATS_TEST_TMPDIR/tree
  make_root
  make_tree
}

# make_root: what dpkg says of four packages, two of one source.
make_root() {
  local dpkg=$root/var/lib/dpkg package
  mkdir -p "$dpkg/info"
  for package in 'curl curl' 'libcurl4t64 curl' 'libssl3t64 openssl' 'busybox busybox'; do
    printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nMaintainer: x\nVersion: 1\nDescription: x\nSource: %s\n\n' \
      "${package% *}" "${package#* }" >>"$dpkg/status"
  done
  printf '%s\n' /. /usr /usr/bin /usr/bin/curl >"$dpkg/info/curl.list"
  printf '%s\n' /. /usr /usr/lib /usr/lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu/libcurl.so.4 >"$dpkg/info/libcurl4t64.list"
  printf '%s\n' /. /usr/lib/x86_64-linux-gnu/libssl.so.3 '/usr/lib/x86_64-linux-gnu/a name' >"$dpkg/info/libssl3t64.list"
  printf '%s\n' /. /usr/sbin/busybox >"$dpkg/info/busybox.list"
}

make_tree() {
  local name
  mkdir -p "$tree"/{bin,lib/kit/steps,lib/x86_64-linux-gnu,lib/modules/6/net,lib/firmware/e100,usr}
  chmod 700 "$tree/lib/kit"
  ln -s ../bin "$tree/usr/bin"
  for name in bin/curl bin/busybox lib/x86_64-linux-gnu/libcurl.so.4 lib/x86_64-linux-gnu/libssl.so.3 'lib/x86_64-linux-gnu/a name' \
    lib/x86_64-linux-gnu/nobodys.so lib/kit/steps/10-x init lib/modules/6/net/e1000.ko.xz lib/modules/6/modules.dep lib/firmware/e100/f.bin; do
    head -c 30000 /dev/urandom >"$tree/$name"
  done
  chmod 755 "$tree/init" "$tree"/bin/*
  ln -s busybox "$tree/bin/sh"
}

# pack NAME: the initrd of the tree as it is, with a copy of the owners' list; its archives as `name sha256` in NAME.archives.
pack() {
  local at bytes
  note_owners "$root"
  pack_initrd "$tree" "$BATS_TEST_TMPDIR/$1" no
  [ ! -e "$KIT_WORK/initrd-parts" ]
  rm -rf "$BATS_TEST_TMPDIR/$1.tree"
  mkdir "$BATS_TEST_TMPDIR/$1.tree"
  "$project/node_modules/.bin/node" "$project/boot/testing/unpack-initrd.ts" "$BATS_TEST_TMPDIR/$1" "$BATS_TEST_TMPDIR/$1.tree" |
    while read -r at bytes _; do
      tail -c +$((at + 1)) "$BATS_TEST_TMPDIR/$1" | head -c "$bytes" | sha256sum
    done >"$BATS_TEST_TMPDIR/$1.archives"
}

# describe TREE: kind, mode, date, target and name of everything in it, sorted.
describe() {
  (cd "$1" && find . -mindepth 1 -printf '%y %m %l %p\n' | LC_ALL=C sort -k 3)
}

# changed ONE OTHER: how many archives of the one the other does not have.
changed() {
  grep -cvxFf "$BATS_TEST_TMPDIR/$2.archives" "$BATS_TEST_TMPDIR/$1.archives" || true
}

@test "pack_initrd() makes archives that the kernel unpacks to the tree, and that one cpio archive unpacks to as well" {
  pack one
  diff <(describe "$tree") <(describe "$BATS_TEST_TMPDIR/one.tree")
  diff -r --no-dereference "$tree" "$BATS_TEST_TMPDIR/one.tree"
  # base, busybox, curl, openssl, firmware, modules
  [ "$(wc -l <"$BATS_TEST_TMPDIR/one.archives")" = 6 ]
  [ $(($(stat -c %s "$BATS_TEST_TMPDIR/one") % 4)) = 0 ]
  mkdir "$BATS_TEST_TMPDIR/single"
  (cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc --quiet) | cpio -id --quiet -D "$BATS_TEST_TMPDIR/single"
  diff <(describe "$BATS_TEST_TMPDIR/single") <(describe "$BATS_TEST_TMPDIR/one.tree")
  diff -r --no-dereference "$BATS_TEST_TMPDIR/single" "$BATS_TEST_TMPDIR/one.tree"
}

@test "pack_initrd() makes the same bytes of the same tree, from the cache and without it" {
  pack one
  touch "$tree"/bin/*
  rm -r "$KIT_CACHE/initrds"
  mkdir "$KIT_CACHE/initrds"
  pack two
  cmp "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two"
  pack three
  cmp "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/three"
  [ "$(find "$KIT_CACHE/initrds" -type f | wc -l)" = 1 ]
}

@test "pack_initrd() leaves the bytes of the other archives alone when one changes" {
  pack before
  local each
  for each in bin/curl lib/x86_64-linux-gnu/libcurl.so.4 'lib/x86_64-linux-gnu/a name' bin/busybox lib/x86_64-linux-gnu/nobodys.so \
    lib/kit/steps/10-x init lib/modules/6/net/e1000.ko.xz lib/firmware/e100/f.bin; do
    mv "$tree/$each" "$BATS_TEST_TMPDIR/kept"
    head -c 31000 /dev/urandom >"$tree/$each"
    pack after
    mv "$BATS_TEST_TMPDIR/kept" "$tree/$each"
    [ "$(changed before after) $(changed after before)" = '1 1' ] || { echo "$each" && false; }
  done
  # Another library of one package is in that one's archive.
  echo /usr/lib/x86_64-linux-gnu/libssh2.so >>"$root/var/lib/dpkg/info/libcurl4t64.list"
  echo more >"$tree/lib/x86_64-linux-gnu/libssh2.so"
  pack after
  [ "$(changed before after) $(changed after before)" = '1 1' ]
  grep -qxF more "$BATS_TEST_TMPDIR/after.tree/lib/x86_64-linux-gnu/libssh2.so"
}
