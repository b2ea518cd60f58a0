#!/usr/bin/env bash
# build.sh [--output DIR] [--fresh]: makes the base image (kernel, initrd, root file system, loaders, manifest) and
# prints the folder it is in. docs/image.md says what is in it and why.
#
# Two levels, both in the cache, both complete or absent: the Debian tree (slow, keyed by the package list) and the image
# (keyed by everything), so that a changed initrd step costs seconds.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for part in preflight packages base tree initrd squashfs manifest; do
  # shellcheck source=/dev/null
  . "$recipe_dir/$part.sh"
done

usage='usage: build.sh [--output DIR] [--fresh]'
output=
fresh=no
while [ $# -gt 0 ]; do
  case $1 in
    --output)
      [ $# -ge 2 ] || fail 'Cannot read the arguments: --output needs a folder' "$usage"
      output=$2
      shift
      ;;
    --fresh) fresh=yes ;; # builds the Debian tree again even when the cache has it
    *) fail "Cannot read the argument '$1'" "$usage" ;;
  esac
  shift
done

work_dir=
clean_up() {
  stop_isolated
  [ -z "$work_dir" ] || rm -rf -- "$work_dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

main() {
  local digest base
  digest=$("$recipe_dir/digest.sh" image)
  output=${output:-$cache_dir/images/$digest}
  if [ "$fresh" = no ] && is_built "$digest"; then
    progress 100 'the image is built already'
    echo "$output"
    return
  fi
  check_host "$cache_dir" "$(dirname -- "$output")"
  take_lock
  if [ "$fresh" = no ] && is_built "$digest"; then
    echo "$output"
    return
  fi
  rm -rf -- "$cache_dir"/work.* # what an interrupted build left; we hold the lock, so nobody is using it
  work_dir=$(mktemp -d "$cache_dir/work.XXXXXX")

  progress_range 0 60
  base=$cache_dir/bases/$("$recipe_dir/digest.sh" base).tar.zst
  if [ "$fresh" = yes ] || [ ! -f "$base" ]; then
    make_base "$work_dir" "$base"
  fi
  progress_range 60 100
  make_image "$base" "$digest"
  echo "$output"
}

make_image() {
  local base=$1 digest=$2 image=$work_dir/image root=$work_dir/root version
  version=$(<"$recipe_dir/version")-${digest:0:8}
  mkdir -p "$image" "$root"
  progress 0 'unpacking the Debian tree'
  zstd -dcq "$base" | tar -x --numeric-owner --xattrs --xattrs-include='*' -C "$root"
  progress 10 'laying the root tree'
  make_tree "$root" "$image" "$version"
  progress 30 'packing the initrd'
  make_initrd "$root" "$work_dir/initrd" "$image/initrd.img"
  progress 50 'packing the root file system'
  make_squashfs "$root" "$image/root.squashfs"
  progress 95 'writing the manifest'
  write_manifest "$root" "$image" "$version" "$digest"
  [ "$("$recipe_dir/digest.sh" image)" = "$digest" ] ||
    fail 'Cannot keep the image: its recipe changed while it was built' 'run the build again'
  publish "$image"
  progress 100 "image $version"
}

is_built() {
  [ -f "$output/manifest.json" ] && grep -q "\"recipeDigest\": \"$1\"" "$output/manifest.json"
}

# Two builds at once would do the same work twice; the second waits and then finds the first one's image.
take_lock() {
  mkdir -p "$cache_dir/images" "$cache_dir/bases" "$cache_dir/debs"
  exec 9>"$cache_dir/build.lock"
  flock --nonblock 9 && return
  progress 0 'waiting for another build to end'
  flock 9
}

# The folder appears whole or not at all: complete beside its place, then renamed.
publish() {
  local next
  mkdir -p "$(dirname -- "$output")"
  next=$(mktemp -d "$output.new.XXXXXX")
  mv -- "$1"/* "$next/"
  chmod 755 "$next"
  sync -f "$next"
  rm -rf -- "$output"
  mv -T -- "$next" "$output"
}

main
