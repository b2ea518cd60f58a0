#!/bin/sh
# Tells the server that this machine is starting.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
# shellcheck source=../json.sh
. "$KIT_LIB/json.sh"
# shellcheck source=../report.sh
. "$KIT_LIB/report.sh"

check_in starting
deliver
# Not a failure: the server may be restarting, and the next step waits for it with more patience.
for report in "$KIT_RUN"/queue/0*; do
  [ -e "$report" ] || exit 0
done
progress "the server at $KIT_URL does not answer yet"
