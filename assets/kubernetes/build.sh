#!/usr/bin/env bash
# build.sh: gets or builds Kubernetes from the source that kubernetes/source names, and prints the folder it is in.
# docs/image.md, "Kubernetes in the image", says what the folder holds. It is in the cache, complete or absent.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for part in inputs versions apt debian-source oci images packages directory manifest; do
  # shellcheck source=/dev/null
  . "$KIT_KUBERNETES/$part.sh"
done

usage='usage: build.sh [--source packages|directory|debian-source] [--version-label vX.Y.Z] [--output DIR] [--fresh] [--key | --find | --repository]'
source_name=$(kubernetes_source)
label=
output=
fresh=no
task=build
while [ $# -gt 0 ]; do
  case $1 in
    --source | --version-label | --output)
      [ $# -ge 2 ] || fail "Cannot read the arguments: $1 needs a value" "$usage"
      case $1 in
        --source) source_name=$2 ;;
        --version-label) label=$2 ;;
        --output) output=$2 ;;
      esac
      shift
      ;;
    --fresh) fresh=yes ;;            # also when the cache has it: a newer patch release of a minor, a source built again
    --key) task=key ;;               # prints what the folder in the cache is or would be called
    --find) task='find' ;;           # prints the folder when it is there; status 1 when it is not
    --repository) task=repository ;; # prints where `packages` come from, without asking there
    *) fail "Cannot read the argument '$1'" "$usage" ;;
  esac
  shift
done
check_source "$source_name"
check_label "$source_name" "$label"
# What nobody has chosen: the one place to change it.
if [ "$source_name" = packages ] && [ -z "$(setting_in kubernetes version '')" ]; then
  KATESKIT_KUBERNETES_VERSION=$(<"$KIT_KUBERNETES/default-minor")
  export KATESKIT_KUBERNETES_VERSION
fi
# Apart: who looks for the Kubernetes of this checkout shall not come across one that only says that it is another.
[ -z "$label" ] || KIT_KUBERNETES_CACHE=$KIT_CACHE/kubernetes-labelled

KIT_WORK=
clean_up() {
  stop_isolated
  [ -z "$KIT_WORK" ] || rm -rf -- "$KIT_WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

main() {
  local key place
  key=$(kubernetes_key "$source_name" "$label")
  place=${output:-$KIT_KUBERNETES_CACHE/$key}
  case $task in
    key) echo "$key" ;;
    find) is_made "$place" "$key" || exit 1 ;;
    repository) package_repository "$(wanted_version)" ;;
    build) make "$key" "$place" ;;
  esac
}

# make <key> <place>
make() {
  local key=$1 place=$2
  if [ "$fresh" = no ] && is_made "$place" "$key"; then return; fi
  check_kubernetes_host "$source_name"
  take_kubernetes_lock
  # What an interrupted build left; we hold the lock, so nobody is using it.
  rm -rf -- "$KIT_KUBERNETES_CACHE"/work.* "$KIT_KUBERNETES_CACHE"/*.new.??????
  if [ "$fresh" = no ] && is_made "$place" "$key"; then return; fi # by the build we waited for
  KIT_WORK=$(mktemp -d "$KIT_KUBERNETES_CACHE/work.XXXXXX")
  mkdir -p "$KIT_WORK/result"/{bin,images}
  "make_from_${source_name//-/_}" "$KIT_WORK/result" "$label"
  progress_range 0 100
  progress 98 'writing what was made'
  write_kubernetes_manifest "$KIT_WORK/result" "$source_name" "$key"
  publish_kubernetes "$KIT_WORK/result" "$place"
  forget_old "$KIT_KUBERNETES_CACHE" 8 "$key"
  progress 100 "Kubernetes $(manifest_version "$place")"
}

# is_made <folder> <key>: and then prints where.
is_made() {
  grep -qs "\"key\": \"$2\"" "$1/kubernetes.json" || return 1
  touch "$1" # the newest are kept
  echo "$1"
}

take_kubernetes_lock() {
  mkdir -p "$KIT_KUBERNETES_CACHE"
  exec 9>"$KIT_CACHE/kubernetes.lock"
  flock --nonblock 9 && return
  progress 0 'waiting for another build to end'
  flock 9
}

# publish_kubernetes <finished folder> <its place>: the place has the old one or the new one, whole.
publish_kubernetes() {
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
