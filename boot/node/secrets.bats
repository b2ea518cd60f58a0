#!/usr/bin/env bats
# Secret files on the machine: fetched as the machine, laid over the root, kept for a start without the server, taken out again;
# and nowhere else to be read.

load ../testing/agent.bash
bats_require_minimum_version 1.5.0

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  make_node
  mkdir -p "$KIT_LIVE/etc/app" "$IMAGE/etc/app" "$KIT_RUN/writes" "$KIT_PERSIST/machine"
  # What is written into the live root is written into the layer for writes.
  ln -s "$KIT_LIVE" "$KIT_RUN/writes/upper"
  echo one >"$SOURCE/etc/motd"
  publish
  export KIT_BUNDLE="$DIGEST"
  cp -a "$SOURCE" "$KIT_RUN/bundle/root"
  cp -a "$SOURCE/." "$KIT_LIVE"
  SECRET="$BATS_TEST_TMPDIR/secret"
  mkdir -p "$SECRET"
}

teardown() {
  end_node
  umount -l "$KIT_LIVE/etc/bound" 2>/dev/null || true
}

# put PATH TEXT [MODE] [OWNER]
put() {
  mkdir -p "$SECRET/${1%/*}"
  printf '%s\n' "$2" >"$SECRET/$1"
  chown "${4:-0:0}" "$SECRET/$1"
  chmod "${3:-0600}" "$SECRET/$1"
}

# seal [LINE]…: SECRET as what the server has for this machine, named by the target; only files, links and empty directories are in
# the archive, as the server makes it.
seal() {
  (cd "$SECRET" && find . -mindepth 1 \( ! -type d -o -empty \) -printf '%P\n' | sort | tar --no-recursion -cf "$FOLDER/secrets.new" -T -)
  mv "$FOLDER/secrets.new" "$FOLDER/secrets.tar"
  SEALED="$(sha256_of "$FOLDER/secrets.tar")"
  want "$KIT_IMAGE" "$DIGEST" "secrets $SEALED" "$@"
}

facts() {
  stat -c '%a %u:%g' "$KIT_LIVE/$1"
}

# place: what lies in SECRET, by the functions alone.
place() {
  seal
  run --separate-stderr with_parts paths json disk identity api target tree bundle secret-files change secrets -- "
    make_secrets_folder && cp '$FOLDER/secrets.tar' \"\$KIT_SECRETS/new.tar\" && unpack_secrets \"\$KIT_SECRETS/new.tar\" \"\$KIT_SECRETS/new.tree\" &&
      lay_secrets '$SEALED'"
}

@test "kit-agent lays secret files over the root with their modes, and does what follows from them" {
  put etc/app/key 'top secret'
  put etc/app/group/shared 'for a group' 0640 0:50
  put etc/app/wide 'too wide' 4664
  put etc/sysctl.d/secret.conf 'vm.swappiness=1'
  ln -s key "$SECRET/etc/app/link"
  mkdir -m 0750 "$SECRET/etc/empty"
  mkdir -p "$KIT_LIVE/etc/kit/changed.d"
  printf '#!/bin/sh\ncat >%s/hook\n' "$BATS_TEST_TMPDIR" >"$KIT_LIVE/etc/kit/changed.d/10-note"
  chmod +x "$KIT_LIVE/etc/kit/changed.d/10-note"
  umask 022
  seal
  start_agent
  heard '^events .*"step":"secrets","status":"done".*"message":"6 paths changed"'
  [ "$(cat "$KIT_LIVE/etc/app/key" "$KIT_LIVE/etc/app/group/shared" "$KIT_LIVE/etc/app/link")" = $'top secret\nfor a group\ntop secret' ]
  [ "$(facts etc/app/key)" = '600 0:0' ]
  [ "$(facts etc/app/group/shared)" = '640 0:50' ]
  [ "$(facts etc/app/wide)" = '4660 0:0' ]
  # On the way to them anybody may pass; a directory that is named has its own mode; one that was there keeps it.
  [ "$(facts etc/app/group) $(facts etc/empty) $(facts etc/app)" = '755 0:0 750 0:0 755 0:0' ]
  grep -qx 'systemctl restart systemd-sysctl.service' "$NOTES/commands"
  grep -qx /etc/app/key "$BATS_TEST_TMPDIR/hook"
  [ "$(find "$KIT_RUN/secrets" -perm /007 ! -type l)" = '' ]
  [ "$(stat -c %a "$KIT_RUN/secrets" "$KIT_RUN/target" | xargs)" = '700 600' ]
  # They are as they should be: no drift. Changed by hand, they are.
  stop_agent
  start_agent
  becomes '[ "$(grep -c "^check-in " "$FOLDER/reports")" -ge 2 ]'
  ! grep '^check-in ' "$FOLDER/reports" | grep -E '/etc/(app/(key|group|wide|link)|sysctl.d|empty)'
  echo mine >>"$KIT_LIVE/etc/app/key"
  stop_agent
  rm "$FOLDER/reports"
  start_agent
  heard '^check-in .*"drift":\[[^]]*"/etc/app/key"'
}

@test "kit-agent takes secret files out again, and image and bundle show what they have there" {
  echo image >"$IMAGE/etc/app/conf"
  echo 'the secret one' >"$NOTES/text"
  cp -a "$IMAGE/etc/app/conf" "$KIT_LIVE/etc/app/conf"
  put etc/app/conf 'the secret one'
  put etc/motd 'secret motd'
  put etc/deep/er/key deep
  seal
  start_agent
  heard '^events .*"step":"secrets","status":"done"'
  [ "$(cat "$KIT_LIVE/etc/app/conf" "$KIT_LIVE/etc/motd" "$KIT_LIVE/etc/deep/er/key")" = $'the secret one\nsecret motd\ndeep' ]
  seen "$BATS_TEST_TMPDIR/log" '^/etc/motd: the secret file takes the place of the one that image or bundle have there$'
  # A bundle that changes what lies under a secret changes nothing there; it is no conflict.
  echo two >"$SOURCE/etc/motd"
  echo two >"$SOURCE/etc/other"
  pack
  want "$KIT_IMAGE" "$DIGEST" "secrets $SEALED"
  heard "^check-in .*\"bundle\":\"$DIGEST\",\"rebootReasons\":\\[\\]"
  [ "$(cat "$KIT_LIVE/etc/motd" "$KIT_LIVE/etc/other")" = $'secret motd\ntwo' ]
  seen "$BATS_TEST_TMPDIR/log" '^/etc/motd is left to the secret file of that path$'
  : >"$FOLDER/reports"
  want "$KIT_IMAGE" "$DIGEST"
  heard '^events .*"step":"secrets","status":"done".*"3 paths changed"'
  [ "$(cat "$KIT_LIVE/etc/app/conf" "$KIT_LIVE/etc/motd")" = $'image\ntwo' ]
  [ ! -e "$KIT_LIVE/etc/deep" ] && [ ! -e "$KIT_RUN/secrets/tar" ]
}

@test "kit-agent keeps the secret files it has when those that come are not what was named, and tells nobody what they are" {
  put etc/app/key 'first secret'
  seal
  start_agent
  heard '^events .*"step":"secrets","status":"done"'
  put etc/app/key 'second secret'
  (cd "$SECRET" && tar -cf "$FOLDER/secrets.tar" etc/app/key)
  want "$KIT_IMAGE" "$DIGEST" "secrets $(printf 'a%.0s' {1..64})"
  heard '^events .*"step":"secrets","status":"failed".*their sha256 is not the one that the server named'
  [ "$(cat "$KIT_LIVE/etc/app/key")" = 'first secret' ]
  [ -z "$(find "$KIT_RUN/secrets" -name 'new.*')" ]
  # The next ones at once.
  seal
  becomes '[ "$(cat "$KIT_LIVE/etc/app/key")" = "second secret" ]'
  [ "$(grep -c '"step":"secrets","status":"failed"' "$FOLDER/reports")" = 1 ]
  # Neither they nor their digest, by which short ones could be guessed.
  ! grep -rE "(first|second) secret|$SEALED" "$FOLDER/reports" "$BATS_TEST_TMPDIR/log" "$NOTES/commands" "$KIT_ISSUE" "$KIT_CONSOLE"
}

@test "unpack_secrets() refuses names that lead outside, devices and hard links" {
  cd "$SECRET"
  echo x >inside
  tar -cf "$FOLDER/secrets.tar" --transform 's|^|../../|' -P inside
  unpack() { with_parts paths tree bundle secret-files -- "unpack_secrets '$FOLDER/secrets.tar' '$BATS_TEST_TMPDIR/tree'"; }
  run ! unpack
  [[ "$output" = *'Cannot use the secret files: a name in it leads outside ('* ]]
  mknod device c 1 3
  tar -cf "$FOLDER/secrets.tar" device
  run ! unpack
  ln inside twice
  tar -cf "$FOLDER/secrets.tar" inside twice
  run ! unpack
}

@test "place_secrets() goes through no link, into no other file system, and over no directory" {
  put etc/linked/key a
  put etc/bound/key b
  put etc/app c
  put etc/file/key d
  put etc/fine e
  mkdir -p "$BATS_TEST_TMPDIR/outside" "$KIT_LIVE/etc/bound"
  ln -s "$BATS_TEST_TMPDIR/outside" "$KIT_LIVE/etc/linked"
  mount -t tmpfs tmpfs "$KIT_LIVE/etc/bound"
  echo file >"$KIT_LIVE/etc/file"
  place
  [ "$status" -eq 0 ]
  [ -z "$(ls "$BATS_TEST_TMPDIR/outside" "$KIT_LIVE/etc/bound" | grep key)" ] && [ -d "$KIT_LIVE/etc/app" ]
  [ "$(cat "$KIT_LIVE/etc/file" "$KIT_LIVE/etc/fine")" = $'file\ne' ]
  diff - "$KIT_RUN/secrets/problems" <<'LINES'
/etc/app: a directory is there
/etc/bound/key: /etc/bound is a file system of its own
/etc/file/key: /etc/file is no directory here
/etc/linked/key: /etc/linked is a symbolic link here
LINES
  [[ "$stderr" = *'Cannot place the secret file /etc/app: a directory is there'* ]]
}

@test "lay_secrets() ends what an interruption left half done, and leaves nothing of it" {
  put etc/app/first 1
  place
  # Interrupted after it had begun with the second ones; by now the third are wanted.
  rm "$SECRET/etc/app/first"
  put etc/app/second 2
  place
  echo interrupted >"$KIT_RUN/secrets/digest"
  rm "$SECRET/etc/app/second"
  put etc/app/third 3
  place
  [ "$(ls "$KIT_LIVE/etc/app")" = third ]
  [ "$(sort -u "$KIT_RUN/secrets/owed" | xargs)" = 'etc/app/first etc/app/second etc/app/third' ]
}

@test "apply_bundle() leaves a directory that a secret file lies in, and it goes with the last of them" {
  mkdir "$KIT_RUN/bundle/root/etc/dir" "$KIT_LIVE/etc/dir"
  echo x | tee "$KIT_RUN/bundle/root/etc/dir/conf" >"$KIT_LIVE/etc/dir/conf"
  put etc/dir/key k
  put etc/mine/key k
  place
  cp -a "$SOURCE" "$NOTES/new"
  mkdir -m 0750 "$NOTES/new/etc/mine"
  run with_parts paths tree secret-files apply -- "apply_bundle '$KIT_RUN/bundle/root' '$NOTES/new'"
  [ ! -s "$KIT_RUN/conflicts" ]
  [ "$(ls "$KIT_LIVE/etc/dir")" = key ] && [ "$(facts etc/mine)" = '750 0:0' ]
  mkdir -p "$KIT_RUN/trees" && mv "$NOTES/new" "$KIT_RUN/trees/new" && echo new >"$KIT_RUN/applied"
  rm -r "${SECRET:?}/etc"
  place
  [ ! -e "$KIT_LIVE/etc/dir" ] && [ -z "$(ls "$KIT_LIVE/etc/mine")" ]
}

# on_disk: the machine has a disk, as far as secrets go.
on_disk() {
  echo a >"$KIT_RUN/slot"
  export KIT_SLOT=a
}

@test "keep_secrets() keeps a copy on kit-persist for root only, and takes it away when it must not be there" {
  on_disk
  put etc/app/key 'kept secret'
  place
  follow() { with_parts paths json disk identity api target tree bundle secret-files change secrets -- follow_secrets; }
  { echo "tag 0123456789abcdef" && cat "$FOLDER/target"; } >"$KIT_RUN/target"
  kept="$KIT_PERSIST/machine/secrets.tar"
  follow
  cmp "$kept" "$FOLDER/secrets.tar"
  [ "$(stat -c %a "$kept")" = 600 ]
  echo 'secrets-kept memory' >>"$KIT_RUN/target"
  follow
  [ ! -e "$kept" ]
  [ "$(cat "$KIT_LIVE/etc/app/key")" = 'kept secret' ]
  sed -i 's/secrets-kept memory/secrets-kept persist/' "$KIT_RUN/target"
  follow
  [ -e "$kept" ]
}

@test "kit-secrets lays the kept ones over the root without the server, and the agent has nothing left to do" {
  on_disk
  put etc/app/key 'kept secret'
  put etc/systemd/system/app.service.d/10-secret.conf '[Service]'
  seal
  cp "$FOLDER/secrets.tar" "$KIT_PERSIST/machine/secrets.tar"
  run dash "$KIT_LIB/kit-secrets"
  [ "$status" -eq 0 ] && [ "$output" = '2 secret files are in place' ]
  [ "$(cat "$KIT_LIVE/etc/app/key")" = 'kept secret' ]
  [ "$(cat "$NOTES/commands")" = 'systemctl daemon-reload' ]
  run dash "$KIT_LIB/kit-secrets"
  [ "$status" -eq 0 ] && [ -z "$output" ]
  # As a live system, so that it needs no slots.
  rm "$KIT_RUN/slot"
  unset KIT_SLOT
  start_agent
  heard '^check-in '
  seen "$FOLDER/asked" 'known=[0-9a-f]'
  [ ! -e "$FOLDER/fetched" ] && ! grep -q secrets "$FOLDER/reports"
  # What is read at boot only was there in time; changed now, it was not.
  put etc/crypttab 'disk /dev/sda /etc/key'
  seal
  heard '^check-in .*"rebootReasons":\["/etc/crypttab changed: encrypted devices are opened at boot"\]'
}

@test "kit-secrets says what is wrong with what is kept, and nothing is placed" {
  on_disk
  echo 'no archive' >"$KIT_PERSIST/machine/secrets.tar"
  run dash "$KIT_LIB/kit-secrets"
  [ "$status" -eq 1 ]
  [[ "$output" = *'services start without their secret files until the server has sent them' ]]
  [ ! -e "$KIT_RUN/secrets" ]
}
