#!/usr/bin/env bats
# Power cuts at every write of the slots' operations, on UEFI and on BIOS (simulator.ts).

load ../testing/machine.bash

@test "an installation, updates, a bundle change and a powerwash get on after a cut at every write" {
  [ "$(id -u)" -eq 0 ] || skip 'mounting needs root'
  command -v veritysetup >/dev/null || skip 'veritysetup (package cryptsetup-bin) is not here'
  unshare --mount true || skip 'no namespaces here'
  mkdir "$BATS_TEST_TMPDIR/work"
  # In memory: the file systems in it are synced hundreds of times.
  run timeout -k 5 300 unshare --mount --propagation private sh -c 'mount -t tmpfs -o size=512m tmpfs "$1" && exec "$2" "$3" "$1/work"' \
    sh "$BATS_TEST_TMPDIR/work" "$BOOT_FOLDER/../node_modules/.bin/node" "$BOOT_FOLDER/slots/simulator.ts"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "${lines[-1]}" =~ ^checked\ ([0-9]+)\ points ]]
  [ "${BASH_REMATCH[1]}" -ge 500 ]
  echo "# ${lines[-1]}" >&3
}
