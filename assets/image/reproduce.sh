#!/usr/bin/env bash
# reproduce.sh: builds the image twice from nothing and compares every byte. The second build has no network and takes
# its packages from a mirror folder of the first one's, so this also shows that an offline build works.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# Kubernetes has a recipe of its own, which takes half an hour; what it puts into an image is compared there.
export KATESKIT_KUBERNETES_SOURCE=none
# shellcheck source=assets/image/kubernetes.sh
. "$KIT_RECIPE/kubernetes.sh"
# shellcheck source=assets/image/inputs.sh
. "$KIT_RECIPE/inputs.sh"

mkdir -p "$KIT_CACHE"
scratch=$(mktemp -d "$KIT_CACHE/reproduce.XXXXXX")
build=
clean_up() {
  [ -z "$build" ] || kill "$build" 2>/dev/null || true
  [ -z "$build" ] || wait "$build" || true
  rm -rf -- "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Both builds read one copy of the recipe, whatever is edited meanwhile; settings go along by environment.
KATESKIT_IMAGE_KERNEL=$(setting kernel generic)
KATESKIT_IMAGE_MIRROR=$(setting mirror '')
export KATESKIT_IMAGE_KERNEL KATESKIT_IMAGE_MIRROR
copy_inputs "$KIT_PROJECT" "$scratch/source"
build_script=$scratch/source/assets/image/build.sh

# run <name> <command…>: the seconds it took go to the report.
run() {
  local name=$1 started=$SECONDS
  shift
  "$@" >"$scratch/$name.out" &
  build=$!
  wait "$build" || fail "Cannot reproduce the image: the $name build failed" 'see the lines above'
  build=
  printf '%s build: %d s\n' "$name" $((SECONDS - started))
}

# A loopback and nothing else.
offline() {
  KATESKIT_IMAGE_MIRROR=$scratch/mirror XDG_CACHE_HOME=$scratch/cache \
    exec unshare --net -- "$build_script" --output "$scratch/second"
}

run first "$build_script" --fresh --output "$scratch/first"
"$KIT_RECIPE/mirror.sh" "$scratch/mirror"
run offline offline
(cd "$scratch/first" && find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2) >"$scratch/first.sums"
(cd "$scratch/second" && find . -type f -exec sha256sum {} + | LC_ALL=C sort -k2) >"$scratch/second.sums"
diff "$scratch/first.sums" "$scratch/second.sums" ||
  fail 'Cannot reproduce the image: the files above differ' 'diffoscope says where'
printf '%d files, all bit-identical; root.squashfs %s\n' "$(wc -l <"$scratch/first.sums")" \
  "$(awk '$2 == "./root.squashfs" { print $1 }' "$scratch/first.sums")"
