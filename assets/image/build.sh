#!/usr/bin/env bash
# build.sh: makes the base image (kernel, initrd, root file system, loaders, manifest) and prints the folder it is in.
# docs/image.md says what is in it and why.
#
# Two levels, both in the cache, both complete or absent: the Debian tree (slow, keyed by the package list) and the image
# (keyed by everything), so that a changed initrd step costs seconds.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for part in kubernetes inputs preflight packages base boot-files tree initrd initrd-parts squashfs verity manifest; do
  # shellcheck source=/dev/null
  . "$KIT_RECIPE/$part.sh"
done

usage='usage: build.sh [--output DIR] [--fresh] [--version X.Y.Z[-SUFFIX]] [--add DIR]'
output=
fresh=no
release= # the image's version, where it is not the recipe's own
added=   # a folder that is laid over the root tree last
while [ $# -gt 0 ]; do
  case $1 in
    --output)
      [ $# -ge 2 ] || fail 'Cannot read the arguments: --output needs a folder' "$usage"
      output=$2
      shift
      ;;
    --fresh) fresh=yes ;; # builds the Debian tree again even when the cache has it
    --version)
      [ $# -ge 2 ] || fail 'Cannot read the arguments: --version needs a version' "$usage"
      is_version "$2" || fail "Cannot build an image of version '$2'" 'say three numbers, and what you like after a dash: 1.4.2, 1.5.0-test1'
      release=$2
      shift
      ;;
    --add)
      [ $# -ge 2 ] || fail 'Cannot read the arguments: --add needs a folder' "$usage"
      [ -d "$2" ] || fail "Cannot add the files of $2: there is no such folder" "$usage"
      added=$(cd "$2" && pwd)
      shift
      ;;
    *) fail "Cannot read the argument '$1'" "$usage" ;;
  esac
  shift
done

check_kubernetes

KIT_WORK=
kept_initrd= # set by pack_initrd
clean_up() {
  stop_isolated
  [ -z "$KIT_WORK" ] || rm -rf -- "$KIT_WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

main() {
  local digest base
  export kubernetes_folder=
  kubernetes_version=
  if has_kubernetes && { [ "$fresh" = yes ] || ! is_built "$(image_digest "$KIT_PROJECT" "$release" "$added")" >/dev/null; }; then
    check_host "$KIT_CACHE"
    KIT_PROGRESS_SPAN='0 50' ensure_kubernetes
    span_from=50
  fi
  if [ "$fresh" = no ] && is_built "$(image_digest "$KIT_PROJECT" "$release" "$added")"; then
    progress 100 'the image is built already'
    return
  fi
  check_host "$KIT_CACHE" "$(dirname -- "${output:-$KIT_CACHE/images}")"
  take_lock
  # What an interrupted build left; we hold the lock, so nobody is using it.
  rm -rf -- "$KIT_CACHE"/work.* "$KIT_CACHE"/images/*.new.??????
  # Images with Kubernetes keep archives of their own, and begin with those of the others.
  [ -d "$(debs_folder)" ] || cp -r --link "$KIT_CACHE/debs" "$(debs_folder)"
  KIT_WORK=$(mktemp -d "$KIT_CACHE/work.XXXXXX")
  copy_inputs "$KIT_PROJECT" "$KIT_WORK/source"
  KIT_PROJECT=$KIT_WORK/source
  KIT_RECIPE=$KIT_PROJECT/assets/image
  if [ -n "$added" ]; then
    cp -a -- "$added" "$KIT_WORK/added"
    added=$KIT_WORK/added
  fi
  digest=$(image_digest "$KIT_PROJECT" "$release" "$added")
  if [ "$fresh" = no ] && is_built "$digest"; then return; fi # by the build we waited for

  progress_range 0 60
  base=$KIT_CACHE/bases/$(recipe_digest base "$KIT_PROJECT").tar.zst
  if [ "$fresh" = yes ] || [ ! -f "$base" ]; then
    make_base "$KIT_WORK" "$base"
  fi
  progress_range 60 100
  make_image "$base" "$digest"
}

# make_image <tar of the Debian tree> <recipe digest>
make_image() {
  local base=$1 digest=$2 image=$KIT_WORK/image root=$KIT_WORK/root version
  version=${release:-$(<"$KIT_RECIPE/version")-${digest:0:8}${kubernetes_version:+-k${kubernetes_version#v}}}
  mkdir -p "$image" "$root"
  progress 0 'unpacking the Debian tree'
  zstd -dcq "$base" | tar -x --numeric-owner --xattrs --xattrs-include='*' -C "$root" ||
    fail "Cannot unpack the Debian tree $base" 'see the lines above; if the file is damaged: assets/image/build.sh --fresh'
  note_owners "$root"
  progress 10 'laying the root tree'
  make_tree "$root" "$image" "$version" "$added"
  progress 20 'packing the initrd'
  make_initrd "$root" "$KIT_WORK/initrd" "$image/initrd.img" "$fresh"
  progress 35 'packing the root file system'
  make_squashfs "$root" "$image/root.squashfs"
  progress 94 'hashing the root file system'
  make_verity "$image/root.squashfs" "$image/root.verity"
  progress 95 'writing the manifest'
  write_manifest "$root" "$image" "$version" "$digest"
  publish "$image" "${output:-$KIT_CACHE/images/$digest}"
  forget_old "$KIT_CACHE/images" 5 "$digest"
  forget_old "$KIT_CACHE/bases" 4 "${base##*/}" # of two kinds, with Kubernetes and without
  forget_old "$KIT_CACHE/initrds" 5 "$kept_initrd"
  progress 100 "image $version"
}

# is_built <recipe digest>: and then prints where.
is_built() {
  local folder=${output:-$KIT_CACHE/images/$1}
  grep -qs "\"recipeDigest\": \"$1\"" "$folder/manifest.json" && echo "$folder"
}

# Two builds at once would do the same work twice; the second waits and then finds the first one's image.
take_lock() {
  mkdir -p "$KIT_CACHE/images" "$KIT_CACHE/bases" "$KIT_CACHE/debs" "$KIT_CACHE/initrds"
  exec 9>"$KIT_CACHE/build.lock"
  flock --nonblock 9 && return
  progress 0 'waiting for another build to end'
  flock 9
}

# publish <finished folder> <its place>: the place has the old image or the new one, whole, but for the moment between
# two renames; then says where. Who has the old one's files open keeps them.
publish() {
  local next
  mkdir -p "$(dirname -- "$2")"
  next=$(mktemp -d "$2.new.XXXXXX")
  mv -- "$1"/* "$next/"
  chmod 755 "$next"
  sync -f "$next"
  [ ! -e "$2" ] || mv -T -- "$2" "$KIT_WORK/replaced"
  mv -T -- "$next" "$2"
  echo "$2"
}

main
