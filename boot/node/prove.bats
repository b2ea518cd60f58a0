#!/usr/bin/env bats
# The agent and who the machine is: proving it beside its other work, renewal, a server that has forgotten it, one that is
# another, the clock. TLS, certificates and the server's CA are real.

load ../testing/agent.bash

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  make_node
  echo one >"$SOURCE/etc/motd"
  publish
  export KIT_BUNDLE="$DIGEST"
  cp -a "$SOURCE" "$KIT_RUN/bundle/root"
  cp -a "$SOURCE/." "$KIT_LIVE"
  mkdir -p "$KIT_PERSIST"
  mount -t tmpfs tmpfs "$KIT_PERSIST"
}

teardown() {
  end_node
  umount -l "$KIT_PERSIST" 2>/dev/null || true
}

# asked: how often the machine has begun to prove who it is.
asked() {
  { grep -E '/identity \{' "$FOLDER/identity-asked" 2>/dev/null || true; } | wc -l
}

status_of() {
  printf 'KIT_URL=%s\nKIT_TLS=%s\nKIT_MAC=%s\nKIT_BOOT=boot-1\nKIT_IMAGE=1\nKIT_BUNDLE=%s\n' "$KIT_URL" "$KIT_TLS" "$KIT_MAC" "$KIT_BUNDLE" >"$KIT_RUN/env"
  sh "$BOOT_FOLDER/node/root/usr/bin/kit-status"
}

@test "kit-agent shows the code on the console and above the prompt, goes on meanwhile, and keeps what it got" {
  rm -r "$KIT_RUN/identity"
  echo pair >"$FOLDER/identity"
  start_agent
  seen "$KIT_CONSOLE" '^kit: pairing code [0-9A-Z]{3}-[0-9A-Z]{3}: kateskit pair 52:54:00:12:34:56 [0-9A-Z-]{7}$'
  line="kit: pairing code $(cat "$FOLDER/code"): kateskit pair 52:54:00:12:34:56 $(cat "$FOLDER/code")"
  grep -qxF "$line" "$KIT_CONSOLE"
  seen "$KIT_ISSUE/kit.issue" "^$line\$"
  grep -q "^CA $KIT_CA\$" "$KIT_ISSUE/kit.issue"
  [[ "$(status_of)" = *"identity not proved yet
CA       $KIT_CA
         $line"* ]]
  # The loop goes on, and nothing is asked in vain.
  alive="$(cat "$KIT_RUN/agent-alive")"
  becomes '[ "$(cat "$KIT_RUN/agent-alive")" -gt "$alive" ]'
  [ ! -e "$FOLDER/paths" ] && [ ! -e "$KIT_PERSIST/machine/identity" ]
  touch "$FOLDER/confirmed"
  heard '^check-in '
  becomes '! grep -q pairing "$KIT_ISSUE/kit.issue"'
  grep -q "^CA $KIT_CA, identity paired\$" "$KIT_ISSUE/kit.issue"
  [ "$(stat -c %a "$KIT_PERSIST/machine/identity" "$KIT_PERSIST/machine/identity/key.pem" | xargs)" = '700 600' ]
  [ ! -e "$KIT_RUN/identity-says" ]
  # Never in the journal, which others may collect.
  ! grep -q "$(cat "$FOLDER/code")" "$BATS_TEST_TMPDIR/log" "$NOTES/identity.log"
}

@test "kit-agent asks for everything of its own as the machine that it has proved to be, by the name it is known by" {
  rm -r "$KIT_RUN/identity"
  echo 'machine 52-54-00-aa-bb-cc' >"$FOLDER/identity"
  start_agent
  heard '^check-in '
  seen "$FOLDER/paths" 'target'
  ! grep -Ev '^/v1/machines/52-54-00-aa-bb-cc/(check-in|target|events) 52:54:00:aa:bb:cc$' "$FOLDER/paths"
}

@test "kit-agent takes the identity that is kept, and shows it to the server before it says anything as that machine" {
  mkdir "$KIT_PERSIST/machine"
  rm "$KIT_RUN/identity/proved"
  mv "$KIT_RUN/identity" "$KIT_PERSIST/machine/identity"
  KIT_PLAN=disk start_agent
  heard '^check-in '
  [ "$(asked)" = 1 ]
  cmp "$KIT_RUN/identity/key.pem" "$BATS_FILE_TMPDIR/identity/key.pem"
}

@test "kit-agent whose kept identity is refused, as that of another machine, says nothing more as that machine" {
  mkdir "$KIT_PERSIST/machine"
  rm "$KIT_RUN/identity/proved"
  mv "$KIT_RUN/identity" "$KIT_PERSIST/machine/identity"
  echo 'refuse its key is known as that of another machine' >"$FOLDER/identity"
  KIT_PLAN=disk start_agent
  becomes 'grep -q "^Cannot" "$KIT_ISSUE/kit.issue"'
  alive="$(cat "$KIT_RUN/agent-alive")"
  becomes '[ "$(cat "$KIT_RUN/agent-alive")" -gt "$alive" ]'
  [ ! -e "$FOLDER/paths" ]
}

@test "kit-agent gets a new certificate for its key after half of the life of the old one" {
  cp "$KIT_RUN/identity/certificate.pem" "$NOTES/first"
  echo $((4 * 86400)) >"$NOTES/clock-off"
  start_agent
  heard '^check-in '
  becomes '! cmp -s "$KIT_PERSIST/machine/identity/certificate.pem" "$NOTES/first"'
  becomes 'cmp -s "$KIT_RUN/identity/key.pem" "$KIT_PERSIST/machine/identity/key.pem"'
  cmp "$KIT_RUN/identity/key.pem" "$BATS_FILE_TMPDIR/identity/key.pem"
  # By a clock that is not off, and nothing else has been set by it.
  ! grep -q '^date' "$NOTES/commands"
}

@test "kit-agent that the server has forgotten proves anew who it is, with the same key" {
  start_agent
  heard '^check-in '
  echo 'pair known' >"$FOLDER/identity"
  touch "$FOLDER/forgotten"
  echo second >"$SOURCE/etc/motd"
  # Wakes it.
  publish
  seen "$KIT_CONSOLE" '^kit: pairing code .* --replace$'
  rm "$FOLDER/forgotten" "$FOLDER/reports"
  touch "$FOLDER/confirmed"
  heard "^check-in .*\"bundle\":\"$DIGEST\""
  cmp "$KIT_RUN/identity/key.pem" "$BATS_FILE_TMPDIR/identity/key.pem"
  [ ! -e "$KIT_RUN/identity-needed" ]
}

@test "kit-agent tells once that another server answers, sends it nothing, and goes on with the right one" {
  start_agent
  heard '^check-in '
  : >"$FOLDER/paths"
  restart_server "$BATS_TEST_TMPDIR/other-ca"
  seen "$BATS_TEST_TMPDIR/log" '^Cannot believe the server at https://.*: its certificate is not by the CA of this machine'
  becomes '[ "$(grep -c "Cannot believe" "$KIT_CONSOLE")" = 1 ]'
  [[ "$(status_of)" = *'Cannot believe the server at https://'* ]]
  nap
  stop_agent
  start_agent
  napped 4
  [ ! -s "$FOLDER/paths" ] && [ "$(asked)" = 0 ]
  [ "$(grep -c 'Cannot believe' "$KIT_CONSOLE")" = 1 ]
  rm "$FOLDER/reports"
  restart_server
  heard '^check-in '
  # Noted when the answer has come, which is after the server has it.
  becomes '[ ! -e "$KIT_RUN/stranger" ]'
}

@test "kit-agent without an identity does not believe a server that is not the one of kit.ca" {
  rm -r "$KIT_RUN/identity"
  export KIT_CA="${KIT_CA//[0-8]/9}"
  start_agent
  seen "$NOTES/identity.log" "Cannot believe the server at $KIT_URL: its CA has the fingerprint"
  becomes 'grep -q "^Cannot believe the server" "$KIT_ISSUE/kit.issue"'
  [ "$(asked)" = 0 ] && [ ! -e "$FOLDER/paths" ]
}

@test "kit-identity sets a clock by which its certificate does not count, unless a time server has set it" {
  /bin/date +%s >"$FOLDER/time"
  echo -$((400 * 86400)) >"$NOTES/clock-off"
  touch "$KIT_SYNCHRONIZED"
  dash "$KIT_LIB/kit-identity"
  [ ! -e "$NOTES/commands" ]
  rm "$KIT_SYNCHRONIZED"
  dash "$KIT_LIB/kit-identity"
  grep -q "^date -u -s @$(cat "$FOLDER/time")$" "$NOTES/commands"
  # What is no time sets nothing.
  : >"$NOTES/commands"
  echo '$(reboot)' >"$FOLDER/time"
  dash "$KIT_LIB/kit-identity"
  ! grep -q '^date' "$NOTES/commands"
  # A clock that is right needs nobody's.
  rm "$NOTES/clock-off" "$FOLDER/identity-asked"
  : >"$NOTES/commands"
  dash "$KIT_LIB/kit-identity"
  [ "$(asked)" = 0 ]
}

@test "kit-agent begins anew when it was refused, after a pause, and says why" {
  rm -r "$KIT_RUN/identity"
  echo 'refuse Cannot take 52:54:00:12:34:56: its TPM is not approved' >"$FOLDER/identity"
  nap
  start_agent
  becomes 'grep -q "its TPM is not approved (ask a person)$" "$KIT_ISSUE/kit.issue"'
  first="$(asked)"
  napped 20
  [ "$(asked)" = "$first" ]
  [[ "$(status_of)" = *'its TPM is not approved (ask a person)'* ]]
}
