#!/usr/bin/env bats
# What the image build does beside building: which images it forgets, and what it says where it cannot build.

setup() {
  recipe=$BATS_TEST_DIRNAME
}

# folders <name=age in days…>
folders() {
  for pair in "$@"; do
    mkdir -p "$BATS_TEST_TMPDIR/images/${pair%%=*}"
    touch -d "${pair#*=} days ago" "$BATS_TEST_TMPDIR/images/${pair%%=*}"
  done
}

@test "forget_old() keeps the newest, the one just built whatever its age, and all of the last day" {
  while IFS='|' read -r there kept; do
    rm -rf "$BATS_TEST_TMPDIR/images"
    # shellcheck disable=SC2086
    folders $there
    bash -euo pipefail -c '. "$1/lib.sh"; forget_old "$2" 3 own' bash "$recipe" "$BATS_TEST_TMPDIR/images"
    [ "$(ls "$BATS_TEST_TMPDIR/images" | xargs)" = "$kept" ] || { ls "$BATS_TEST_TMPDIR/images" && false; }
  done <<TABLE
own=0|own
own=0 a=2 b=3|a b own
own=0 a=2 b=3 c=4 d=5|a b own
own=9 a=2 b=3 c=4|a b own
own=0 a=0 b=0 c=0 d=0 e=5|a b c d own
TABLE
}

@test "build.sh says where there is too little room, before it does anything" {
  [ "$(id -u)" -eq 0 ] || skip 'mounts need root'
  run unshare --mount bash -c 'mount -t tmpfs -o size=64m tmpfs "$1" && XDG_CACHE_HOME=$1/cache "$2/build.sh" --fresh' bash "$BATS_TEST_TMPDIR" "$recipe"
  [ "$status" -eq 1 ]
  [[ $output == *"Cannot build the image: 64 MB free in $BATS_TEST_TMPDIR/cache/kateskit, 3000 MB needed"* ]]
  [[ $output == *'XDG_CACHE_HOME'* ]]
}
