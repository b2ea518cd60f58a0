#!/usr/bin/env bash
# base-hook.sh <what> <tree>: what mmdebstrap calls while it builds the Debian tree (base.sh passes KIT_*).
set -euo pipefail
tree=$2
archives=$tree/var/cache/apt/archives

# Archives of earlier builds. apt checks the hash of each before it uses it, so a damaged one is fetched again.
debs_in() {
  mkdir -p "$archives"
  find "$KIT_DEBS" -maxdepth 1 -name '*.deb' -exec cp --link -t "$archives" {} + 2>/dev/null ||
    find "$KIT_DEBS" -maxdepth 1 -name '*.deb' -exec cp -t "$archives" {} +
}

# The cache keeps what this build used; older versions go.
debs_out() {
  local next=$KIT_DEBS.next
  rm -rf "$next"
  mkdir "$next"
  local name version arch file
  while read -r name version arch; do
    file=${name}_${version//:/%3a}_$arch.deb
    [ ! -f "$archives/$file" ] || mv -- "$archives/$file" "$next/"
  done < <(dpkg-query --admindir="$tree/var/lib/dpkg" -W -f '${Package} ${Version} ${Architecture}\n')
  for name in $KIT_LOADERS; do mv -- "$archives/$name"_*.deb "$next/"; done
  rm -rf "$KIT_DEBS"
  mv -T "$next" "$KIT_DEBS"
}

# Loaders come from the same source in the same run, but are not installed: they boot machines, they do not run on them.
# `download` fetches the package alone, none of those it depends on; it writes where it is started and keeps what is there.
loaders() {
  local name
  for name in $KIT_LOADERS; do
    (cd "$archives" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download "$name")
    mkdir -p "$tree/.kit-build/loaders"
    dpkg-deb --fsys-tarfile "$archives/$name"_*.deb | tar -x -C "$tree/.kit-build/loaders"
    dpkg-deb -f "$archives/$name"_*.deb Package Version | sed 's/.*: //' | paste -sd' ' >>"$tree/.kit-build/loaders.txt"
  done
}

# Packages that only served the setting up of others. Their dependants stay: nothing resolves dependencies on a node.
# One at a time in the list's order, because their own scripts need those further down (update-alternatives is dpkg's).
remove() {
  local name
  for name in $KIT_REMOVE; do
    [ -z "$(dpkg-query --admindir="$tree/var/lib/dpkg" -W "$name" 2>/dev/null)" ] ||
      dpkg --root="$tree" --log=/dev/null --force-depends --force-remove-essential --force-remove-protected --purge "$name"
  done
}

case $1 in
  debs-in) debs_in ;;
  debs-out) debs_out ;;
  loaders) loaders ;;
  remove) remove ;;
  *) exit 2 ;;
esac
