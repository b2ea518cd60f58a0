#!/usr/bin/env bats
# apply_bundle() against a real overlay where there can be one: old and new bundle over an image, and a machine that was
# changed by hand.

load ../testing/machine.bash
bats_require_minimum_version 1.5.0

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  export KIT_LIB="$BOOT_FOLDER/node/root/usr/lib/kit" KIT_RUN="$BATS_TEST_TMPDIR/run" KIT_LIVE="$BATS_TEST_TMPDIR/live"
  export KIT_BUNDLE=none
  IMAGE="$KIT_RUN/image" OLD="$KIT_RUN/bundle/root" NEW="$BATS_TEST_TMPDIR/new"
  mkdir -p "$IMAGE/etc/app.d" "$OLD/etc" "$NEW/etc" "$KIT_LIVE"
  echo 'from the image' >"$IMAGE/etc/motd"
  for name in one two; do echo "$name" >"$IMAGE/etc/app.d/$name"; done
}

# power_on: the live root is what overlayfs would show of OLD over the image; a copy, so that tests run anywhere.
power_on() {
  show "$OLD" "$KIT_LIVE"
}

# show TREE PLACE: what overlayfs shows of TREE over the image.
show() {
  local mark
  rm -rf "$2" && cp -a "$IMAGE" "$2"
  # What is no directory on both sides is replaced whole.
  (cd "$1" && find . -mindepth 1 ! -type d) | while IFS= read -r path; do rm -rf "${2:?}/$path"; done
  (cd "$1" && find . -mindepth 1 -type d) | while IFS= read -r path; do [ -d "$2/$path" ] && [ ! -L "$2/$path" ] || rm -f "$2/$path"; done
  cp -a "$1/." "$2"
  find "$2" -type c -delete
}

# apply: apply_bundle from OLD to NEW.
apply() {
  run --separate-stderr dash -c '
    for part in paths tree secret-files apply actions; do . "$KIT_LIB/$part.sh"; done
    apply_bundle "$1" "$2" | sort -u' apply "$OLD" "$NEW"
  [ "$status" -eq 0 ] && [ -z "$stderr" ] || { echo "$status $stderr" && false; }
}

listing() {
  (cd "$1" && find . -mindepth 1 ! -type d -printf '%P %y %m %U:%G %l\n' -o -mindepth 1 -printf '%P %y %m %U:%G\n' | sort && find . -type f -exec sha256sum '{}' + | sort)
}

# arrives: the live root must now be what a reboot into NEW would show.
arrives() {
  show "$NEW" "$BATS_TEST_TMPDIR/wanted"
  diff <(listing "$BATS_TEST_TMPDIR/wanted") <(listing "$KIT_LIVE")
  [ ! -s "$KIT_RUN/conflicts" ]
}

@test "apply_bundle() changes nothing when the bundles are the same" {
  echo x >"$OLD/etc/x"
  cp -a "$OLD/." "$NEW"
  power_on
  apply
  [ -z "$output" ]
  arrives
}

@test "apply_bundle() arrives at what a reboot would show, whatever a path was and becomes" {
  # Every kind to every kind: absent, file, other file, link, directory with a file, whiteout; over a path that the
  # image does not have, has as a file, and has as a directory.
  kinds='absent file other link directory whiteout'
  for before in $kinds; do
    for after in $kinds; do
      for base in none file directory; do
        path="etc/$base-$before-$after"
        case "$base" in
          file) echo image >"$IMAGE/$path" ;;
          directory) mkdir -p "$IMAGE/$path/deep" && echo image >"$IMAGE/$path/deep/file" && echo other >"$IMAGE/$path/inside" ;;
        esac
        make_kind "$before" "$OLD/$path"
        make_kind "$after" "$NEW/$path"
      done
    done
  done
  power_on
  apply
  arrives
}

make_kind() {
  case "$1" in
    file) echo file >"$2" ;;
    other) echo other >"$2" && chmod 0600 "$2" && chown 12:34 "$2" ;;
    link) ln -s ../somewhere "$2" ;;
    directory) mkdir "$2" && echo inside >"$2/inside" && chmod 0750 "$2" ;;
    whiteout) mknod "$2" c 0 0 ;;
  esac
}

@test "apply_bundle() leaves alone what was changed on the machine, and says so" {
  echo old >"$OLD/etc/edited"
  echo old >"$OLD/etc/deleted"
  echo old >"$OLD/etc/gone"
  echo old >"$OLD/etc/plain"
  for name in edited deleted plain motd; do echo new >"$NEW/etc/$name"; done
  power_on
  echo mine >"$KIT_LIVE/etc/edited"
  echo mine >"$KIT_LIVE/etc/gone"
  echo mine >"$KIT_LIVE/etc/motd"
  rm "$KIT_LIVE/etc/deleted"
  apply
  [ "$output" = etc/plain ]
  [ "$(cat "$KIT_LIVE/etc/edited" "$KIT_LIVE/etc/gone" "$KIT_LIVE/etc/motd" "$KIT_LIVE/etc/plain")" = $'mine\nmine\nmine\nnew' ]
  [ ! -e "$KIT_LIVE/etc/deleted" ]
  [ "$(cut -f 1 "$KIT_RUN/conflicts" | sort | tr '\n' ' ')" = 'etc/deleted etc/edited etc/gone etc/motd ' ]
}

@test "apply_bundle() forgets a conflict when bundle and machine agree again" {
  echo old >"$OLD/etc/edited"
  echo new >"$NEW/etc/edited"
  power_on
  echo mine >"$KIT_LIVE/etc/edited"
  apply
  [ -s "$KIT_RUN/conflicts" ]
  OLD="$NEW" NEW="$BATS_TEST_TMPDIR/third"
  mkdir -p "$NEW/etc"
  echo mine >"$NEW/etc/edited"
  apply
  arrives
}

@test "apply_bundle() keeps a directory that holds something of the machine's own" {
  mkdir -p "$OLD/srv/data"
  echo x >"$OLD/srv/data/ours"
  power_on
  echo mine >"$KIT_LIVE/srv/data/mine"
  apply
  [ ! -e "$KIT_LIVE/srv/data/ours" ]
  [ "$(cat "$KIT_LIVE/srv/data/mine")" = mine ]
  grep -q '^srv/data	something on this machine is in it$' "$KIT_RUN/conflicts"
}

@test "apply_bundle() never writes through a link, nor replaces a top-level entry of the image" {
  outside="$BATS_TEST_TMPDIR/outside"
  mkdir -p "$outside" "$IMAGE/usr/lib" "$NEW/lib" "$NEW/srv/door"
  ln -s usr/lib "$IMAGE/lib"
  echo x >"$NEW/lib/x"
  echo x >"$NEW/srv/door/evil"
  power_on
  mkdir -p "$KIT_LIVE/srv"
  ln -s "$outside" "$KIT_LIVE/srv/door"
  apply
  [ -L "$KIT_LIVE/lib" ]
  [ -z "$(ls -A "$outside" "$KIT_LIVE/usr/lib" | grep -v :)" ]
  grep -q '^lib	' "$KIT_RUN/conflicts"
  grep -q '^srv/door/evil	' "$KIT_RUN/conflicts"
}

@test "apply_bundle() does not touch what other file systems hide" {
  for folder in run proc sys dev tmp; do mkdir -p "$NEW/$folder" && echo x >"$NEW/$folder/x"; done
  power_on
  apply
  [ -z "$output" ]
}

@test "apply_bundle() finishes what an interrupted run began" {
  mkdir "$OLD/etc/thing" && echo old >"$OLD/etc/thing/inside"
  echo new >"$NEW/etc/thing"
  echo new >"$NEW/etc/motd"
  power_on
  # As if it had stopped between taking away and putting in place.
  rm -r "$KIT_LIVE/etc/thing"
  printf 'etc/thing/inside\netc/thing\n' >"$KIT_RUN/taken-away"
  echo new >"$KIT_LIVE/etc/motd"
  touch -r "$NEW/etc/motd" "$KIT_LIVE/etc/motd"
  apply
  [ "$output" = etc/thing ]
  arrives
}
