#!/usr/bin/env bats
# The agent as a whole against a server: check-in, a change of bundle, a server that goes away. systemctl is a note of
# what it was asked.

load ../testing/machine.bash

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  export KIT_LIB="$BOOT_FOLDER/node/root/usr/lib/kit" KIT_RUN="$BATS_TEST_TMPDIR/run" KIT_LIVE="$BATS_TEST_TMPDIR/live"
  export KIT_MAC="$MAC" KIT_BOOT='boot-1' KIT_IMAGE='2025.11.1' KIT_ISSUE="$BATS_TEST_TMPDIR/issue" KIT_SYS="$BATS_TEST_TMPDIR/sys"
  IMAGE="$KIT_RUN/image" FOLDER="$BATS_TEST_TMPDIR/server" SOURCE="$BATS_TEST_TMPDIR/source"
  mkdir -p "$IMAGE/etc" "$KIT_RUN/bundle" "$KIT_SYS/class/net" "$BATS_TEST_TMPDIR/bin" "$FOLDER"
  printf '#!/bin/sh\necho "$(basename "$0") $*" >>%s/commands\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/bin/systemctl"
  chmod +x "$BATS_TEST_TMPDIR/bin/systemctl"
  ln -s systemctl "$BATS_TEST_TMPDIR/bin/agetty"
  ln -s systemctl "$BATS_TEST_TMPDIR/bin/networkctl"
  export PATH="$BATS_TEST_TMPDIR/bin:$PATH"
  start_server "$FOLDER"
  export KIT_URL="$SERVER_URL"
  echo image >"$IMAGE/etc/motd"
  mkdir -p "$SOURCE/etc"
  echo one >"$SOURCE/etc/motd"
  publish
  export KIT_BUNDLE="$DIGEST"
  cp -a "$SOURCE" "$KIT_RUN/bundle/root"
  cp -a "$SOURCE" "$KIT_LIVE"
}

teardown() {
  [ -z "${AGENT_PID:-}" ] || kill "$AGENT_PID" 2>/dev/null || true
  [ -z "${SERVER_PID:-}" ] || stop_server
}

# publish: SOURCE as the bundle that the server wants; its digest in DIGEST.
publish() {
  tar -C "$SOURCE" --sort=name --mtime=@0 -cf "$BATS_TEST_TMPDIR/bundle.tar" .
  DIGEST="$(sha256_of "$BATS_TEST_TMPDIR/bundle.tar")"
  mkdir -p "$FOLDER/bundles"
  cp "$BATS_TEST_TMPDIR/bundle.tar" "$FOLDER/bundles/$DIGEST.tar"
  printf 'image 2025.11.1\nbundle %s\n' "$DIGEST" >"$FOLDER/target.new"
  mv "$FOLDER/target.new" "$FOLDER/target"
}

start_agent() {
  PATH="$BATS_TEST_TMPDIR/nap:$PATH" dash "$KIT_LIB/kit-agent" >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
  AGENT_PID=$!
}

# nap: the agent's pauses are written down and cut short.
nap() {
  mkdir "$BATS_TEST_TMPDIR/nap"
  printf '#!/bin/sh\necho "$1" >>%s/naps\nexec /bin/sleep 0.02\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/nap/sleep"
  chmod +x "$BATS_TEST_TMPDIR/nap/sleep"
}

# napped COUNT: waits until the agent has paused so often.
napped() {
  until [ "$(cat "$BATS_TEST_TMPDIR/naps" 2>/dev/null | wc -l)" -ge "$1" ]; do sleep 0.05; done
}

# heard REGEX: waits until the server has a report that fits. bats ends the test when it never comes.
heard() {
  local left=400
  until grep -Eq -- "$1" "$FOLDER/reports" 2>/dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { cat "$FOLDER/reports" "$BATS_TEST_TMPDIR/log" && return 1; }
    sleep 0.05
  done
}

@test "kit-agent checks in with what runs here, and writes the issue" {
  start_agent
  heard "^check-in \\{\"boot\":\"boot-1\",\"phase\":\"running\",\"image\":\"2025.11.1\",\"bundle\":\"$KIT_BUNDLE\",\"rebootReasons\":\\[\\]\\}$"
  until [ -s "$KIT_ISSUE/kit.issue" ]; do sleep 0.05; done
  grep -q "server $KIT_URL" "$KIT_ISSUE/kit.issue"
}

@test "kit-agent takes over a changed bundle, does what follows from it, and says so" {
  start_agent
  heard '^check-in '
  mkdir -p "$SOURCE/etc/sysctl.d" "$SOURCE/etc/systemd/system/app.service.d" "$SOURCE/etc/systemd/system/multi-user.target.wants" \
    "$SOURCE/etc/systemd/network" "$SOURCE/etc/kit/changed.d"
  rm "$SOURCE/etc/motd"
  echo vm.swappiness=1 >"$SOURCE/etc/sysctl.d/10-a.conf"
  echo '[Service]' >"$SOURCE/etc/systemd/system/app.service.d/10-a.conf"
  ln -s ../app.service "$SOURCE/etc/systemd/system/multi-user.target.wants/app.service"
  echo '[Match]' >"$SOURCE/etc/systemd/network/10-a.network"
  echo '/dev/sda1 / ext4' >"$SOURCE/etc/fstab"
  printf '#!/bin/sh\ncat >%s/hook\n' "$BATS_TEST_TMPDIR" >"$SOURCE/etc/kit/changed.d/10-note"
  chmod +x "$SOURCE/etc/kit/changed.d/10-note"
  mkdir -p "$SOURCE/root/.ssh"
  touch "$SOURCE/root/.ssh/authorized_keys"
  ln -s /dev/null "$SOURCE/etc/systemd/system/unwanted.service"
  publish
  heard "^check-in .*\"bundle\":\"$DIGEST\",\"rebootReasons\":\\[\"/etc/fstab changed: file systems are mounted at boot\"\\]"
  heard '^events .*"step":"bundle","status":"started"'
  heard '^events .*"step":"bundle","status":"done","seconds":[0-9]+,"message":"[0-9]+ paths changed; a reboot is needed: /etc/fstab changed'
  # The bundle had /etc/motd and has it no more: the image's is back.
  [ "$(cat "$KIT_LIVE/etc/motd")" = image ]
  [ "$(grep -v agetty "$BATS_TEST_TMPDIR/commands")" = "systemctl daemon-reload
systemctl restart systemd-sysctl.service
networkctl reload
systemctl try-restart --no-block -- app.service
systemctl start --no-block -- app.service
systemctl stop --no-block -- unwanted.service
systemctl start --no-block ssh.service" ]
  grep -qx /etc/sysctl.d/10-a.conf "$BATS_TEST_TMPDIR/hook"
  # Back to the first bundle: nothing is left to reboot for.
  : >"$FOLDER/reports"
  printf 'image 2025.11.1\nbundle %s\n' "$KIT_BUNDLE" >"$FOLDER/target"
  heard "^check-in .*\"bundle\":\"$KIT_BUNDLE\",\"rebootReasons\":\\[\\]"
  [ ! -e "$KIT_LIVE/etc/fstab" ]
}

@test "kit-agent keeps its bundle when the new one is not what its digest says" {
  start_agent
  heard '^check-in '
  wrong="$(printf 'a%.0s' {1..64})"
  cp "$FOLDER/bundles/$KIT_BUNDLE.tar" "$FOLDER/bundles/$wrong.tar"
  printf 'image 2025.11.1\nbundle %s\n' "$wrong" >"$FOLDER/target"
  heard "^events .*\"status\":\"failed\".*its sha256 is $KIT_BUNDLE"
  [ "$(cat "$KIT_LIVE/etc/motd")" = one ]
  [ ! -e "$KIT_RUN/applied" ]
  [ -z "$(ls "$KIT_RUN/trees")" ]
  [ ! -e "$KIT_RUN/bundle.new" ]
  # Not again and again; but the next one at once.
  echo three >"$SOURCE/etc/motd"
  publish
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  [ "$(grep -c '"status":"failed"' "$FOLDER/reports")" -eq 1 ]
}

@test "kit-agent that was ended in the middle of a change finishes it before the next one" {
  # From "one" to "two", and "two" lies there already; by now the server wants "three".
  mkdir -p "$KIT_RUN/trees"
  second="$(printf 'b%.0s' {1..64})"
  cp -a "$SOURCE" "$KIT_RUN/trees/$second"
  echo two >"$KIT_RUN/trees/$second/etc/motd"
  echo vm.swappiness=2 >"$KIT_RUN/trees/$second/etc/sysctl.conf"
  cp -a "$KIT_RUN/trees/$second/etc/motd" "$KIT_LIVE/etc/motd"
  echo "$second" >"$KIT_RUN/applying"
  echo three >"$SOURCE/etc/motd"
  publish
  start_agent
  heard "^check-in .*\"bundle\":\"$DIGEST\",\"rebootReasons\":\\[\\]"
  [ "$(cat "$KIT_LIVE/etc/motd")" = three ]
  [ ! -e "$KIT_LIVE/etc/sysctl.conf" ]
  # What the interrupted change owed.
  grep -qx 'systemctl restart systemd-sysctl.service' "$BATS_TEST_TMPDIR/commands"
  [ ! -e "$KIT_RUN/applying" ]
  [ ! -e "$KIT_RUN/paths" ]
}

@test "kit-agent does not hurry when the server has nothing for it" {
  rm "$FOLDER/target"
  nap
  start_agent
  napped 5
  [ "$(grep -c '^check-in ' "$FOLDER/reports")" -eq 1 ]
  [ "$(sort -n "$BATS_TEST_TMPDIR/naps" | head -n 1)" -ge 30 ]
  [ "$(wc -l <"$BATS_TEST_TMPDIR/log")" -eq 1 ]
}

@test "kit-agent asks ever more rarely while its boot is refused, says so once, and goes on when it is taken" {
  touch "$FOLDER/refuse"
  nap
  start_agent
  napped 12
  longest="$(sort -n "$BATS_TEST_TMPDIR/naps" | tail -n 1)"
  [ "$longest" -ge 600 ] && [ "$longest" -le 900 ]
  [ "$(cat "$BATS_TEST_TMPDIR/log")" = "$KIT_URL refuses the check-in of boot boot-1 (HTTP status 409): will try again" ]
  rm "$FOLDER/refuse"
  until grep -q '^checked in with' "$BATS_TEST_TMPDIR/log"; do sleep 0.05; done
}

@test "kit-agent checks in again when the server was away" {
  start_agent
  heard '^check-in '
  port="$(cat "$FOLDER/port")"
  stop_server
  rm "$FOLDER/reports"
  start_server "$FOLDER" 127.0.0.1 "$port"
  heard '^check-in '
}
