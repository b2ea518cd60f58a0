#!/usr/bin/env bats
# The agent as a whole against a server: check-in, a change of bundle, a server that goes away. systemctl is a note of
# what it was asked.

load ../testing/agent.bash

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  make_node
  echo image >"$IMAGE/etc/motd"
  echo one >"$SOURCE/etc/motd"
  publish
  export KIT_BUNDLE="$DIGEST"
  cp -a "$SOURCE" "$KIT_RUN/bundle/root"
  cp -a "$SOURCE/." "$KIT_LIVE"
}

teardown() {
  end_node
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
  want 2025.11.1 "$KIT_BUNDLE"
  heard "^check-in .*\"bundle\":\"$KIT_BUNDLE\",\"rebootReasons\":\\[\\]"
  [ ! -e "$KIT_LIVE/etc/fstab" ]
}

@test "kit-agent keeps its bundle when the new one is not what its digest says" {
  start_agent
  heard '^check-in '
  wrong="$(printf 'a%.0s' {1..64})"
  cp "$FOLDER/bundles/$KIT_BUNDLE.tar" "$FOLDER/bundles/$wrong.tar"
  want 2025.11.1 "$wrong"
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
  echo 409 >"$FOLDER/refuse"
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
  rm "$FOLDER/reports"
  restart_server
  heard '^check-in '
}
