#!/bin/sh
# Tells the server that this machine is starting.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in json disk identity ask report; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

check_in starting
deliver
# Not a failure: the server may be restarting, and the next step waits for it with more patience.
for report in "$KIT_RUN"/queue/0*; do
  [ -e "$report" ] || exit 0
done
progress "the server at $KIT_TLS does not answer yet"
