# Helpers of the bats tests in boot/: the scripts under both shells, with busybox's own applets.
# shellcheck shell=bash

BOOT_FOLDER="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
MAC='52-54-00-12-34-56'

# find_busybox: the initrd's own, out of the newest image that was built here, else the host's; its path in BUSYBOX.
find_busybox() {
  local image
  image="$(find "${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images" -name root.squashfs -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)"
  BUSYBOX="${KIT_BUSYBOX:-}"
  if [ -z "$BUSYBOX" ] && [ -n "$image" ] &&
    unsquashfs -quiet -no-progress -dest "$BATS_FILE_TMPDIR/from-image" "$image" usr/bin/busybox >/dev/null 2>&1; then
    BUSYBOX="$BATS_FILE_TMPDIR/from-image/usr/bin/busybox"
  fi
  [ -n "$BUSYBOX" ] || BUSYBOX="$(command -v busybox)"
  export BUSYBOX
}

# make_applets: a folder with a link per busybox applet, and to curl and openssl, as /bin of the initrd; its path in APPLETS.
make_applets() {
  find_busybox
  APPLETS="$BATS_FILE_TMPDIR/applets"
  mkdir -p "$APPLETS"
  for applet in $("$BUSYBOX" --list); do ln -sf "$BUSYBOX" "$APPLETS/$applet"; done
  for program in curl openssl; do ln -sf "$(command -v "$program")" "$APPLETS/$program"; done
  export APPLETS
}

# make_machine: an empty machine below BATS_TEST_TMPDIR, and the environment that points the scripts there.
make_machine() {
  export KIT_LIB="$BOOT_FOLDER/initrd" KIT_RUN="$BATS_TEST_TMPDIR/run" KIT_DEV="$BATS_TEST_TMPDIR/dev"
  export KIT_PLAN=live KIT_URL='http://127.0.0.1:1' KIT_TLS='http://127.0.0.1:1' KIT_MAC="$MAC" KIT_BOOT='boot-1' KIT_IMAGE='2025.11.1' KIT_HOSTNAME='kit-one'
  KIT_CA="$(printf 'd%.0s' {1..64})"
  export KIT_CA
  mkdir -p "$KIT_RUN" "$KIT_DEV" "$BATS_TEST_TMPDIR/sys/class/tty/console"
  export KIT_SYS="$BATS_TEST_TMPDIR/sys"
  echo 'tty0 ttyS0' >"$KIT_SYS/class/tty/console/active"
  touch "$KIT_DEV/tty0" "$KIT_DEV/ttyS0" "$KIT_DEV/kmsg"
}

# each_shell TEXT: runs TEXT, with the libraries of the initrd loaded, under busybox and under dash; the outputs must
# agree. Sets status and output as run does.
each_shell() {
  local text
  text="$(printf '. "$KIT_LIB/%s.sh"\n' lib json parameters clock report run bundle ask disk identity kept slots loader loader-uefi loader-bios failure)
$1"
  run env PATH="$APPLETS:$PATH" dash -c "$text"
  local dash_status="$status" dash_output="$output"
  run env PATH="$APPLETS:$PATH" "$BUSYBOX" sh -c "$text"
  [ "$status" -eq "$dash_status" ] || { echo "dash: $dash_status $dash_output, busybox: $status $output" && return 99; }
  [ "$output" = "$dash_output" ] || { echo "dash: $dash_output, busybox: $output" && return 99; }
}

# make_ca: for the test server, in the folder KEYS of this file's tests; its fingerprint in KIT_CA.
make_ca() {
  export KEYS="$BATS_FILE_TMPDIR/keys" KIT_CA
  mkdir -p "$KEYS"
  [ -s "$KEYS/ca.pem" ] || openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=KatesKit tests' -days 30 \
    -addext keyUsage=critical,keyCertSign -keyout "$KEYS/ca.key" -out "$KEYS/ca.pem" 2>/dev/null
  KIT_CA="$(openssl x509 -in "$KEYS/ca.pem" -outform DER | sha256sum | cut -d ' ' -f 1)"
}

# give_identity: the machine has proved who it is, as far as the machine knows.
give_identity() {
  local made="$BATS_FILE_TMPDIR/identity"
  make_ca
  if [ ! -s "$made/tier" ]; then
    mkdir -p "$made"
    cp "$KEYS/ca.pem" "$made/"
    openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$KIT_MAC" -keyout "$made/key.pem" 2>/dev/null |
      openssl x509 -req -days 8 -CA "$KEYS/ca.pem" -CAkey "$KEYS/ca.key" -CAcreateserial -out "$made/certificate.pem" 2>/dev/null
    echo "$KIT_MAC" >"$made/mac"
    echo paired >"$made/tier"
  fi
  mkdir -p "$KIT_RUN"
  cp -r "$made" "$KIT_RUN/identity"
}

# make_root DIRECTORY: the root of an image that 70-handover would hand over to.
make_root() {
  local library
  mkdir -p "$1/bin" "$1/sbin" "$1/etc" "$1/run" "$1/var/lib"
  cp "$BUSYBOX" "$1/bin/sh"
  { ldd "$BUSYBOX" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$1${library%/*}" && cp -L "$library" "$1$library"
  done
  ln -sf /bin/sh "$1/sbin/init"
}

# start_server FOLDER [ADDRESS] [PORT]: the test server, with the CA in KEYS; its URL in SERVER_URL, its process in SERVER_PID.
start_server() {
  local folder="$1"
  mkdir -p "$folder/images" "$folder/bundles"
  rm -f "$folder/port"
  # fd 3 is bats' own; a background process that keeps it open keeps bats waiting.
  "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/testing/machine-server.ts" "$folder" "${2:-127.0.0.1}" "${3:-0}" "${KEYS:-$folder/keys}" 3>&- &
  SERVER_PID=$!
  until [ -s "$folder/port" ]; do sleep 0.05; done
  SERVER_URL="http://${2:-127.0.0.1}:$(cat "$folder/port")"
}

stop_server() {
  kill "$SERVER_PID" 2>/dev/null
  wait "$SERVER_PID" 2>/dev/null || true
}

sha256_of() {
  sha256sum <"$1" | cut -d ' ' -f 1
}
