#!/bin/sh
# Gets the overlay bundle and unpacks it to be laid over the image.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../bundle.sh
. "$KIT_LIB/bundle.sh"
# shellcheck source=../download.sh
. "$KIT_LIB/download.sh"

download "$KIT_URL/bundles/$KIT_BUNDLE.tar" "$KIT_RUN/bundle.tar" "$KIT_BUNDLE"
mkdir -p "$KIT_RUN/bundle"
if ! unpack_bundle "$KIT_RUN/bundle.tar" "$KIT_RUN/bundle/root" 2>"$KIT_RUN/bundle/error"; then
  # All of it into the step's log, which the server gets: the last line may only say that tar has said why.
  cat "$KIT_RUN/bundle/error"
  fail "$(tail -n 1 "$KIT_RUN/bundle/error")"
fi
# It is memory that the running system would miss.
rm -f "$KIT_RUN/bundle.tar"
