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

# pack_as NAME: an archive with one file of that name, which no tar program would use by itself.
pack_as() {
  echo x >"$SOURCE/plain"
  tar -C "$SOURCE" --absolute-names --transform "s|^plain\$|$1|" -cf "$TAR" plain
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
    pack_as "$name"
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
  echo x >"$SOURCE/plain"
  # A link, and in the same archive a file behind it or of its very name.
  for target in "$outside" ../outside "$outside/evil"; do
    for name in door/evil door; do
      ln -sfn "$target" "$SOURCE/door"
      tar -C "$SOURCE" -cf "$TAR" door
      tar -C "$SOURCE" --transform "s|^plain\$|$name|" -rf "$TAR" plain
      for tar in gnu busybox; do
        unpack_with "$tar"
        [ -z "$(ls -A "$outside")" ] || { echo "$tar: $target $name" && false; }
      done
    done
  done
}

@test "unpack_bundle() refuses devices, hard links, control characters and deletions without a name" {
  mkdir -p "$SOURCE/etc"
  mknod "$SOURCE/device" c 1 3
  mkfifo "$SOURCE/pipe"
  echo x >"$SOURCE/one"
  ln "$SOURCE/one" "$SOURCE/two"
  touch "$SOURCE/"$'two\nlines' "$SOURCE/"$'a\ttab' "$SOURCE/etc/.wh." "$SOURCE/etc/.wh.." "$SOURCE/etc/.wh..." "$SOURCE/etc/.wh..wh..opq"
  for names in device pipe 'one two' $'two\nlines' $'a\ttab' etc/.wh. etc/.wh.. etc/.wh... etc/.wh..wh..opq; do
    if [ "$names" = 'one two' ]; then tar -C "$SOURCE" -cf "$TAR" one two; else tar -C "$SOURCE" -cf "$TAR" "$names"; fi
    for tar in gnu busybox; do
      unpack_with "$tar"
      [ "$status" -eq 1 ] || { echo "$tar: $names" && false; }
      [[ "$output" == *'Cannot use the bundle: /'* ]] || { echo "$tar: $names: $output" && false; }
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
