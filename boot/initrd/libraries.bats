#!/usr/bin/env bats
# The initrd's libraries without a machine: the command line, JSON, names in bundles; each under busybox sh and dash.

load ../testing/machine.bash

setup_file() {
  make_applets
}

setup() {
  make_machine
}

GOOD_LINE="BOOT_IMAGE=vmlinuz kit.url=http://10.77.0.1:8080 kit.tls=https://10.77.0.1:8443 kit.ca=$(printf 'd%.0s' {1..64}) kit.mac=52-54-00-12-34-56 kit.boot=b-1
 kit.image=2025.11.1 kit.root-sha256=$(printf 'a%.0s' {1..64}) kit.root-size=204800
	kit.bundle=$(printf 'b%.0s' {1..64}) systemd.hostname=kit-one quiet"

DISK_LINE="kit.plan=disk kit.url=http://10.77.0.1:8080 kit.tls=https://10.77.0.1:8443 kit.ca=$(printf 'd%.0s' {1..64}) kit.mac=52-54-00-12-34-56 kit.image=2025.11.1 kit.slot=a
 kit.root-hash=$(printf 'c%.0s' {1..64}) kit.root-size=204800"

parameters_of() {
  printf '%s\n' "$1" >"$BATS_TEST_TMPDIR/cmdline"
  each_shell "read_parameters '$BATS_TEST_TMPDIR/cmdline'; check_parameters && echo \"\$$2\""
}

@test "read_parameters() takes each value when the line is good" {
  for pair in KIT_URL=http://10.77.0.1:8080 KIT_TLS=https://10.77.0.1:8443 KIT_MAC=52-54-00-12-34-56 KIT_BOOT=b-1 KIT_IMAGE=2025.11.1 \
    KIT_ROOT_SIZE=204800 KIT_HOSTNAME=kit-one; do
    parameters_of "$GOOD_LINE" "${pair%%=*}"
    [ "$output" = "${pair#*=}" ]
  done
}

@test "read_parameters() takes the last value when a key is given twice" {
  parameters_of "$GOOD_LINE kit.boot=second" KIT_BOOT
  [ "$output" = second ]
}

@test "check_parameters() refuses a value that is not of its kind, and runs nothing" {
  while IFS= read -r word; do
    parameters_of "$GOOD_LINE $word" KIT_URL
    [ "$status" -eq 1 ]
    [[ "$output" == "Cannot boot: ${word%%=*} on the kernel command line is "* ]]
    [ ! -e "$BATS_TEST_TMPDIR/pwned" ]
  done <<WORDS
kit.url=http://a/\$(touch\${IFS}$BATS_TEST_TMPDIR/pwned)
kit.url=\`touch\${IFS}$BATS_TEST_TMPDIR/pwned\`
kit.url=http://a;touch\${IFS}$BATS_TEST_TMPDIR/pwned
kit.url=ftp://10.77.0.1
kit.url=http://10.77.0.1:8080/
kit.url=-O/etc/passwd
kit.tls=http://10.77.0.1:8443
kit.tls=https://10.77.0.1:8443/x
kit.ca=DDDD
kit.ca=../ca
kit.mac=*
kit.mac=52:54:00:12:34:56
kit.boot="a
kit.boot=../../x
kit.image=../x
kit.image='
kit.root-sha256=abc
kit.root-size=1e9
kit.root-size=-1
kit.bundle=[a-z]*
kit.plan=format
kit.plan=livelive
kit.time=0800
kit.time=now
systemd.hostname=\$HOME
WORDS
}

@test "check_parameters() names every missing key of the plan at once" {
  while read -r plan keys; do
    parameters_of "quiet $plan" KIT_URL
    [ "$status" -eq 1 ]
    [ "$(sed -n 's/^Cannot boot: the kernel command line has no //p' <<<"$output" | xargs)" = "$keys" ]
  done <<'TABLE'
kit.plan=live kit.url kit.tls kit.ca kit.mac kit.image kit.root-sha256 kit.root-size kit.boot kit.bundle
kit.plan=install kit.url kit.tls kit.ca kit.mac kit.image kit.boot kit.bundle
kit.plan=powerwash-all kit.url kit.tls kit.ca kit.mac kit.image kit.boot kit.bundle
kit.plan=disk kit.url kit.tls kit.ca kit.mac kit.image kit.slot kit.root-hash kit.root-size
TABLE
  parameters_of 'quiet' KIT_URL
  [ "${#lines[@]}" -eq 9 ]
}

@test "check_parameters() takes a start from the disk without a boot and a bundle" {
  parameters_of "$DISK_LINE" KIT_SLOT
  [ "$output" = a ]
  parameters_of "$DISK_LINE kit.boot=\$(x)" KIT_SLOT
  [ "$status" -eq 1 ]
}

@test "set_clock() sets a clock that is more than a day off, and only such a one" {
  while IFS='|' read -r now server wanted; do
    : >"$BATS_TEST_TMPDIR/asked"
    each_shell "date() { if [ \"\$1\" = +%s ]; then echo $now; else echo \"date \$*\" >>'$BATS_TEST_TMPDIR/asked'; fi; }
      set_clock '$server'"
    [ "$status" -eq 0 ]
    [ "$(grep -c -- "-s @$server" "$BATS_TEST_TMPDIR/asked" || true)" -eq "$wanted" ]
  done <<'TABLE'
0|1764000000|2
1764000000|1764086401|2
1764086401|1764000000|2
1764000000|1764086400|0
1764000000||0
TABLE
}

@test "json_string() writes what JSON.parse() reads back" {
  while IFS='|' read -r raw wanted; do
    each_shell "json_string \"\$(printf '$raw')\""
    [ "$output" = "$wanted" ] || { echo "$raw gave $output" && false; }
  done <<'TABLE'
plain text 1.5|"plain text 1.5"
|""
say "hi"|"say \"hi\""
back\\slash|"back\\slash"
a\nb\tc|"a\nb\u0009c"
\001\033[0m\177|"\u0001\u001b[0m\u007f"
$HOME `x`|"$HOME `x`"
\303\274|"\u00fc"
\342\202\254|"\u20ac"
\360\237\230\200|"\ud83d\ude00"
\377x|"\ufffdx"
\303x|"\ufffdx"
x\342\202|"x\ufffd"
\300\200|"\ufffd"
\355\240\200|"\ufffd"
\364\220\200\200|"\ufffd"
\202|"\ufffd"
TABLE
}

@test "report() queues without a network, and bounds the log" {
  head -c 20000 /dev/urandom >"$BATS_TEST_TMPDIR/log"
  each_shell "report 40-image failed 32 'no \"luck\"' '$BATS_TEST_TMPDIR/log'; deliver"
  for body in "$KIT_RUN"/queue/0*.events; do
    [ "$(stat -c %s "$body")" -lt 16384 ]
    grep -q '^{"boot":"boot-1","step":"40-image","status":"failed","seconds":3.2,"message":"no \\"luck\\"","log":"' "$body"
  done
}

@test "say() does not fail for a console that cannot be written to, whichever it is" {
  for console in tty0 ttyS0 kmsg; do
    rm -rf "$KIT_DEV/$console" && mkdir "$KIT_DEV/$console"
    each_shell "set -e; say hello; echo 'and on'"
    [ "$status" -eq 0 ]
    [ "$output" = 'and on' ]
  done
  : >"$KIT_SYS/class/tty/console/active"
  each_shell "set -e; say hello; echo 'and on'"
  [ "$output" = 'and on' ]
}

@test "say() writes one tidy line to every console" {
  each_shell "KIT_STEP=40-image; progress 'half way'"
  for console in tty0 ttyS0; do
    grep -Eq '^kit: \[ *[0-9]+\.[0-9]s\] 40-image: half way$' "$KIT_DEV/$console"
  done
}

@test "rescue-prompt.sh waits its time out on a console that has nothing behind it" {
  for shell in dash "$BUSYBOX sh"; do
    started="$(date +%s%N)"
    run env PATH="$APPLETS:$PATH" $shell "$KIT_LIB/rescue-prompt.sh" 20-network 1 </dev/null
    [ "$status" -eq 0 ]
    [ $(($(date +%s%N) - started)) -ge 900000000 ]
  done
}

# failed_boot PLAN TEXT: after_failure() for a step that has failed, after TEXT, under each shell.
failed_boot() {
  KIT_PLAN="$1"
  mkdir -p "$KIT_RUN/log" "$BATS_TEST_TMPDIR/proc/self" "$KIT_RUN/overlay/slots"
  echo '12.34 1' >"$BATS_TEST_TMPDIR/proc/uptime"
  echo "1 1 0:1 / $KIT_RUN/overlay rw - ext4 x rw" >"$BATS_TEST_TMPDIR/proc/self/mountinfo"
  echo 'Cannot start: no luck' >"$KIT_RUN/failure"
  each_shell "KIT_SLOT=a KIT_PROC='$BATS_TEST_TMPDIR/proc' KIT_STEP=61-disk-root; $2; after_failure 61-disk-root"
}

@test "after_failure() tries again on the spot where that may help, and reboots where it cannot" {
  while IFS='|' read -r plan cmdline before wanted; do
    rm -rf "$KIT_RUN"
    mkdir -p "$KIT_RUN" "$BATS_TEST_TMPDIR/proc"
    echo "$cmdline" >"$BATS_TEST_TMPDIR/proc/cmdline"
    failed_boot "$plan" "$before"
    [ "$status" -eq "$wanted" ] || { echo "$plan $cmdline $before" && false; }
  done <<'TABLE'
live|quiet|:|0
install|quiet|:|0
install|quiet|touch "$KIT_RUN/gone"|1
live|quiet|touch "$KIT_RUN/gone"|1
disk|quiet kit.trial=1|:|1
disk|quiet|echo damaged >"$KIT_RUN/condemned"|1
disk|quiet|touch "$KIT_RUN/net"|0
TABLE
}

@test "after_failure() leaves word on kit-overlay of a failed trial, which takes no tries" {
  echo 'kit.trial=1' | install -D /dev/stdin "$BATS_TEST_TMPDIR/proc/cmdline"
  mkdir -p "$KIT_RUN/overlay/slots"
  printf 'state written\nimage 7\n' >"$KIT_RUN/overlay/slots/a"
  failed_boot disk :
  [ "$(cat "$KIT_RUN/overlay/slots/a")" = 'state written
image 7
failure 61-disk-root: Cannot start: no luck' ]
}

@test "after_failure() gets a boot id from the server for a good slot, and tells it what failed" {
  "$BUSYBOX" wget -q -T 1 -O /dev/null http://127.0.0.1:1/ 2>/dev/null || [ $? -ne 139 ] || skip "the wget of $BUSYBOX crashes"
  give_identity
  start_server "$BATS_TEST_TMPDIR/server"
  KIT_TLS="$SERVER_URL" KIT_BOOT=''
  echo quiet | install -D /dev/stdin "$BATS_TEST_TMPDIR/proc/cmdline"
  failed_boot disk 'echo address 10.77.0.9 >"$KIT_RUN/net"'
  stop_server
  [ "$status" -eq 0 ]
  [ "$(cat "$KIT_RUN/boot-id")" = from-disk-1 ]
  grep -q '^boots {"slot":"a"}$' "$BATS_TEST_TMPDIR/server/reports"
  grep -q '^events {"boot":"from-disk-1","step":"61-disk-root","status":"failed","message":"Cannot start: no luck"}$' "$BATS_TEST_TMPDIR/server/reports"
  grep -q '^check-in {"boot":"from-disk-1","phase":"failed","image":"2025.11.1","address":"10.77.0.9","slot":"a","reason":"Cannot start: no luck"}$' "$BATS_TEST_TMPDIR/server/reports"
}

@test "check_in_body() has the slots while kit-esp and kit-overlay are mounted, in steps that know of slots" {
  make_machine
  export KIT_PROC="$BATS_TEST_TMPDIR/proc" KIT_ESP="$KIT_RUN/esp" KIT_OVERLAY="$KIT_RUN/overlay"
  mkdir -p "$KIT_PROC/self" "$KIT_ESP/kit/grub" "$KIT_OVERLAY/slots"
  printf '1 1 0:1 / %s rw - vfat /dev/vda2 rw\n1 1 0:2 / %s rw - ext4 /dev/vda7 rw\n' "$KIT_ESP" "$KIT_OVERLAY" >"$KIT_PROC/self/mountinfo"
  printf 'state written\nimage 1\nfailure 62-persist: no room\n' >"$KIT_OVERLAY/slots/a"
  printf 'try=a\ntries=0\n' >"$KIT_ESP/kit/grub/grubenv"
  body='{"boot":"boot-1","phase":"failed","image":"2025.11.1"'
  each_shell '. "$KIT_LIB/slot-json.sh"; check_in_body failed "no luck"'
  [ "$output" = "$body"',"slots":{"a":{"state":"bad","image":"1","tries":0,"reason":"did not come up in 3 tries: 62-persist: no room"},"b":{"state":"empty"}},"reason":"no luck"}' ]
  each_shell 'check_in_body failed'
  [ "$output" = "$body}" ]
  sed -i 2d "$KIT_PROC/self/mountinfo"
  each_shell '. "$KIT_LIB/slot-json.sh"; check_in_body failed'
  [ "$output" = "$body}" ]
}
