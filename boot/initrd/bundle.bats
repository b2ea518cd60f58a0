#!/usr/bin/env bats
# unpack_bundle() with real archives, by GNU tar (the agent) and by busybox tar (the initrd).

load ../testing/machine.bash

setup_file() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  make_applets
}

setup() {
  make_machine
  TREE="$BATS_TEST_TMPDIR/tree"
  TAR="$BATS_TEST_TMPDIR/bundle.tar"
  SOURCE="$BATS_TEST_TMPDIR/source"
  mkdir -p "$SOURCE"
}

# unpack_with gnu|busybox: unpack_bundle of TAR into TREE.
unpack_with() {
  local script=". '$KIT_LIB/bundle.sh'; unpack_bundle '$TAR' '$TREE'"
  if [ "$1" = gnu ]; then run dash -c "$script"; else run env PATH="$APPLETS:$PATH" "$BUSYBOX" sh -c "$script"; fi
}

pack() {
  tar -C "$SOURCE" --numeric-owner -cf "$TAR" .
}

# pack_entry PYTHON: an archive with one entry that no tar program would make.
pack_entry() {
  python3 - "$TAR" "$1" <<'PYTHON'
import io, sys, tarfile
def entry(name, data=b'', **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))
with tarfile.open(sys.argv[1], 'w', format=tarfile.USTAR_FORMAT) as archive:
    eval(sys.argv[2])
PYTHON
}

@test "unpack_bundle() keeps modes, owners, links and empty directories" {
  mkdir -p "$SOURCE/etc/empty" "$SOURCE/home/kate" "$SOURCE/usr/bin"
  echo one >"$SOURCE/etc/one"
  install -m 4755 /dev/null "$SOURCE/usr/bin/setuid"
  install -m 0600 -o 1234 -g 4321 /dev/null "$SOURCE/home/kate/key"
  chmod 1777 "$SOURCE/etc/empty"
  ln -s ../one "$SOURCE/etc/link"
  ln -s /nowhere "$SOURCE/etc/absolute"
  pack
  for tar in gnu busybox; do
    unpack_with "$tar"
    [ "$status" -eq 0 ]
    [ "$(cd "$TREE" && find . -printf '%p %y %m %U:%G %l\n' | sort)" = "$(cd "$SOURCE" && find . -printf '%p %y %m %U:%G %l\n' | sort)" ]
  done
}

@test "unpack_bundle() makes an overlayfs whiteout of .wh.<name>, for files and directories alike" {
  mkdir -p "$SOURCE/etc/cron.d"
  touch "$SOURCE/etc/.wh.motd" "$SOURCE/etc/cron.d/.wh.with space" "$SOURCE/.wh.media"
  touch "$SOURCE/etc/.wh.kept" "$SOURCE/etc/kept"
  pack
  for tar in gnu busybox; do
    unpack_with "$tar"
    [ "$status" -eq 0 ]
    for gone in etc/motd 'etc/cron.d/with space' media; do
      [ "$(stat -c '%F %t:%T' "$TREE/$gone")" = 'character special file 0:0' ]
    done
    [ -f "$TREE/etc/kept" ]
    [ -z "$(find "$TREE" -name '.wh.*')" ]
  done
}

@test "unpack_bundle() refuses a name that leads outside" {
  for name in ../evil etc/../../evil etc/.. "$BATS_TEST_TMPDIR/evil" ///evil; do
    pack_entry "entry('$name', b'x')"
    for tar in gnu busybox; do
      unpack_with "$tar"
      [ "$status" -eq 1 ]
      [[ "$output" == *'a name in it leads outside'* ]]
      [ ! -e "$BATS_TEST_TMPDIR/evil" ]
    done
  done
}

@test "unpack_bundle() writes nothing outside through links" {
  outside="$BATS_TEST_TMPDIR/outside"
  mkdir "$outside"
  for entries in "(entry('door', type=tarfile.SYMTYPE, linkname='$outside'), entry('door/evil', b'x'))" \
    "(entry('door', type=tarfile.SYMTYPE, linkname='../outside'), entry('door/evil', b'x'))" \
    "(entry('door', type=tarfile.SYMTYPE, linkname='$outside/evil'), entry('door', b'x'))"; do
    pack_entry "$entries"
    for tar in gnu busybox; do
      unpack_with "$tar"
      [ -z "$(ls -A "$outside")" ] || { echo "$tar: $entries" && false; }
    done
  done
}

@test "unpack_bundle() refuses devices, hard links, line breaks and deletions without a name" {
  for entries in "entry('dev', type=tarfile.CHRTYPE, devmajor=1, devminor=3)" "entry('pipe', type=tarfile.FIFOTYPE)" \
    "(entry('one', b'x'), entry('two', type=tarfile.LNKTYPE, linkname='one'))" "entry('two\nlines', b'x')" \
    "entry('etc/.wh.')" "entry('etc/.wh..')" "entry('etc/.wh...')" "entry('etc/.wh..wh..opq')"; do
    pack_entry "$entries"
    for tar in gnu busybox; do
      unpack_with "$tar"
      [ "$status" -eq 1 ] || { echo "$tar: $entries" && false; }
      [[ "$output" == *'Cannot use the bundle: /'* ]] || { echo "$tar: $entries: $output" && false; }
    done
  done
}

@test "unpack_bundle() says so when the archive is none" {
  head -c 5000 /dev/urandom >"$TAR"
  for tar in gnu busybox; do
    unpack_with "$tar"
    [ "$status" -eq 1 ]
    [[ "$output" == *'not a tar archive'* ]]
  done
}

@test "unpack_bundle() replaces what an attempt before it left" {
  touch "$SOURCE/new"
  pack
  mkdir -p "$TREE/old"
  unpack_with busybox
  [ "$(ls "$TREE")" = new ]
}
