#!/bin/sh
# Gets the signed manifest of the image, and refuses an image that it does not vouch for.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../download.sh
. "$KIT_LIB/download.sh"

key="$KIT_LIB/image-key.pub"
manifest="$KIT_RUN/manifest"

# fetch_manifest: both files are small; what an attempt before this one got may be of another server.
fetch_manifest() {
  local url="$KIT_URL/images/$KIT_IMAGE/manifest"
  rm -f "$manifest" "$manifest.sig"
  fetch_to_end "$url" "$manifest"
  if ! (fetch_to_end "$url.sig" "$manifest.sig"); then
    [ -e "$KIT_RUN/gone" ] || exit 1
    rm -f "$KIT_RUN/gone"
    fail "Cannot use image $KIT_IMAGE: it is not signed: the server has no signature of its manifest"
  fi
}

# check_root: what the command line of a live boot says must be what was signed.
check_root() {
  local size sha256
  size="$MANIFEST_ROOT_SIZE"
  sha256="$(manifest_sha256 root.squashfs)"
  [ "$sha256 $size" = "$KIT_ROOT_SHA256 $KIT_ROOT_SIZE" ] ||
    fail "Cannot use image $KIT_IMAGE: its root.squashfs should be $KIT_ROOT_SHA256 of $KIT_ROOT_SIZE bytes by the kernel command line, and $sha256 of $size bytes by the signed manifest"
}

if [ ! -s "$key" ]; then
  [ "$KIT_PLAN" = live ] ||
    fail "Cannot check image $KIT_IMAGE: the initrd has no key (/lib/kit/image-key.pub); import the image again"
  progress 'the initrd has no key: the signature of the image is not checked'
  exit 0
fi
# shellcheck source=../manifest.sh
. "$KIT_LIB/manifest.sh"
fetch_manifest
# A server that signs anew between the two requests has given what does not belong together: once more, then.
check_signature "$manifest" "$manifest.sig" "$key" 2>/dev/null || fetch_manifest
# Which epoch this machine has run is on its disk (41-disk).
verify_manifest "$manifest" "$manifest.sig" "$key" '' "$KIT_IMAGE" || fail_as_said
if [ "$KIT_PLAN" = live ]; then check_root; fi
progress "image $KIT_IMAGE is signed, epoch $MANIFEST_EPOCH"
