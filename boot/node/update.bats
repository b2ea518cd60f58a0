#!/usr/bin/env bats
# kit-update and the agent around it: from image 1 in slot a to others in slot b, on loop devices.

load ../testing/slots.bash

setup_file() {
  [ "$(id -u)" -eq 0 ] || skip 'loop devices need root'
  make_images
}

setup() {
  make_node
  make_slots
}

teardown() {
  end_slots
}

# update IMAGE [LINE]…: runs kit-update for it, with the bundle that runs.
update() {
  local image="$1"
  shift
  mkdir -p "$KIT_RUN/update"
  echo boot-1 >"$KIT_RUN/boot"
  printf 'image %s\nbundle %s\narguments console=ttyS0\nrate 0\n' "$image" "$KIT_BUNDLE" >"$KIT_RUN/update/wanted"
  [ $# = 0 ] || printf '%s\n' "$@" >>"$KIT_RUN/update/wanted"
  run dash "$KIT_LIB/kit-update"
}

# holds SLOT IMAGE: the partitions of the slot are those of the image, and it is ready.
holds() {
  local data=3
  [ "$1" = b ] || data=1
  cmp -n "$(stat -c %s "$FOLDER/images/$2/root.squashfs")" "$FOLDER/images/$2/root.squashfs" "$KIT_DEV/vda$data"
  cmp -n "$(stat -c %s "$FOLDER/images/$2/root.verity")" "$FOLDER/images/$2/root.verity" "$KIT_DEV/vda$((data + 1))"
  cmp "$FOLDER/images/$2/vmlinuz" "$KIT_ESP/kit/$1/vmlinuz"
  cmp "$FOLDER/images/$2/initrd.img" "$KIT_ESP/kit/$1/initrd.img"
  [ "$(state_of "$1")" = ready ]
  [ "$(field "$1" image) $(field "$1" bundle) $(field "$1" arguments)" = "$2 $KIT_BUNDLE console=ttyS0" ]
}

@test "kit-update fetches a small part of an image with one other program, and says how much" {
  update 2
  [ "$status" -eq 0 ]
  holds b 2
  size="$(stat -c %s "$FOLDER/images/2/root.squashfs")"
  [ $(($(fetched_of root.squashfs) * 100)) -lt $((size * 15)) ]
  # Everything that went over the wire, against everything the image has.
  all=$((size + $(cat "$FOLDER"/images/2/{root.verity,vmlinuz,initrd.img} | wc -c)))
  percent="$(awk -v got="$(fetched_of /)" -v all="$all" 'BEGIN { printf "%.1f", got * 100 / all }')"
  grep -q "^events .*\"step\":\"update\",\"status\":\"done\".*slot b holds image 2: fetched [0-9.]* of [0-9.]* MB, $percent %" "$FOLDER/reports"
  # The initrd is the same and was copied, the kernel is not.
  [ "$(fetched_of initrd.img)" = 0 ] && [ "$(fetched_of vmlinuz)" = 100000 ]
  cmp "$FOLDER/images/2/root.chunks" "$KIT_OVERLAY/slots/b.chunks"
  grep -q '^check-in .*"slot":"a","slots":{"a":{"state":"good","image":"1".*"b":{"state":"ready","image":"2"' "$FOLDER/reports"
  # Of the running slot nothing changed.
  [ "$(state_of a)" = good ]
}

@test "kit-update knows the running image by the list it kept, without the server" {
  cp "$FOLDER/images/1/root.chunks" "$KIT_OVERLAY/slots/a.chunks"
  rm -r "$FOLDER/images/1"
  update 2
  [ "$status" -eq 0 ]
  holds b 2
  [ $(($(fetched_of root.squashfs) * 100)) -lt $(($(stat -c %s "$FOLDER/images/2/root.squashfs") * 15)) ]
}

@test "kit-update fetches all of an image when there is no list, when a delta does not pay, and when the server has no ranges" {
  size="$(stat -c %s "$FOLDER/images/2/root.squashfs")"
  rm -r "$FOLDER/images/1"
  update 2
  holds b 2
  [ "$(fetched_of root.squashfs)" = "$size" ]
  rm "$FOLDER/fetched" "$KIT_OVERLAY/slots/b"
  cp -r "$BATS_FILE_TMPDIR/images/1" "$FOLDER/images/1"
  update 3
  holds b 3
  [ "$(fetched_of 3/root.squashfs)" = "$(stat -c %s "$FOLDER/images/3/root.squashfs")" ]
  rm "$KIT_OVERLAY/slots/b"
  touch "$FOLDER/whole"
  update 2
  holds b 2
}

# initrd_share IMAGE: percent of its initrd that the server has sent.
initrd_share() {
  echo $(($(fetched_of "$1/initrd.img") * 100 / $(stat -c %s "$FOLDER/images/$1/initrd.img")))
}

@test "kit-update fetches a small part of an initrd with one other program, by the server's lists and by the one it kept" {
  update 4
  [ "$status" -eq 0 ]
  holds b 4
  [[ "$output" = *'bytes of the initrd, copies the others'* ]]
  [ "$(initrd_share 4)" -ge 1 ] && [ "$(initrd_share 4)" -lt 20 ]
  cmp "$FOLDER/images/4/initrd.chunks" "$KIT_OVERLAY/slots/b.initrd-chunks"
  [ "$(grep -c 1/initrd.chunks "$FOLDER/fetched")" = 1 ]
  rm "$FOLDER/fetched" "$KIT_OVERLAY/slots/b" "$KIT_ESP/kit/b/initrd.img"
  cp "$FOLDER/images/1/initrd.chunks" "$KIT_OVERLAY/slots/a.initrd-chunks"
  rm -r "$FOLDER/images/1"
  update 4
  holds b 4
  [ "$(initrd_share 4)" -lt 20 ]
}

@test "kit-update keeps the list of an initrd that it copied" {
  cp "$FOLDER/images/1/initrd.chunks" "$KIT_OVERLAY/slots/a.initrd-chunks"
  update 2
  holds b 2
  [ "$(fetched_of initrd)" = 0 ]
  cmp "$FOLDER/images/2/initrd.chunks" "$KIT_OVERLAY/slots/b.initrd-chunks"
}

@test "kit-update fetches all of an initrd when a list is missing or wrong, when a delta does not pay, and when the server has no ranges" {
  again() { rm -f "$FOLDER/fetched" "$KIT_OVERLAY/slots/b" "$KIT_ESP/kit/b/initrd.img"; }
  # The running image is of an older server.
  rm "$FOLDER/images/1/initrd.chunks"
  update 4
  holds b 4
  [ "$(initrd_share 4)" = 100 ]
  again
  # By its list the running initrd has a part that it does not have: the parts make something else, and that is not kept.
  wanted="$(grep -vxFf "$BATS_FILE_TMPDIR/images/1/initrd.chunks" "$FOLDER/images/4/initrd.chunks" | sort -n | head -n 1)"
  awk -v wanted="$wanted" -v other="$(printf 'a%.0s' {1..64})" '
    BEGIN { split(wanted, part, " ") }
    !done && $1 >= part[1] + 0 { print wanted; if ($1 > part[1] + 0) print $1 - part[1], other; done = 1; next }
    { print }' "$BATS_FILE_TMPDIR/images/1/initrd.chunks" >"$FOLDER/images/1/initrd.chunks"
  update 4
  [ "$status" -eq 0 ]
  holds b 4
  [[ "$output" = *'the parts do not make the initrd: fetching all of it'* ]]
  [ "$(initrd_share 4)" -ge 100 ]
  again
  cp "$BATS_FILE_TMPDIR/images/1/initrd.chunks" "$FOLDER/images/1/"
  # The running slot's initrd is damaged on the disk.
  printf 'x' | dd of="$KIT_ESP/kit/a/initrd.img" bs=1 seek=500 conv=notrunc status=none
  update 4
  holds b 4
  again
  cp "$BATS_FILE_TMPDIR/images/1/initrd.img" "$KIT_ESP/kit/a/"
  touch "$FOLDER/whole"
  update 4
  holds b 4
  again
  rm "$FOLDER/whole"
  # Quite another one.
  head -c 900000 /dev/urandom >"$KIT_ESP/kit/a/initrd.img"
  list_chunks "$KIT_ESP/kit/a/initrd.img" >"$FOLDER/images/1/initrd.chunks"
  update 4
  holds b 4
  [ "$(initrd_share 4)" = 100 ]
}

@test "kit-update takes an image of a server that lists no chunks of initrds" {
  rm "$FOLDER"/images/*/initrd.chunks
  sed -i '/initrd.chunks/d' "$FOLDER/images/4/manifest"
  signify-openbsd -S -s "$BATS_FILE_TMPDIR/key.sec" -m "$FOLDER/images/4/manifest" -x "$FOLDER/images/4/manifest.sig"
  update 4
  [ "$status" -eq 0 ]
  holds b 4
  [ "$(initrd_share 4)" = 100 ]
  ! grep -q initrd.chunks "$FOLDER/fetched"
  [ ! -e "$KIT_OVERLAY/slots/b.initrd-chunks" ]
}

@test "kit-update fetches all of it once when the parts do not make the image" {
  # A damaged block in the running slot, where chunks are copied from.
  head -c 4096 /dev/urandom | dd of="$KIT_DEV/vda1" bs=4096 seek=100 conv=notrunc status=none
  update 2
  [ "$status" -eq 0 ]
  holds b 2
  [ "$(fetched_of root.squashfs)" -gt "$(stat -c %s "$FOLDER/images/2/root.squashfs")" ]
}

@test "kit-update that was killed begins again and gets there" {
  for cut in 0.05 0.2 0.4; do
    mkdir -p "$KIT_RUN/update"
    printf 'image 2\nbundle %s\narguments console=ttyS0\nrate 0\n' "$KIT_BUNDLE" >"$KIT_RUN/update/wanted"
    timeout -s KILL "$cut" dash "$KIT_LIB/kit-update" 3>&- || true
    [ "$(state_of a)" = good ]
    case "$(state_of b)" in empty | writing | ready) ;; *) false ;; esac
  done
  update 2
  holds b 2
}

@test "kit-update refuses a manifest it cannot trust, each with its reason, and changes nothing" {
  hash="$(sed -n 's/^root-hash //p' "$FOLDER/images/2/manifest")"
  refuses() {
    update "$2"
    [ ! -e "$KIT_OVERLAY/slots/b" ]
    tail -n 2 "$FOLDER/reports" | grep -Eq "^events .*\"status\":\"failed\".*$1" || { tail -n 3 "$FOLDER/reports" && false; }
    tail -n 1 "$FOLDER/reports" | grep -Eq "^check-in .*\"reason\":\"[^\"]*$1" || { tail -n 3 "$FOLDER/reports" && false; }
    cp "$BATS_FILE_TMPDIR"/images/2/manifest* "$FOLDER/images/2"
  }
  refuses 'the server answers 404|Cannot download .*/images/9/manifest' 9
  rm "$FOLDER/images/2/manifest.sig"
  refuses 'the server has no signature' 2
  sed -i 's/^epoch .*/epoch 7/' "$FOLDER/images/2/manifest"
  refuses 'it is not what was signed' 2
  cp "$BATS_FILE_TMPDIR"/images/1/manifest* "$FOLDER/images/2"
  refuses 'it is 1, where 2 was asked for' 2
  echo 2 >"$KIT_PERSIST/machine/epoch"
  refuses 'this machine has run epoch 2' 2
  rm "$KIT_PERSIST/machine/epoch" "$KIT_RUN/image-key.pub"
  refuses 'this machine has no key' 2
}

@test "kit-update takes an image that was signed anew between manifest and signature, and asks no third time" {
  mkdir -p "$FOLDER/next/images/2"
  sed 's/^signed 1$/signed 2/' "$FOLDER/images/2/manifest" >"$FOLDER/next/images/2/manifest"
  signify-openbsd -S -s "$BATS_FILE_TMPDIR/key.sec" -m "$FOLDER/next/images/2/manifest" -x "$FOLDER/next/images/2/manifest.sig"
  update 2
  [ "$status" -eq 0 ]
  holds b 2
  grep -qx 'signed 2' "$FOLDER/images/2/manifest"
  [ "$(grep -c '/2/manifest ' "$FOLDER/fetched")" = 2 ]
  rm "$FOLDER/fetched" "$KIT_OVERLAY/slots/b"
  echo >>"$FOLDER/images/2/manifest"
  update 2
  [ ! -e "$KIT_OVERLAY/slots/b" ]
  [ "$(grep -c '/2/manifest ' "$FOLDER/fetched")" = 2 ]
}

@test "kit-update says so when there is no room, on the slot and on kit-overlay" {
  size="$(stat -c %s "$FOLDER/images/2/root.squashfs")"
  truncate -s 4M "$BATS_TEST_TMPDIR/kit-root-b.img"
  losetup -c "$(readlink "$KIT_DEV/vda3")"
  update 2
  grep -q "failed.*Cannot write root.squashfs to $KIT_DEV/vda3: it has $size bytes, there is room for 4194304" "$FOLDER/reports"
  [ "$(state_of b)" = empty ]
  truncate -s 20M "$BATS_TEST_TMPDIR/kit-root-b.img"
  losetup -c "$(readlink "$KIT_DEV/vda3")"
  # A new bundle that does not fit.
  head -c 3000000 /dev/urandom >"$SOURCE/etc/big"
  pack
  head -c 30000000 /dev/zero >"$KIT_OVERLAY/filler" || true
  update 2 "bundle $DIGEST"
  sed -i "s/^bundle .*/bundle $DIGEST/" "$KIT_RUN/update/wanted"
  run dash "$KIT_LIB/kit-update"
  grep -q 'failed.*Cannot' "$FOLDER/reports"
  [ "$(state_of a)" = good ] && [ "$(state_of b)" = writing ]
  [ ! -e "$KIT_OVERLAY/bundles/$DIGEST" ]
}

@test "kit-update brings back the image that lies in the other slot without fetching it" {
  update 2
  # As after another update, into slot a.
  offer b 0
  offer a 0
  rm "$FOLDER/fetched"
  update 2
  [ "$status" -eq 0 ]
  holds b 2
  [ "$(fetched_of root.squashfs)" = 0 ]
  # One that lies there damaged is written anew.
  offer b 0
  offer a 0
  head -c 4096 /dev/urandom | dd of="$KIT_DEV/vda3" bs=4096 seek=9 conv=notrunc status=none
  update 2
  holds b 2
  [ "$(fetched_of root.squashfs)" -gt 0 ]
}

@test "kit-update takes a slot that was bad, when the server wants its image again" {
  update 2
  offer b 3
  slots 'loader_condemn b "it did not get up"'
  [ "$(state_of b)" = bad ]
  update 2
  holds b 2
  [ -z "$(field b reason)" ]
}

@test "kit-agent writes the other slot when it may, and restarts into it when it may" {
  pack
  want 2 "$DIGEST" 'stage no' 'reboot no' 'good yes' 'arguments console=ttyS0'
  start_agent
  heard '^boots {"slot":"a"}'
  heard '^check-in {"boot":"from-disk-1".*"slot":"a".*"checks":"passed"'
  [ ! -e "$KIT_RUN/update/wanted" ]
  want 2 "$DIGEST" 'stage yes' 'reboot no' 'good yes' 'rate 0' 'arguments console=ttyS0'
  heard '^check-in .*"b":{"state":"ready","image":"2"'
  holds b 2
  ! grep -q 'systemctl reboot' "$NOTES/commands"
  # A change of files comes with the image, unless that is held up.
  first="$DIGEST"
  echo two >"$SOURCE/etc/motd"
  pack
  want 2 "$DIGEST" 'stage yes' 'reboot no' 'good yes' 'rate 0' 'arguments console=ttyS0'
  heard "^check-in .*\"b\":\{\"state\":\"ready\",\"image\":\"2\",\"bundle\":\"$DIGEST\""
  [ "$(cat "$KIT_LIVE/etc/motd")" = one ]
  DIGEST="$first"
  want 2 "$DIGEST" 'stage yes' 'reboot yes' 'good yes' 'rate 0' 'arguments console=ttyS0'
  seen "$NOTES/commands" '^systemctl reboot$'
  [ "$(state_of b)" = trying ]
  [ -e "$KIT_ESP/loader/entries/kit-b+3.conf" ]
  grep -q '^options kit.plan=disk kit.slot=b kit.image=2 .* console=ttyS0$' "$KIT_ESP/loader/entries/kit-b+3.conf"
  heard '^events .*"step":"update","status":"done","message":"restarts into 2 in slot b"'
  heard '^check-in .*"b":{"state":"trying","image":"2".*"tries":3'
  # Taken back at the last moment.
  want 1 "$DIGEST" 'stage yes' 'reboot yes' 'good yes'
  becomes '[ "$(state_of b)" = ready ]'
}

@test "kit-agent starts over when another image is wanted while one is being written" {
  want 3 "$KIT_BUNDLE" 'stage yes' 'good yes' 'rate 100' 'arguments console=ttyS0'
  start_agent
  heard '^events .*"step":"update","status":"started","message":"image 3 for slot b"'
  want 2 "$KIT_BUNDLE" 'stage yes' 'good yes' 'rate 0' 'arguments console=ttyS0'
  heard '^check-in .*"b":{"state":"ready","image":"2"'
  holds b 2
  grep -q '^systemctl stop kit-update.service' "$NOTES/commands"
}

@test "kit-agent pauses before it tries an image again that could not be written, and takes bundles meanwhile" {
  sed -i 's/^epoch .*/epoch 7/' "$FOLDER/images/2/manifest"
  want 2 "$KIT_BUNDLE" 'stage yes' 'good yes' 'rate 0' 'arguments console=ttyS0'
  start_agent
  heard '^events .*"step":"update","status":"failed"'
  heard '^check-in .*"reason":"Cannot use the image: it is damaged'
  echo two >"$SOURCE/etc/motd"
  pack
  want 2 "$DIGEST" 'stage yes' 'good yes' 'rate 0' 'arguments console=ttyS0'
  # Another bundle is another attempt.
  becomes '[ "$(grep -c '\''"step":"update","status":"failed"'\'' "$FOLDER/reports")" = 2 ]'
  while kill -0 "$(cat "$NOTES/update.pid")" 2>/dev/null; do sleep 0.05; done
  want 2 "$DIGEST" 'stage yes' 'good yes' 'rate 1' 'arguments console=ttyS0'
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  [ "$(cat "$KIT_LIVE/etc/motd")" = two ]
  [ "$(grep -c '"step":"update","status":"failed"' "$FOLDER/reports")" = 2 ]
}
