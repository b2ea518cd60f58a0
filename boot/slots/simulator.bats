#!/usr/bin/env bats
# Power cuts at every write of the slots' operations, on UEFI and on BIOS (simulator.ts).

load ../testing/machine.bash

# simulate FOLDER: both kinds of firmware side by side, in memory: the file systems in it are synced hundreds of times.
simulate() {
  # shellcheck disable=SC2016
  unshare --mount --propagation private sh -c 'mount -t tmpfs -o size=512m tmpfs "$1" || exit 1
    "$2" "$3" "$1/bios" bios >"$1/said" 2>&1 &
    "$2" "$3" "$1/uefi" uefi; status=$?
    wait $! || status=1
    cat "$1/said"; exit $status' sh "$1" "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/slots/simulator.ts"
}

@test "an installation, updates, a bundle change and a powerwash get on after a cut at every write" {
  [ "$(id -u)" -eq 0 ] || skip 'mounting needs root'
  command -v veritysetup >/dev/null || skip 'veritysetup (package cryptsetup-bin) is not here'
  unshare --mount true || skip 'no namespaces here'
  mkdir "$BATS_TEST_TMPDIR/work"
  run simulate "$BATS_TEST_TMPDIR/work"
  echo "$output"
  [ "$status" -eq 0 ]
  local points=0 line
  for line in "${lines[@]}"; do
    [[ ! "$line" =~ ^checked\ ([0-9]+)\ points ]] || points=$((points + BASH_REMATCH[1]))
  done
  [ "$points" -ge 500 ]
  echo "# $points points at which the power was cut" >&3
}
