# Helpers of the bats tests of slots: the library under both shells, each time on a fresh machine of plain folders.
# shellcheck shell=bash

load ../testing/machine.bash

ROOT_HASH="$(printf 'a%.0s' {1..64})"
BUNDLE_1="$(printf '1%.0s' {1..64})"
BUNDLE_2="$(printf '2%.0s' {1..64})"
export ROOT_HASH BUNDLE_1 BUNDLE_2

# fresh_machine uefi|bios: an empty kit-esp and kit-overlay; firmware variables are plain files.
fresh_machine() {
  local machine="$BATS_TEST_TMPDIR/machine"
  rm -rf "$machine"
  mkdir -p "$machine"/{run,dev/mapper,sys/class/block,esp,overlay,persist,proc,bin}
  # Without proc/sys: no test empties the page cache of the machine it runs on.
  ln -s /proc/self "$machine/proc/self"
  echo 'kit.plan=disk' >"$machine/proc/cmdline"
  if [ "$1" = uefi ]; then
    mkdir -p "$machine/sys/firmware/efi/efivars"
    touch "$machine/sys/firmware/efi/efivars/LoaderInfo"
  fi
  # Never the firmware of the machine that runs the tests.
  stand_in efibootmgr 'exit 1'
  export MACHINE="$machine" KIT_RUN="$machine/run" KIT_DEV="$machine/dev" KIT_SYS="$machine/sys" KIT_PROC="$machine/proc"
  export KIT_ESP="$machine/esp" KIT_OVERLAY="$machine/overlay" KIT_PERSIST="$machine/persist"
  export KIT_LIB="$BOOT_FOLDER/node/root/usr/lib/kit"
}

# stand_in NAME TEXT: a program of that name in the machine's PATH.
stand_in() {
  printf '#!/bin/sh\n%s\n' "$2" >"$BATS_TEST_TMPDIR/machine/bin/$1"
  chmod +x "$BATS_TEST_TMPDIR/machine/bin/$1"
}

# on_machine uefi|bios TEXT: TEXT with the library loaded, under dash and under busybox, each on a fresh machine that the
# function prepare, if there is one, has made ready; the outputs must agree. Sets status and output as run does.
on_machine() {
  local text shell first_status='' first_output=''
  text="$(printf '. "$KIT_LIB/%s.sh"\n' disk slots loader loader-uefi loader-bios manifest slot-write)
$2"
  for shell in dash busybox; do
    fresh_machine "$1"
    if declare -F prepare >/dev/null; then prepare; fi
    if [ "$shell" = dash ]; then
      run env PATH="$MACHINE/bin:$PATH" dash -eu -c "$text"
      first_status="$status" first_output="$output"
    else
      run env PATH="$MACHINE/bin:$APPLETS" "$BUSYBOX" sh -eu -c "$text"
    fi
  done
  [ "$status" = "$first_status" ] && [ "$output" = "$first_output" ] && return 0
  echo "dash: $first_status $first_output"
  echo "busybox: $status $output"
  return 99
}

# record SLOT [LINE…]: a written slot, with these lines instead of the usual ones.
record() {
  local slot="$1" line
  mkdir -p "$KIT_OVERLAY/slots"
  printf 'state written\nimage 1\nepoch 1\nroot-hash %s\nroot-size 4096\nbundle %s\ngeneration 1\narguments quiet\n' "$ROOT_HASH" "$BUNDLE_1" \
    >"$KIT_OVERLAY/slots/$slot"
  for line in "${@:2}"; do
    sed -i "/^${line%% *} /d" "$KIT_OVERLAY/slots/$slot"
    [ "$line" = "${line%% *}" ] || echo "$line" >>"$KIT_OVERLAY/slots/$slot"
  done
}

# partition NAME LABEL [START] [MIB]: a partition of vda, a plain file.
partition() {
  local folder="$KIT_SYS/class/block"
  mkdir -p "$folder/vda/$1"
  ln -sfn "vda/$1" "$folder/$1"
  printf 'DEVNAME=%s\nPARTNAME=%s\n' "$1" "$2" >"$folder/$1/uevent"
  echo "${1#vda}" >"$folder/$1/partition"
  echo "${3:-0}" >"$folder/$1/start"
  truncate -s "${4:-1}M" "$KIT_DEV/$1"
}
