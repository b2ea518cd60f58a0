#!/usr/bin/env bats
# Slots on trial, what they fall back to, bundles on the disk, powerwash, damage: the agent of a machine with a disk.

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

# on_trial: the machine runs image 2 from slot b, which is on trial; image 1 in slot a is good.
on_trial() {
  echo two >"$SOURCE/etc/motd"
  pack
  mkdir -p "$KIT_OVERLAY/bundles/$DIGEST" "$KIT_ESP/kit/b"
  cp -a "$SOURCE/." "$KIT_OVERLAY/bundles/$DIGEST"
  cp -a "$SOURCE/." "$KIT_LIVE"
  record b 2 "$DIGEST"
  offer b 3
  # systemd-boot has counted.
  mv "$KIT_ESP/loader/entries/kit-b+3.conf" "$KIT_ESP/loader/entries/kit-b+2-1.conf"
  date +%s >"$KIT_OVERLAY/slots/b.attempts"
  echo b >"$KIT_RUN/slot"
  up 30
  nap
  OLD_BUNDLE="$KIT_BUNDLE"
  export KIT_IMAGE=2 KIT_BUNDLE="$DIGEST"
}

# up SECONDS: the machine has been up for so long, and no time passes. Naps are short then.
up() {
  rm -f "$KIT_PROC/uptime"
  echo "$1.00 1.00" >"$KIT_PROC/uptime"
}

@test "decide_trial() passes by word of the server or alone, and fails when it must" {
  local cases=(
    # checks:confirmed now answered passed [hand-over] | verdict
    'waiting:no 10 0 0|wait'
    'waiting:no 1799 0 0|wait'
    'waiting:no 1800 0 0|bad boot-complete.target was not reached within 1800 s'
    'waiting:yes 1800 1799 0|bad boot-complete.target was not reached within 1800 s'
    # The initrd waited for hours before it handed over.
    'waiting:no 10800 0 0 9001|wait'
    'waiting:no 10801 0 0 9001|bad boot-complete.target was not reached within 1800 s'
    'passed:no 10801 10790 9100 9001|bad the server has not confirmed it within 1800 s'
    'passed:yes 30 20 25|good confirmed by the server'
    'passed:no 30 20 25|wait'
    # Nobody ever answered.
    'passed:no 600 0 30|wait'
    'passed:no 630 0 30|good the server has not answered for 600 s'
    # The checks took long: their ten minutes begin then.
    'passed:no 1000 0 500|wait'
    # It answered, and went away.
    'passed:no 1000 500 30|wait'
    'passed:no 1100 500 30|good the server has not answered for 600 s'
    # It answers, and does not confirm.
    'passed:no 1799 1790 30|wait'
    'passed:no 1800 1790 30|bad the server has not confirmed it within 1800 s'
    # It went away shortly before the end: nobody is taken back for that.
    'passed:no 1850 1700 30|wait'
    'passed:no 2300 1700 30|good the server has not answered for 600 s'
    # Not by a server that is away, either: it would be for good.
    'keyless:no 1000 0 30|wait'
    'keyless:yes 1800 1790 30|bad this image cannot use the key of the machine'
  )
  for each in "${cases[@]}"; do
    run with_parts trial -- "set -- ${each%|*}; decide_trial \"\$1\" \$2 \$3 \$4 600 1800 \${5:-0}"
    [ "$output" = "${each#*|}" ] || { echo "$each: $output" && false; }
  done
}

@test "decide_image() follows from the states of the slots and what the server wants" {
  local cases=(
    # running:other staged facts (differs stage reboot) | step
    'good empty other:no no no|none'
    'good ready other:no yes yes|none'
    'good trying same:no no no|withdraw'
    'good empty other:yes no no|none'
    'good empty other:yes yes no|stage'
    'good writing other:yes yes yes|stage'
    'good good other:yes yes yes|stage'
    'good good same:yes yes yes|stage'
    'good bad same:yes yes no|stage'
    'good ready other:yes yes yes|stage'
    'good ready same:yes yes no|wait'
    'good ready same:yes no yes|restart'
    'good trying same:yes no yes|restart'
    'good trying other:yes no no|withdraw'
    'trying good other:yes yes yes|trial'
    'trying empty other:yes yes yes|none'
    'bad empty other:yes yes yes|stage'
  )
  for each in "${cases[@]}"; do
    left="${each%|*}"
    # shellcheck disable=SC2086 # words
    run with_parts update -- "decide_image $(echo ${left%:*}) '${left#*:}'"
    [ "$output" = "${each#*|}" ] || { echo "$each: $output" && false; }
  done
}

@test "conf_number() reads the overlay file and runs nothing in it" {
  mkdir -p "$KIT_LIVE/etc/kit"
  printf 'ALONE_SECONDS=60\nTRIAL_SECONDS="0090"\nBAD=12x\nEVIL=$(touch %s/evil)\nALONE_SECONDS=61\n' "$NOTES" >"$KIT_LIVE/etc/kit/agent.conf"
  get() { with_parts paths conf -- "conf_number $1 7"; }
  [ "$(get ALONE_SECONDS) $(get TRIAL_SECONDS) $(get BAD) $(get EVIL) $(get OTHER)" = '61 90 7 7 7' ]
  [ ! -e "$NOTES/evil" ]
}

@test "kit-agent calls a boot good when its checks pass and the server confirms it" {
  on_trial
  want 2 "$KIT_BUNDLE" 'good no'
  start_agent
  heard '^check-in .*"slot":"b".*"b":{"state":"trying","image":"2","bundle":"[0-9a-f]*","tries":2}},"checks":"passed"'
  grep -q '^systemctl start --no-block boot-complete.target$' "$NOTES/commands"
  [ "$(state_of b)" = trying ]
  want 2 "$KIT_BUNDLE" 'good yes'
  heard '^check-in .*"b":{"state":"good","image":"2"'
  [ -e "$KIT_ESP/loader/entries/kit-b.conf" ]
  [ ! -e "$KIT_OVERLAY/slots/b.attempts" ]
  [ "$(field b bundle-good)" = "$KIT_BUNDLE" ]
  [ "$(cat "$KIT_PERSIST/machine/epoch")" = 1 ]
  heard '^events .*"step":"trial","status":"done".*confirmed by the server'
  ! grep -q reboot "$NOTES/commands"
}

@test "kit-agent calls a boot good alone when nobody answers" {
  on_trial
  stop_server
  SERVER_PID=''
  mkdir -p "$KIT_LIVE/etc/kit"
  echo ALONE_SECONDS=0 >"$KIT_LIVE/etc/kit/agent.conf"
  start_agent
  seen "$BATS_TEST_TMPDIR/log" '^slot b is good: the server has not answered for 0 s'
  becomes '[ "$(state_of b)" = good ]'
  becomes '[ ! -e "$KIT_OVERLAY/slots/b.attempts" ]'
}

@test "kit-agent calls a boot good alone when the server knows the machine no more, or is another" {
  on_trial
  mkdir -p "$KIT_LIVE/etc/kit"
  echo ALONE_SECONDS=60 >"$KIT_LIVE/etc/kit/agent.conf"
  cp -r "$KIT_ESP" "$NOTES/before"
  want 2 "$KIT_BUNDLE" 'good no'
  echo pair >"$FOLDER/identity"
  touch "$FOLDER/forgotten"
  start_agent
  seen "$KIT_CONSOLE" '^kit: pairing code '
  becomes '[ -e "$KIT_RUN/checks-passed" ]'
  [ "$(state_of b)" = trying ]
  # Long after the end of any trial.
  up 5000
  seen "$BATS_TEST_TMPDIR/log" '^slot b is good: the server has not answered for 60 s'
  stop_agent
  ! grep -q reboot "$NOTES/commands"
  # On trial again, and the certificate at the other end is by another CA.
  kill -- "-$(cat "$NOTES/identity.pid")"
  rm -rf "$KIT_RUN/identity-needed" "$KIT_RUN/good-boot" "${KIT_ESP:?}"
  cp -r "$NOTES/before" "$KIT_ESP"
  [ "$(state_of b)" = trying ]
  restart_server "$BATS_TEST_TMPDIR/other-ca"
  start_agent
  seen "$BATS_TEST_TMPDIR/log" '^Cannot believe the server'
  seen "$BATS_TEST_TMPDIR/log" '^slot b is good: the server has not answered for 60 s'
  ! grep -q reboot "$NOTES/commands"
}

@test "kit-agent condemns a slot whose image cannot use the key of the machine, and makes no other key meanwhile" {
  on_trial
  mv "$KIT_RUN/identity" "$KIT_PERSIST/machine/identity"
  printf -- '-----BEGIN TSS2 PRIVATE KEY-----\n-----END TSS2 PRIVATE KEY-----\n' >"$KIT_PERSIST/machine/identity/key.pem"
  mkdir -p "$KIT_LIVE/etc/kit"
  echo TRIAL_SECONDS=40 >"$KIT_LIVE/etc/kit/agent.conf"
  start_agent
  seen "$KIT_RUN/key-unusable" '^Cannot use the key that is kept'
  becomes '[ "$(wc -l <"$BATS_TEST_TMPDIR/naps")" -ge 2 ]'
  [ "$(state_of b)" = trying ]
  up 41
  seen "$NOTES/commands" '^systemctl reboot$'
  [ "$(field b reason)" = 'this image cannot use the key of the machine' ]
  [ ! -e "$KIT_RUN/identity/key.pem" ] && ! grep -q kit-identity "$NOTES/commands"
}

@test "kit-agent condemns a slot whose unit fails, names it, and restarts" {
  on_trial
  touch "$NOTES/never-complete"
  echo 'app.service kubelet.service' >"$NOTES/requires"
  echo active >"$NOTES/unit.app.service"
  want 2 "$KIT_BUNDLE" 'good no'
  start_agent
  heard '^check-in .*"checks":"waiting"'
  echo failed >"$NOTES/unit.kubelet.service"
  seen "$NOTES/commands" '^systemctl reboot$'
  heard '^events .*"step":"trial","status":"failed".*slot b \(2\) is bad: boot-complete.target is not reached: kubelet.service failed'
  heard '^check-in .*"b":{"state":"bad".*"reason":"boot-complete.target is not reached: kubelet.service failed"}},"checks":"failed","reason":"boot-complete'
  [ "$(state_of b)" = bad ] && [ "$(state_of a)" = good ]
  [ -e "$KIT_ESP/loader/entries/kit-b+0.conf" ]
}

@test "kit-agent condemns a slot that takes too long, and stays when there is no other" {
  on_trial
  touch "$NOTES/never-complete"
  slots 'loader_condemn a "it is gone"'
  mkdir -p "$KIT_LIVE/etc/kit"
  echo TRIAL_SECONDS=20 >"$KIT_LIVE/etc/kit/agent.conf"
  want 2 "$KIT_BUNDLE" 'good no'
  start_agent
  heard '^events .*"status":"failed".*boot-complete.target was not reached within 20 s'
  heard '^check-in .*"b":{"state":"bad".*"checks":"failed","reason":"boot-complete.target was not reached within 20 s"'
  ! grep -q reboot "$NOTES/commands"
}

@test "kit-trial ends a trial whose agent does not run, and leaves one alone whose agent does" {
  on_trial
  up 2000
  run dash "$KIT_LIB/kit-trial"
  [ "$status" -eq 0 ] && [ "$(state_of b)" = trying ]
  up 2100
  echo 2000 >"$KIT_RUN/agent-alive"
  echo 2090 >"$KIT_RUN/answered"
  echo 2095 >"$KIT_RUN/checks-passed"
  echo active >"$NOTES/unit.boot-complete.target"
  printf 'tag 0123456789abcdef\ngood yes\n' >"$KIT_RUN/target"
  cp -r "$KIT_ESP" "$NOTES/before"
  run dash "$KIT_LIB/kit-trial"
  [ "$(state_of b)" = good ]
  # On trial again.
  cp -r "$NOTES/before/." "$KIT_ESP" && rm "$KIT_ESP/loader/entries/kit-b.conf"
  # Its last word is old: it passes nothing any more.
  echo 800 >"$KIT_RUN/agent-alive"
  run dash "$KIT_LIB/kit-trial"
  [ "$(state_of b)" = bad ]
  [[ "$(field b reason)" = 'the node agent does not run: '* ]]
  grep -q '^systemctl reboot$' "$NOTES/commands"
  # The restart did not come about.
  run dash "$KIT_LIB/kit-trial"
  grep -q '^systemctl reboot --force$' "$NOTES/commands"
}

@test "kit-trial goes to rest when the slot is good" {
  up 5000
  run dash "$KIT_LIB/kit-trial"
  [ "$(cat "$NOTES/commands")" = 'systemctl stop kit-trial.timer' ]
}

@test "kit-agent does not touch the other slot while its own is on trial; a changed bundle is tried with it" {
  on_trial
  echo three >"$SOURCE/etc/motd"
  pack
  want 3 "$DIGEST" 'good no' 'stage yes' 'reboot yes'
  start_agent
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  [ ! -e "$KIT_RUN/update/wanted" ]
  [ "$(cat "$KIT_LIVE/etc/motd")" = three ]
  [ "$(state_of a) $(state_of b)" = 'good trying' ]
  [ "$(field a bundle) $(field b bundle)" = "$OLD_BUNDLE $DIGEST" ]
}

@test "kit-agent after a fallback says what failed, and does not take its bundle alone" {
  echo two >"$SOURCE/etc/motd"
  pack
  failed="$DIGEST"
  record b 2 "$failed" 'failure 61-disk-root: no disk'
  offer b 3
  mv "$KIT_ESP/loader/entries/kit-b+3.conf" "$KIT_ESP/loader/entries/kit-b+0-3.conf"
  want 1 "$failed" 'good yes' 'stage no'
  start_agent
  heard '^check-in .*"b":{"state":"bad","image":"2".*"reason":"did not come up in 3 tries: 61-disk-root: no disk"'
  seen "$KIT_RUN/bundle-held" "bundle ${failed:0:12} is not taken"
  [ "$(cat "$KIT_LIVE/etc/motd")" = one ]
  # A third one is taken, and after that the second as well.
  echo three >"$SOURCE/etc/motd"
  pack
  want 1 "$DIGEST" 'good yes'
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  [ ! -e "$KIT_RUN/bundle-held" ]
  want 1 "$failed" 'good yes'
  heard "^check-in .*\"bundle\":\"$failed\""
}

@test "kit-agent writes a changed bundle into the record, and calls it good when it has held for a minute" {
  start_agent
  want 1 "$KIT_BUNDLE" 'good yes'
  becomes '[ "$(field a bundle-good)" = "$KIT_BUNDLE" ]'
  echo two >"$SOURCE/etc/motd"
  pack
  want 1 "$DIGEST" 'good yes'
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  [ "$(cat "$KIT_LIVE/etc/motd")" = two ]
  [ "$(field a bundle) $(field a bundle-good)" = "$DIGEST $KIT_BUNDLE" ]
  [ "$(cat "$KIT_OVERLAY/bundles/$DIGEST/etc/motd")" = two ]
  stop_agent
  # The next boot has it from the start.
  up 30
  rm -f "$KIT_RUN/bundle-changed" "$KIT_RUN/applied" "$KIT_RUN/good-boot" "$KIT_RUN/fallback-noted"
  export KIT_BUNDLE="$DIGEST"
  : >"$FOLDER/reports"
  start_agent
  becomes '[ "$(field a bundle-good)" = "$DIGEST" ]'
  # Nobody needs the first one any more.
  becomes '[ "$(ls "$KIT_OVERLAY/bundles")" = "$DIGEST" ]'
}

@test "kit-agent keeps the bundle it has when kit-overlay is full" {
  head -c 40000000 /dev/zero >"$KIT_OVERLAY/filler" || true
  head -c 500000 /dev/urandom >"$SOURCE/etc/big"
  pack
  want 1 "$DIGEST" 'good yes'
  start_agent
  heard '^events .*"step":"bundle","status":"failed".*Cannot lay the bundle'
  [ "$(field a bundle)" = "$KIT_BUNDLE" ]
  [ ! -e "$KIT_OVERLAY/bundles/$DIGEST" ]
  [ "$(cat "$KIT_LIVE/etc/motd")" = one ]
}

@test "kit-agent that started with the last good bundle does not take the one that failed" {
  echo two >"$SOURCE/etc/motd"
  pack
  record a 1 "$DIGEST" "bundle-good $KIT_BUNDLE"
  want 1 "$DIGEST" 'good yes'
  start_agent
  seen "$KIT_RUN/bundle-held" "bundle ${DIGEST:0:12} is not taken"
  [ "$(field a bundle)" = "$KIT_BUNDLE" ]
  [ "$(cat "$KIT_LIVE/etc/motd")" = one ]
}

@test "kit-agent asks for another boot id when the server knows this one no more" {
  want 1 "$KIT_BUNDLE" 'good yes'
  start_agent
  heard '^check-in {"boot":"from-disk-1"'
  stop_agent
  # Its own restart keeps it.
  start_agent
  becomes '[ "$(grep -c '\''^check-in '\'' "$FOLDER/reports")" -ge 2 ]'
  [ "$(grep -c '^boots ' "$FOLDER/reports")" = 1 ]
  stop_agent
  echo '404 from-disk-1' >"$FOLDER/refuse"
  echo from-disk-2 >"$FOLDER/boots"
  nap
  start_agent
  heard '^check-in {"boot":"from-disk-2"'
  seen "$FOLDER/asked" 'boot=from-disk-2'
  # It is that of another key.
  stop_agent
  echo '403 from-disk-2' >"$FOLDER/refuse"
  echo from-disk-3 >"$FOLDER/boots"
  start_agent
  heard '^check-in {"boot":"from-disk-3"'
  [ ! -e "$KIT_RUN/identity-needed" ]
}

@test "kit-agent starts from the network for a powerwash, and not again and again" {
  # The firmware has no variable to set: systemd-boot's own is a file here.
  mkdir -p "$KIT_SYS/firmware/efi/efivars"
  touch "$KIT_SYS/firmware/efi/efivars/SecureBoot-1"
  ln -sf systemctl "$BIN/efibootmgr"
  want 1 "$KIT_BUNDLE" 'good yes' 'powerwash yes'
  for boot in 1 2 3; do
    start_agent
    becomes '[ "$(grep -c '\''^systemctl reboot$'\'' "$NOTES/commands")" = "$boot" ]'
    stop_agent
    rm "$KIT_RUN/powerwashing"
  done
  heard '^events .*"step":"powerwash","status":"done"'
  start_agent
  heard '^events .*"step":"powerwash","status":"failed".*the firmware came back to the disk 3 times'
  heard '^check-in .*"reason":"Cannot start from the network'
  [ "$(grep -c '^systemctl reboot$' "$NOTES/commands")" = 3 ]
}

@test "kit-agent tells of a damaged block, and has the next start read everything" {
  echo '0 2048 verity C' >"$NOTES/verity"
  want 1 "$KIT_BUNDLE" 'good yes'
  start_agent
  heard '^events .*"step":"verity","status":"failed","message":"Cannot read all of the image in slot a'
  heard '^check-in .*"checks":"failed","reason":"Cannot read all of the image in slot a: dm-verity found damaged blocks in 1"'
  [ "$(wc -l <"$KIT_OVERLAY/slots/a.attempts")" = 2 ]
  ! grep -q reboot "$NOTES/commands"
}

@test "kit-agent sets a clock that is more than a day off, unless a time server has set it" {
  ahead=$(($(/bin/date +%s) + 100000))
  touch "$KIT_SYNCHRONIZED"
  want 1 "$KIT_BUNDLE" "time $ahead" 'good yes'
  start_agent
  heard '^check-in .*"checks":"passed"'
  ! grep -q '^date' "$NOTES/commands"
  stop_agent
  rm "$KIT_SYNCHRONIZED"
  start_agent
  seen "$NOTES/commands" "^date -u -s @$ahead"
}

@test "kit-status and the issue name the slots" {
  on_trial
  printf 'KIT_URL=%s\nKIT_MAC=%s\nKIT_BOOT=\nKIT_IMAGE=2\nKIT_BUNDLE=%s\n' "$KIT_URL" "$KIT_MAC" "$KIT_BUNDLE" >"$KIT_RUN/env"
  slots 'loader_condemn a "it is old"'
  run sh "$BOOT_FOLDER/node/root/usr/bin/kit-status"
  [ "$status" -eq 0 ]
  [[ "$output" = *'slot a   bad 1
         it is old
slot b   on trial, 2 tries left 2, runs'* ]]
  start_agent
  seen "$KIT_ISSUE/kit.issue" '^slot b is on trial, 2 tries left, slot a is bad \(1\)$'
}
