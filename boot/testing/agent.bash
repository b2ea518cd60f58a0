# Helpers of the tests of boot/node: a server for the agent that wants to know who asks, a machine that can prove it, a
# systemctl that notes what it was asked, an agent to wait for.
# shellcheck shell=bash

# shellcheck source=machine.bash
. "${BASH_SOURCE[0]%/*}/machine.bash"

# make_node: an empty machine below BATS_TEST_TMPDIR and a server for it, in the environment of the agent.
make_node() {
  export KIT_LIB="$BOOT_FOLDER/node/root/usr/lib/kit" KIT_RUN="$BATS_TEST_TMPDIR/run" KIT_LIVE="$BATS_TEST_TMPDIR/live"
  export KIT_MAC="$MAC" KIT_BOOT='boot-1' KIT_IMAGE='2025.11.1' KIT_ISSUE="$BATS_TEST_TMPDIR/issue" KIT_SYS="$BATS_TEST_TMPDIR/sys"
  export KIT_PROC="$BATS_TEST_TMPDIR/proc" KIT_SYNCHRONIZED="$BATS_TEST_TMPDIR/synchronized"
  IMAGE="$KIT_RUN/image" FOLDER="$BATS_TEST_TMPDIR/server" SOURCE="$BATS_TEST_TMPDIR/source" BIN="$BATS_TEST_TMPDIR/bin"
  mkdir -p "$IMAGE/etc" "$KIT_RUN/bundle" "$KIT_LIVE" "$KIT_SYS/class/net" "$KIT_SYS/class/block" "$KIT_PROC" "$BIN" "$FOLDER" "$SOURCE/etc"
  ln -s /proc/self "$KIT_PROC/self"
  ln -s /proc/uptime "$KIT_PROC/uptime"
  cp "$BOOT_FOLDER/testing/systemctl" "$BIN/systemctl"
  for name in agetty networkctl date dmsetup; do ln -s systemctl "$BIN/$name"; done
  export PATH="$BIN:$PATH" NOTES="$BATS_TEST_TMPDIR"
  export KIT_CONSOLE="$BATS_TEST_TMPDIR/console" KIT_DEV="$BATS_TEST_TMPDIR/dev" KIT_PERSIST="$KIT_RUN/persist"
  start_agent_server 0 0
  prove_once
}

# start_agent_server PORT TLS_PORT [CA_FOLDER]: 0 for any; all tests of a file have one CA, unless they say otherwise.
start_agent_server() {
  mkdir -p "$FOLDER/images" "$FOLDER/bundles"
  rm -f "$FOLDER/port"
  "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/testing/agent-server.ts" "$FOLDER" 127.0.0.1 "$1" "$2" \
    "${3:-$BATS_FILE_TMPDIR/ca}" 3>&- &
  SERVER_PID=$!
  until [ -s "$FOLDER/port" ]; do sleep 0.05; done
  SERVER_URL="http://127.0.0.1:$(cat "$FOLDER/port")"
  export KIT_URL="$SERVER_URL"
  KIT_TLS="https://127.0.0.1:$(cat "$FOLDER/tls-port")" KIT_CA="$(cat "$FOLDER/ca")"
  export KIT_TLS KIT_CA
}

# restart_server [CA_FOLDER]: on the same ports.
restart_server() {
  local port tls_port
  port="$(cat "$FOLDER/port")" tls_port="$(cat "$FOLDER/tls-port")"
  stop_server
  start_agent_server "$port" "$tls_port" "$@"
}

# prove_once: the machine has an identity, as the initrd leaves it; one for all tests of a file.
prove_once() {
  if [ ! -e "$BATS_FILE_TMPDIR/identity" ]; then
    dash "$KIT_LIB/kit-identity" && rm "$FOLDER/identity-asked" && cp -r "$KIT_RUN/identity" "$BATS_FILE_TMPDIR/identity"
  else
    cp -r "$BATS_FILE_TMPDIR/identity" "$KIT_RUN/identity"
  fi
}

end_node() {
  [ -z "${AGENT_PID:-}" ] || kill "$AGENT_PID" 2>/dev/null || true
  # An update that the agent has started.
  [ ! -s "$NOTES/update.pid" ] || kill "$(cat "$NOTES/update.pid")" 2>/dev/null || true
  [ ! -s "$NOTES/identity.pid" ] || kill -- "-$(cat "$NOTES/identity.pid")" 2>/dev/null || true
  [ -z "${SERVER_PID:-}" ] || stop_server
}

# pack: SOURCE as a bundle that the server has; its digest in DIGEST.
pack() {
  tar -C "$SOURCE" --sort=name --mtime=@0 -cf "$BATS_TEST_TMPDIR/bundle.tar" .
  DIGEST="$(sha256_of "$BATS_TEST_TMPDIR/bundle.tar")"
  cp "$BATS_TEST_TMPDIR/bundle.tar" "$FOLDER/bundles/$DIGEST.tar"
}

# want IMAGE BUNDLE [LINE]…: what the server wants from now on.
want() {
  local image="$1" bundle="$2"
  shift 2
  printf 'image %s\nbundle %s\n' "$image" "$bundle" >"$FOLDER/target.new"
  [ $# = 0 ] || printf '%s\n' "$@" >>"$FOLDER/target.new"
  mv "$FOLDER/target.new" "$FOLDER/target"
}

# publish: SOURCE as the bundle that the server wants with the image that runs; its digest in DIGEST.
publish() {
  pack
  want "$KIT_IMAGE" "$DIGEST"
}

# with_parts NAME… -- TEXT: runs TEXT under dash with those parts of the agent.
with_parts() {
  local text=''
  for part in "$@"; do
    shift
    [ "$part" != -- ] || break
    text="$text. \"\$KIT_LIB/$part.sh\"
"
  done
  dash -c "$text$*"
}

start_agent() {
  PATH="$BATS_TEST_TMPDIR/nap:$PATH" dash "$KIT_LIB/kit-agent" >"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
  AGENT_PID=$!
}

stop_agent() {
  kill "$AGENT_PID"
  wait "$AGENT_PID" 2>/dev/null || true
  AGENT_PID=''
}

# nap: the agent's pauses are written down and cut short.
nap() {
  mkdir -p "$BATS_TEST_TMPDIR/nap"
  # shellcheck disable=SC2016 # for the script
  printf '#!/bin/sh\necho "$1" >>%s/naps\nexec /bin/sleep 0.02\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/nap/sleep"
  chmod +x "$BATS_TEST_TMPDIR/nap/sleep"
}

# napped COUNT: waits until the agent has paused so often.
napped() {
  touch "$BATS_TEST_TMPDIR/naps"
  until [ "$(wc -l <"$BATS_TEST_TMPDIR/naps")" -ge "$1" ]; do sleep 0.05; done
}

# becomes TEXT: waits until that is true.
becomes() {
  local left=300
  until eval "$1" 2>/dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "never: $1"; tail -n 50 "$FOLDER/reports" "$BATS_TEST_TMPDIR/log"; return 1; }
    sleep 0.05
  done
}

# heard REGEX: waits until the server has a report that fits.
heard() {
  seen "$FOLDER/reports" "$1"
}

# seen FILE REGEX: waits until a line of FILE fits.
seen() {
  local left=400
  until grep -Eq -- "$2" "$1" 2>/dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { tail -n 50 "$1" "$FOLDER/reports" "$BATS_TEST_TMPDIR/log"; return 1; }
    sleep 0.05
  done
}
