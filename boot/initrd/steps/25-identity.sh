#!/bin/sh
# Proves to the server who this machine is: with the key that is kept on its disk, else with a new one, which a person may have
# to confirm. Nothing is written to any disk before that.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for library in json disk identity kept drivers inventory wait-for-disks download; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

REFUSED_SECONDS=30

# identity_says TEXT: the code on the consoles only. The log of a step goes to the server, which is not to know it.
# shellcheck disable=SC2317 # called by the library
identity_says() {
  case "$1" in
    'pairing code '*) show "kit: $1" ;;
    *) progress "$1" ;;
  esac
  renew_lease
}

# renew_lease: people take their time, and nobody else looks after the lease. At half of it, as a client does (RFC 2131 §4.4.5).
# shellcheck disable=SC2317 # called by identity_says
renew_lease() {
  local lease
  lease="$(sed -n 's/^lease \([0-9][0-9]*\)$/\1/p' "$KIT_RUN/net")"
  [ -n "$lease" ] && [ $(($(tenths_now) - leased)) -ge $((lease * 5)) ] || return 0
  leased="$(tenths_now)"
  udhcpc -i "$(sed -n 's/^interface //p' "$KIT_RUN/net")" -r "$(sed -n 's/^address //p' "$KIT_RUN/net")" \
    -f -q -n -t 3 -T 3 -s "$KIT_LIB/udhcpc.sh" || true
}

# with_patience COMMAND…: again and again while the server does not answer (status 2), as long as a download is tried.
with_patience() {
  local attempt=1 pause=1 status
  while :; do
    status=0
    "$@" 2>"$KIT_RUN/identity-error" || status=$?
    cat "$KIT_RUN/identity-error"
    [ "$status" = 2 ] || return "$status"
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] || fail "$(reason) ($attempt attempts)"
    progress "$(reason); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2 < DOWNLOAD_PAUSE_LIMIT_SECONDS ? pause * 2 : DOWNLOAD_PAUSE_LIMIT_SECONDS))
  done
}

# reason: what the library said last.
reason() {
  tail -n 1 "$KIT_RUN/identity-error"
}

# bring_key: the one of an attempt before this one, the kept one, or a new one.
bring_key() {
  if [ -s "$KIT_IDENTITY/key.pem" ] && key_works; then return 0; fi
  if [ "$KIT_PLAN" = live ]; then settle_disks; else wait_for_disks || true; fi
  if find_kept_identity 2>"$KIT_RUN/identity-error"; then
    progress 'has the key that is kept on its disk'
    return 0
  fi
  progress "$(reason): makes a new key"
  make_key || fail_as_said
  if [ -e "$KIT_IDENTITY/openssl.cnf" ]; then progress 'the key lies in the TPM'; fi
}

leased="$(tenths_now)"
with_patience get_ca || fail "$(reason)"
progress "the server's CA is $KIT_CA"
bring_key
until with_patience prove_identity; do
  progress "$(reason); asks again in $REFUSED_SECONDS s"
  renew_lease
  sleep "$REFUSED_SECONDS"
done
read -r mac <"$KIT_IDENTITY/mac"
progress "is known as $mac, $(cat "$KIT_IDENTITY/tier")"
note MAC "$mac"
