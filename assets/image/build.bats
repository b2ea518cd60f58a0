#!/usr/bin/env bats
# What the image build does beside building: which images it forgets, what decides a variant, its hash tree, and what it
# says where it cannot build.

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

@test "is_version() takes three numbers and a suffix, in the characters and the length of a manifest" {
  while IFS='|' read -r version expected; do
    found=$(bash -euo pipefail -c '. "$1/lib.sh"; . "$1/inputs.sh"; is_version "$2" && echo yes || echo no' bash "$recipe" "$version")
    [ "$found" = "$expected" ] || { echo "$version: $found" && false; }
  done <<TABLE
1.4.2|yes
0.10.0-1a2b3c4d|yes
1.5.0-rc.1~x_y|yes
1.5|no
1.5.0-|no
v1.5.0|no
1.5.0/../x|no
1.5.0-a b|no
1.5.0-$(printf 'a%.0s' {1..58})|yes
1.5.0-$(printf 'a%.0s' {1..59})|no
|no
TABLE
}

@test "build.sh refuses arguments it cannot use, before it does anything" {
  for arguments in '--version 1.5' '--version' '--add /nowhere' '--add' '--else'; do
    # shellcheck disable=SC2086
    XDG_CACHE_HOME=$BATS_TEST_TMPDIR/cache run "$recipe/build.sh" $arguments
    echo "$arguments: $output"
    [ "$status" -eq 1 ]
    [[ $output == 'error: Cannot '* ]]
    [ ! -e "$BATS_TEST_TMPDIR/cache" ]
  done
}

@test "image_digest() is the recipe's own without options, and changes with the version and each added file" {
  digest() {
    bash -euo pipefail -c '. "$1/lib.sh"; . "$1/inputs.sh"; image_digest "$KIT_PROJECT" "$2" "$3"' bash "$recipe" "$@"
  }
  added=$BATS_TEST_TMPDIR/added
  mkdir -p "$added/etc"
  [ "$(digest '' '')" = "$("$recipe/digest.sh")" ]
  {
    digest '' ''
    digest 1.0.0 ''
    digest 1.0.1 ''
    digest '' "$added"
    echo one >"$added/etc/file" && digest '' "$added"
    echo two >"$added/etc/file" && digest '' "$added"
    chmod +x "$added/etc/file" && digest '' "$added"
    ln -s file "$added/etc/link" && digest '' "$added"
    mkdir "$added/empty" && digest '' "$added"
    digest 1.0.0 "$added"
  } >"$BATS_TEST_TMPDIR/digests"
  [ "$(sort -u "$BATS_TEST_TMPDIR/digests" | wc -l)" -eq 10 ]
}

@test "the hash tree of the built image vouches for its root file system, and for no other bytes" {
  command -v veritysetup >/dev/null || skip 'no veritysetup (npm test installs it)'
  built=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
  [ -f "$built/manifest.json" ] || skip 'no image of this recipe is built (assets/image/build.sh)'
  root_hash=$(sed -n 's/.*"rootHash": "\([0-9a-f]*\)".*/\1/p' "$built/manifest.json")
  veritysetup verify "$built/root.squashfs" "$built/root.verity" "$root_hash"
  cp "$built/root.squashfs" "$BATS_TEST_TMPDIR/root.squashfs"
  printf 'x' | dd of="$BATS_TEST_TMPDIR/root.squashfs" bs=1 seek=1000000 conv=notrunc status=none
  run veritysetup verify "$BATS_TEST_TMPDIR/root.squashfs" "$built/root.verity" "$root_hash"
  [ "$status" -ne 0 ]
}
