#!/usr/bin/env bash
# mirror.sh FOLDER: makes a local mirror out of the packages the last build used. With it an image is built without a
# network, and from exactly these versions: KATESKIT_IMAGE_MIRROR=FOLDER assets/image/build.sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=assets/image/kubernetes.sh
. "$KIT_RECIPE/kubernetes.sh"
# shellcheck source=assets/image/packages.sh
. "$KIT_RECIPE/packages.sh"

[ $# = 1 ] || fail 'Cannot make a mirror without a folder' 'assets/image/mirror.sh FOLDER'
command -v apt-ftparchive >/dev/null || fail 'Cannot make a mirror: missing apt-ftparchive' 'apt-get install apt-utils'
archives=("$(debs_folder)"/*.deb)
[ -f "${archives[0]}" ] || fail "Cannot make a mirror: no packages in $(debs_folder)" 'assets/image/build.sh --fresh'

mkdir -p "$1"
# apt fetches the whole pool's files by name: hard links where the file system allows, copies elsewhere.
cp --link --force -t "$1" "${archives[@]}" 2>/dev/null || cp --force -t "$1" "${archives[@]}"
cd "$1"
apt-ftparchive packages . >Packages
# mmdebstrap asks for the essential packages of the suite it was told, so the mirror has to say that it is that one.
apt-ftparchive -o APT::FTPArchive::Release::Suite=trixie -o APT::FTPArchive::Release::Codename=trixie release . >Release.new
mv Release.new Release
printf '%d packages in %s\n' "${#archives[@]}" "$PWD"
