#!/usr/bin/env bats
# The library of the machine's identity, under the initrd's shell and the agent's, against a real HTTPS server with a real CA;
# with a real TPM in software, in the root of the image that was built here last.

load ../testing/machine.bash

setup_file() {
  make_applets
}

setup() {
  make_machine
  make_ca
  FOLDER="$BATS_TEST_TMPDIR/server"
  mkdir -p "$FOLDER"
  "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/testing/identity-server.ts" "$FOLDER" "$KEYS" 3>&- &
  SERVER_PID=$!
  until [ -s "$FOLDER/port" ]; do sleep 0.05; done
  KIT_URL="http://127.0.0.1:$(cat "$FOLDER/port")" KIT_TLS="https://127.0.0.1:$(cat "$FOLDER/tls-port")"
  KIT_IDENTITY="$KIT_RUN/identity" KIT_PERSIST="$BATS_TEST_TMPDIR/persist"
  # Where /persist is mounted, as far as the library can tell.
  export KIT_PROC="$BATS_TEST_TMPDIR/proc" KIT_URL KIT_TLS KIT_IDENTITY KIT_PERSIST FOLDER
  mkdir -p "$KIT_PROC/self" "$KIT_PERSIST"
  ln -s /proc/uptime "$KIT_PROC/uptime"
  echo "1 1 0:1 / $KIT_PERSIST rw - ext4 x rw" >"$KIT_PROC/self/mountinfo"
}

teardown() {
  [ -z "${SERVER_PID:-}" ] || stop_server
  stop_tpm
}

LIBRARY='. "$KIT_LIB/json.sh"; . "$KIT_LIB/disk.sh"; . "$KIT_LIB/identity.sh"; identity_says() { echo "says $*"; }
'

# in_initrd TEXT, in_agent TEXT: with the library, under the shell of either; sets status and output as run does.
in_initrd() {
  run env PATH="$APPLETS:$PATH" "$BUSYBOX" sh -c "$LIBRARY$1"
}

in_agent() {
  run dash -c "$LIBRARY$1"
}

# both TEXT: in each, from nothing; TEXT succeeds in both.
both() {
  local shell
  for shell in in_initrd in_agent; do
    rm -rf "$KIT_IDENTITY"
    "$shell" "$1"
    [ "$status" -eq 0 ] || { echo "$shell: $status $output" && return 1; }
  done
}

# last_line: of what it printed, which is the reason when it failed.
last_line() {
  tail -n 1 <<<"$output"
}

@test "pairing_code() is the server's" {
  local field='s/.*": "\(.*\)".*/\1/p' count=0
  while read -r mac && read -r key && read -r ca && read -r mine && read -r theirs && read -r code; do
    both "pairing_code $(tr : - <<<"$mac") $key $ca $mine $theirs"
    [ "$output" = "$code" ]
    count=$((count + 1))
  done < <(sed -n "$field" "$BOOT_FOLDER/../server/machine/testdata/pairing-code.json")
  [ "$count" -ge 3 ]
}

@test "kit_curl() shows the machine's certificate, and believes the CA that kit.ca names" {
  both 'get_ca && make_key && prove_identity && kit_curl -sS "$KIT_TLS/x" && kit_curl -sS "$KIT_URL/x" && anonymous_curl -sS "$KIT_TLS/x"'
  [ "$output" = '52:54:00:12:34:56
-
-' ]
  [ "$(stat -c %a "$KIT_IDENTITY" "$KIT_IDENTITY"/{ca,key,certificate}.pem | xargs)" = '700 600 600 600' ]
  # Another CA in the place of ours.
  openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=KatesKit tests' -keyout /dev/null -out "$KIT_IDENTITY/ca.pem" 2>/dev/null
  in_agent 'kit_curl -sS "$KIT_TLS/x"'
  [ "$status" -eq 60 ]
  rm "$KIT_IDENTITY/ca.pem"
  in_agent 'kit_curl -sS "$KIT_TLS/x"'
  [ "$status" -ne 0 ]
  [ "$(wc -l <"$FOLDER/tls")" -eq 4 ]
}

@test "kit_curl() does not believe the public CAs" {
  in_agent 'curl() { printf "%s\n" "$*"; }; kit_curl https://x/'
  [ "$output" = "-q --noproxy * --cacert $KIT_IDENTITY/ca.pem --capath $KIT_IDENTITY/nothing https://x/" ]
}

@test "get_ca() takes one certificate, and only the one that kit.ca names" {
  openssl req -x509 -newkey rsa:2048 -nodes -subj '/CN=in between' -keyout /dev/null -out "$BATS_TEST_TMPDIR/other.pem" 2>/dev/null
  cat "$KEYS/ca.pem" "$BATS_TEST_TMPDIR/other.pem" >"$FOLDER/ca.pem"
  both 'get_ca && grep -c BEGIN "$KIT_IDENTITY/ca.pem" && [ "$(certificate_fingerprint "$KIT_IDENTITY/ca.pem")" = "$KIT_CA" ]'
  [ "$output" = 1 ]
  cat "$BATS_TEST_TMPDIR/other.pem" "$KEYS/ca.pem" >"$FOLDER/ca.pem"
  rm -rf "$KIT_IDENTITY"
  in_initrd get_ca
  [ "$status" -eq 1 ]
  [[ "$(last_line)" == "Cannot believe the server at $KIT_URL: its CA has the fingerprint "*", and kit.ca is $KIT_CA" ]]
  [ ! -e "$KIT_IDENTITY/ca.pem" ]
  echo nonsense >"$FOLDER/ca.pem"
  in_initrd get_ca
  [ "$status" -eq 1 ]
  KIT_URL=http://127.0.0.1:1 in_initrd get_ca
  [ "$status" -eq 2 ]
}

@test "prove_identity() names the machine's cards, and goes by the MAC the server says" {
  for card in 'eth0 52:54:00:12:34:56 1 0 device' 'eth1 52:54:00:12:34:57 1 0 device' 'br0 52:54:00:12:34:58 1 0 bridge' \
    'bond0 52:54:00:12:34:59 1 3 device' 'ib0 80:00:02:08:fe:80 32 0 device'; do
    read -r name mac type assigned kind <<<"$card"
    mkdir -p "$KIT_SYS/class/net/$name/$kind"
    echo "$mac" >"$KIT_SYS/class/net/$name/address"
    echo "$type" >"$KIT_SYS/class/net/$name/type"
    echo "$assigned" >"$KIT_SYS/class/net/$name/addr_assign_type"
  done
  mkdir -p "$KIT_SYS/class/dmi/id"
  echo '4C4C4544-0000-2010-8020-B4C04F303132' >"$KIT_SYS/class/dmi/id/product_uuid"
  echo 'machine 52:54:00:12:34:57' >"$FOLDER/identity"
  both 'get_ca && make_key && prove_identity && cat "$KIT_IDENTITY/mac" "$KIT_IDENTITY/tier"'
  [ "$output" = '52-54-00-12-34-57
paired' ]
  grep -q '"macs":\["52:54:00:12:34:56","52:54:00:12:34:57"\],"uuid":"4C4C4544-0000-2010-8020-B4C04F303132","commitment":"[0-9a-f]\{64\}"}$' "$FOLDER/identity-asked"
}

# proving RULE TEXT: TEXT in the initrd, with prove_identity in the background of it, by that rule.
proving() {
  echo "$1" >"$FOLDER/identity"
  rm -rf "$KIT_IDENTITY" "$FOLDER/confirmed" "$FOLDER/code"
  in_initrd "get_ca && make_key || exit
    (until [ -s '$FOLDER/code' ]; do sleep 0.1; done; $2) >/dev/null 2>&1 &
    person=\$!
    prove_identity
    status=\$?
    kill \$person 2>/dev/null
    exit \$status"
}

@test "prove_identity() shows the code that the server sees, and waits for a person" {
  proving pair "sleep 3; touch '$FOLDER/confirmed'"
  [ "$status" -eq 0 ] || { echo "$output" && false; }
  code="$(cat "$FOLDER/code")"
  [ "${lines[0]}" = "says pairing code $code: kateskit pair 52:54:00:12:34:56 $code" ]
  # As often as the server answers, but not more often than every two seconds.
  [ "${#lines[@]}" -ge 2 ]
  [ "$(sort -u <<<"$output" | wc -l)" -eq 1 ]
  [ -s "$KIT_IDENTITY/certificate.pem" ]
  proving 'pair known' "touch '$FOLDER/confirmed'"
  [ "${lines[0]}" = "says pairing code $(cat "$FOLDER/code"): kateskit pair 52:54:00:12:34:56 $(cat "$FOLDER/code") --replace" ]
}

@test "prove_identity() gives up for each reason, with the reason last" {
  while IFS='|' read -r rule wanted reason; do
    proving "$rule" "touch '$FOLDER/confirmed'"
    [ "$status" -eq "$wanted" ] || { echo "$rule: $status $output" && false; }
    # shellcheck disable=SC2053 # a pattern
    [[ "$(last_line)" == $reason ]] || { echo "$rule: $output" && false; }
    [ ! -e "$KIT_IDENTITY/certificate.pem" ]
    [ ! -e "$KIT_IDENTITY/exchange" ]
  done <<'TABLE'
refuse its key is "known" as that of another machine|1|Cannot prove who this machine is: its key is "known" as that of another machine (ask a person)
close the code was wrong three times|1|Cannot prove who this machine is: the code was wrong three times
nonces|1|Cannot prove who this machine is: the server changed its nonce
stranger|1|Cannot prove who this machine is: the certificate from the server is not one for its key
silent|2|Cannot reach the server at https://127.0.0.1:*: curl: (*
TABLE
  echo pair >"$FOLDER/identity"
  rm -f "$FOLDER/confirmed"
  in_agent 'get_ca && make_key && prove_identity 0'
  [ "$status" -eq 1 ]
  [ "$output" = 'Cannot prove who this machine is: nobody has confirmed its code' ]
}

@test "certificate_is_due() after half of its life, clock_is_off() outside of it" {
  mkdir -p "$KIT_IDENTITY"
  while read -r from until due off; do
    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout "$KIT_IDENTITY/key.pem" -out "$BATS_TEST_TMPDIR/self.pem" 2>/dev/null
    # openssl 3.0 cannot date a certificate: its `ca` can.
    (cd "$BATS_TEST_TMPDIR" && rm -f index* && touch index && openssl ca -batch -notext -selfsign -keyfile "$KIT_IDENTITY/key.pem" \
      -config <(printf '[ca]\ndefault_ca=x\n[x]\ndatabase=index\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n') \
      -in <(openssl x509 -x509toreq -in self.pem -signkey "$KIT_IDENTITY/key.pem" 2>/dev/null) -startdate "$(date -u -d "$from" +%Y%m%d%H%M%SZ)" \
      -enddate "$(date -u -d "$until" +%Y%m%d%H%M%SZ)" -out "$KIT_IDENTITY/certificate.pem" 2>/dev/null)
    for shell in in_initrd in_agent; do
      "$shell" 'certificate_is_due; due=$?; clock_is_off; echo "$due $?"'
      [ "$output" = "$due $off" ] || { echo "$from $until: $output" && false; }
    done
  done <<'TABLE'
-1day +7days 1 1
-4days +4days+1hour 1 1
-4days +4days-1hour 0 1
-8days -1hour 0 0
+1hour +8days 1 0
TABLE
  rm "$KIT_IDENTITY/certificate.pem"
  in_agent 'certificate_is_due; due=$?; clock_is_off; echo "$due $?"'
  [ "$output" = '0 1' ]
}

@test "keep_identity() and load_identity() bring it through a boot, whenever the power goes" {
  both 'get_ca && make_key && prove_identity && keep_identity'
  kept="$KIT_PERSIST/machine/identity"
  [ "$(stat -c %a "$kept" "$kept/key.pem" "$kept/ca.pem" | xargs)" = '700 600 600' ]
  key="$(cat "$kept/key.pem")"
  export KIT_PLAN=disk
  both 'load_identity && has_identity && cmp "$KIT_IDENTITY/key.pem" "$KIT_PERSIST/machine/identity/key.pem" && kit_curl -sS "$KIT_TLS/x"'
  [ "$output" = 52:54:00:12:34:56 ]
  # Nothing is written when nothing has changed.
  inode="$(stat -c %i "$kept")"
  both 'load_identity && keep_identity'
  [ "$(stat -c %i "$kept")" = "$inode" ]
  # While the new one took the place of the old one: the new one was complete.
  cp -r "$kept" "$kept.new"
  mv "$kept" "$kept.old"
  echo broken >"$kept.old/key.pem"
  both 'load_identity'
  [ "$(cat "$KIT_IDENTITY/key.pem")" = "$key" ]
  in_initrd 'echo paired-anew >"$KIT_IDENTITY/tier"; keep_identity'
  [ "$(ls "$KIT_PERSIST/machine")" = identity ]
  [ "$(cat "$kept/tier")" = paired-anew ]
  # A new one that was not complete yet.
  mkdir "$kept.new"
  echo broken >"$kept.new/key.pem"
  both 'load_identity && keep_identity'
  [ "$(cat "$KIT_IDENTITY/key.pem")" = "$key" ]
}

@test "load_identity() leaves what is of no use: no key, a broken one, a certificate by the CA of another server" {
  both 'load_identity 2>&1 | grep -x "Cannot load an identity: none is kept"'
  both 'get_ca && make_key && prove_identity && keep_identity'
  KIT_CA="$(printf 'e%.0s' {1..64})" both 'load_identity && ls "$KIT_IDENTITY"'
  [ "$output" = key.pem ]
  # On a start from the disk the kept CA counts, also against another kit.ca.
  KIT_PLAN=disk KIT_CA="$(printf 'e%.0s' {1..64})" both 'load_identity && has_identity'
  head -c 400 "$KIT_PERSIST/machine/identity/key.pem" >"$BATS_TEST_TMPDIR/half"
  cp "$BATS_TEST_TMPDIR/half" "$KIT_PERSIST/machine/identity/key.pem"
  in_initrd load_identity
  [ "$status" -eq 1 ]
  [[ "$(last_line)" == 'Cannot use the key that is kept: '* ]]
  [ ! -e "$KIT_IDENTITY/key.pem" ]
  : >"$KIT_PROC/self/mountinfo"
  in_initrd 'make_key && keep_identity'
  [ "$status" -eq 0 ]
  cmp "$BATS_TEST_TMPDIR/half" "$KIT_PERSIST/machine/identity/key.pem"
}

# find_image_root: the root of the newest image that was built here, in ROOT; the test is skipped when it has no TPM's tools.
find_image_root() {
  local image
  [ "$(id -u)" -eq 0 ] || skip 'chroot needs root'
  command -v swtpm >/dev/null || skip 'no swtpm here'
  unshare --mount true || skip 'no namespaces here'
  image="$(find "${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images" -name root.squashfs -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)"
  [ -n "$image" ] || skip 'no image is built (assets/image/build.sh)'
  ROOT="$BATS_FILE_TMPDIR/root"
  [ -d "$ROOT" ] || unsquashfs -quiet -no-progress -dest "$ROOT" "$image" >/dev/null 2>&1 || true
  [ -x "$ROOT/usr/bin/tpm2" ] || skip 'the image that was built last has no tpm2-tools'
}

stop_tpm() {
  [ -z "${TPM_PID:-}" ] || kill "$TPM_PID" 2>/dev/null || true
  TPM_PID=''
}

# start_tpm NAME: a TPM; KIT_TCTI leads to it. In place of the kernel's resource manager, a tpm2 that makes room first.
start_tpm() {
  local folder="$BATS_TEST_TMPDIR/$1"
  stop_tpm
  mkdir -p "$folder/state" "$BATS_TEST_TMPDIR/room"
  swtpm socket --tpm2 --tpmstate "dir=$folder/state" --server "type=unixio,path=$folder/tpm" --ctrl "type=unixio,path=$folder/tpm.ctrl" \
    --flags not-need-init,startup-clear >"$folder/log" 2>&1 3>&- &
  TPM_PID=$!
  until [ -S "$folder/tpm" ]; do sleep 0.05; done
  export KIT_TCTI="swtpm:path=$folder/tpm"
  touch "$KIT_DEV/tpmrm0"
  printf '#!/bin/sh\n/usr/bin/tpm2 flushcontext -Q -t\n/usr/bin/tpm2 flushcontext -Q -l\nexec /usr/bin/tpm2 "$@"\n' >"$BATS_TEST_TMPDIR/room/tpm2"
  chmod +x "$BATS_TEST_TMPDIR/room/tpm2"
}

# in_image TEXT: with the library, in the root of the image, which sees the folder of this test.
in_image() {
  export KIT_LIB="$BATS_TEST_TMPDIR/lib" BATS_TEST_TMPDIR ROOT TEXT="$LIBRARY$1"
  cp -rL "$BOOT_FOLDER/initrd" "$KIT_LIB"
  run unshare --mount sh -c 'mkdir -p "$ROOT$BATS_TEST_TMPDIR" && mount --bind "$BATS_TEST_TMPDIR" "$ROOT$BATS_TEST_TMPDIR" &&
    mount --bind /dev "$ROOT/dev" && mount -t proc proc "$ROOT/proc" &&
    exec chroot "$ROOT" /usr/bin/env PATH="$BATS_TEST_TMPDIR/room:/usr/bin:/bin" dash -c "$TEXT"'
}

@test "a key in the TPM proves itself, signs for TLS, and is of no use to another TPM" {
  find_image_root
  start_tpm one
  in_image 'get_ca && make_key && is_tpm_key && prove_identity && tpm flushcontext -t && kit_curl -sS "$KIT_TLS/x" && keep_identity && ls "$KIT_IDENTITY"'
  [ "$status" -eq 0 ] || { echo "$output" && false; }
  [ "$(grep -v '^says' <<<"$output" | xargs)" = '52:54:00:12:34:56 ca.pem certificate.pem ek.public key.pem key.private key.public mac openssl.cnf proved tier' ]
  # It has answered what only that TPM with that key can.
  grep -q '/identity/[0-9a-f]* {"proof":"[0-9a-f]\{64\}"}$' "$FOLDER/identity-asked"
  [ "$(stat -c %a "$KIT_IDENTITY"/* | sort -u)" = 600 ]
  rm -rf "$KIT_IDENTITY"
  in_image 'KIT_PLAN=disk; load_identity && has_identity && tpm flushcontext -t && kit_curl -sS "$KIT_TLS/x" && prove_identity'
  [ "$status" -eq 0 ] || { echo "$output" && false; }
  start_tpm two
  rm -rf "$KIT_IDENTITY"
  in_image 'KIT_PLAN=disk; load_identity'
  [ "$status" -eq 1 ]
  [[ "$(last_line)" == 'Cannot use the key that is kept: '* ]]
  [ ! -e "$KIT_IDENTITY/key.pem" ]
}

@test "a TPM that does not work is said to, and the key lies in a file" {
  find_image_root
  export KIT_TCTI="swtpm:path=$BATS_TEST_TMPDIR/nothing"
  touch "$KIT_DEV/tpmrm0"
  in_image 'get_ca && make_key && prove_identity && ! is_tpm_key && kit_curl -sS "$KIT_TLS/x"'
  [ "$status" -eq 0 ] || { echo "$output" && false; }
  [[ "${lines[0]}" == 'says the TPM does not work ('*'): the key lies in a file' ]]
  [ "$(last_line)" = 52:54:00:12:34:56 ]
}
