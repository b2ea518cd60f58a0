# Who this machine is: its key, its certificate, and the CA it believes (docs/security.md). Shared by the initrd and the agent.
# Needs json.sh and disk.sh, and reads identity-tpm.sh and identity-exchange.sh itself. What refuses returns 1 with the reason
# as the last line on standard error. Who calls make_key or prove_identity defines `identity_says TEXT`: a line for people.
# shellcheck shell=dash

# In memory: ca.pem, key.pem, certificate.pem; mac (with dashes: what the server knows this machine by) and tier, a line each.
# For a key in a TPM, also openssl.cnf; key.public and key.private, as the TPM has them, which key.pem is made of; ek.public, and
# ek.certificate where there is one. `proved`: the server has taken this machine for what it is since it started.
: "${KIT_RUN:=/run/kit}" "${KIT_PERSIST:=$KIT_RUN/persist}" "${KIT_IDENTITY:=$KIT_RUN/identity}"

# shellcheck source=identity-tpm.sh
. "$KIT_LIB/identity-tpm.sh"
# shellcheck source=identity-exchange.sh
. "$KIT_LIB/identity-exchange.sh"

KEY_FILES='key.pem key.public key.private ek.public ek.certificate'
IDENTITY_FILES="ca.pem certificate.pem mac tier $KEY_FILES"
CA_SECONDS=20
CA_LIMIT_BYTES=16384

# has_identity: the machine can prove who it is. Whether the certificate has run out is another question.
has_identity() {
  [ -s "$KIT_IDENTITY/ca.pem" ] && [ -s "$KIT_IDENTITY/key.pem" ] && [ -s "$KIT_IDENTITY/certificate.pem" ]
}

# kit_curl ARGUMENT…: curl; to an https URL with the machine's certificate, believing our CA only. Without a ca.pem such a
# call fails.
kit_curl() {
  if ! has_identity || ! names_https "$@"; then
    anonymous_curl "$@"
    return
  fi
  set -- --cert "$KIT_IDENTITY/certificate.pem" --key "$KIT_IDENTITY/key.pem" "$@"
  if [ -e "$KIT_IDENTITY/openssl.cnf" ]; then with_ca tpm_curl "$@"; else with_ca curl "$@"; fi
}

# anonymous_curl ARGUMENT…: the same without the machine's certificate.
anonymous_curl() {
  with_ca curl "$@"
}

# with_ca PROGRAM ARGUMENT…: --capath, because Debian's curl looks into /etc/ssl/certs beside --cacert; -q, because of .curlrc.
with_ca() {
  local program="$1"
  shift
  "$program" -q --noproxy '*' --cacert "$KIT_IDENTITY/ca.pem" --capath "$KIT_IDENTITY/nothing" "$@"
}

# tpm_curl ARGUMENT…: TLS 1.3 wants signatures that not every TPM can make (identity-tpm.sh).
tpm_curl() {
  with_tpm curl "$@" --tls-max 1.2
}

names_https() {
  local argument
  for argument in "$@"; do
    case "$argument" in https://*) return 0 ;; esac
  done
  return 1
}

# get_ca: ca.pem from the server, if it is the one that KIT_CA names. Status 2: no answer.
get_ca() {
  local fresh="$KIT_IDENTITY/ca.new" answer="$KIT_IDENTITY/ca.answer" found
  make_identity_folder || return 1
  rm -f "$answer"
  if ! curl -q -sS --fail --noproxy '*' --max-time "$CA_SECONDS" --max-filesize "$CA_LIMIT_BYTES" -o "$answer" "$KIT_URL/v1/ca.pem"; then
    complain "Cannot get the certificate of the server's CA: no answer from $KIT_URL" || return 2
  fi
  # Written anew from the first certificate: who is in between could add one of his own after it.
  if ! (umask 077 && openssl x509 -in "$answer" -out "$fresh"); then
    complain "Cannot believe the server at $KIT_URL: its CA certificate cannot be read" || return 1
  fi
  found="$(certificate_fingerprint "$fresh")"
  if [ "$found" != "$KIT_CA" ]; then
    rm -f "$fresh" "$answer"
    complain "Cannot believe the server at $KIT_URL: its CA has the fingerprint $found, and kit.ca is $KIT_CA" || return 1
  fi
  rm -f "$answer"
  mv "$fresh" "$KIT_IDENTITY/ca.pem"
}

# certificate_fingerprint FILE: sha256 of its DER, hex.
certificate_fingerprint() {
  openssl x509 -in "$1" -outform DER 2>/dev/null | sha256sum | cut -d ' ' -f 1
}

# make_key: a new key, in the TPM when there is one that works; what was there before is gone.
make_key() {
  forget_identity
  make_identity_folder || return 1
  if has_tpm; then
    make_tpm_key 2>"$KIT_IDENTITY/tpm.error" && rm -f "$KIT_IDENTITY/tpm.error" && return 0
    identity_says "the TPM does not work ($(grep . "$KIT_IDENTITY/tpm.error" | head -n 1)): the key lies in a file"
    forget_key
  fi
  if ! (umask 077 && openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$KIT_IDENTITY/key.pem"); then
    complain 'Cannot make a key: openssl refuses'
  fi
}

# key_works: it can sign. A key that is wrapped by another TPM cannot.
key_works() {
  printf 'kateskit' | with_key openssl dgst -sha256 -sign "$KIT_IDENTITY/key.pem" -out /dev/null -
}

# load_identity [DIRECTORY]: from kit-persist, or the copy of its folder `machine` in DIRECTORY. Status 1 without a key that works
# here. A certificate by another CA than KIT_CA is left out, except on a start from the disk, where the kept CA counts.
load_identity() {
  local kept name
  kept="$(kept_identity "${1:-$KIT_PERSIST/machine}")" || complain 'Cannot load an identity: none is kept' || return 1
  forget_key
  make_identity_folder || return 1
  for name in $KEY_FILES; do
    [ ! -e "$kept/$name" ] || copy_private "$kept/$name" "$KIT_IDENTITY/$name" || return 1
  done
  if is_tpm_key; then (umask 077 && write_tpm_conf) || return 1; fi
  if ! key_works 2>"$KIT_IDENTITY/key.error"; then
    forget_key
    complain "Cannot use the key that is kept: $(grep . "$KIT_IDENTITY/key.error" | head -n 1)" || return 1
  fi
  rm -f "$KIT_IDENTITY/key.error"
  if [ "${KIT_PLAN:-disk}" = disk ] || [ "$(certificate_fingerprint "$kept/ca.pem")" = "$KIT_CA" ]; then
    for name in ca.pem certificate.pem mac tier; do
      [ ! -s "$kept/$name" ] || copy_private "$kept/$name" "$KIT_IDENTITY/$name" || return 1
    done
  fi
}

# kept_identity DIRECTORY: where in it the whole of an identity is. While keep_identity puts the new folder into the place of
# the old one, it is the new one.
kept_identity() {
  if [ -s "$1/identity/key.pem" ]; then
    echo "$1/identity"
  elif [ -e "$1/identity.old" ] && [ -s "$1/identity.new/key.pem" ]; then
    echo "$1/identity.new"
  else
    return 1
  fi
}

# keep_identity: to kit-persist; nothing to do where none is mounted. After a cut it is the old one or the new one.
keep_identity() {
  local machine="$KIT_PERSIST/machine" name
  if ! is_mount_point "$KIT_PERSIST"; then return 0; fi
  if is_kept; then return 0; fi
  # What a cut left; the complete one is under its name first.
  if [ ! -e "$machine/identity" ] && kept_identity "$machine" >/dev/null; then mv "$machine/identity.new" "$machine/identity"; fi
  rm -rf "$machine/identity.new" "$machine/identity.old"
  mkdir -p "$machine" && mkdir -m 0700 "$machine/identity.new" || return 1
  for name in $IDENTITY_FILES; do
    [ ! -e "$KIT_IDENTITY/$name" ] || copy_private "$KIT_IDENTITY/$name" "$machine/identity.new/$name" || return 1
  done
  sync -f "$machine" || return 1
  if [ -e "$machine/identity" ]; then mv "$machine/identity" "$machine/identity.old" || return 1; fi
  mv "$machine/identity.new" "$machine/identity" && rm -rf "$machine/identity.old" && sync -f "$machine"
}

# is_kept: kit-persist has just what is in memory.
is_kept() {
  local name kept="$KIT_PERSIST/machine/identity"
  for name in $IDENTITY_FILES; do
    if [ -e "$KIT_IDENTITY/$name" ] || [ -e "$kept/$name" ]; then cmp -s "$KIT_IDENTITY/$name" "$kept/$name" || return 1; fi
  done
}

# certificate_is_due: half of its life is over, or it has run out, or there is none that can be read.
certificate_is_due() {
  local from until
  from="$(certificate_seconds -startdate)" && until="$(certificate_seconds -enddate)" || return 0
  [ "$(date +%s)" -ge $(((from + until) / 2)) ]
}

# clock_is_off: now is not within the life of the machine's own certificate, so one of the two is wrong.
clock_is_off() {
  local from until now
  from="$(certificate_seconds -startdate)" && until="$(certificate_seconds -enddate)" || return 1
  now="$(date +%s)"
  [ "$now" -lt "$from" ] || [ "$now" -gt "$until" ]
}

# certificate_seconds -startdate|-enddate: of the machine's certificate, since 1970.
certificate_seconds() {
  local text
  text="$(openssl x509 -in "$KIT_IDENTITY/certificate.pem" -noout "$1" -dateopt iso_8601 2>/dev/null | sed -n 's/^[^=]*=\(.*\)Z$/\1/p')"
  [ -n "$text" ] && date -u -d "$text" +%s
}

# server_time: seconds since 1970 as the server has them, or nothing. Over plain HTTP: it is asked for when TLS cannot tell.
server_time() {
  curl -q -sS --fail --noproxy '*' --max-time "$CA_SECONDS" "$KIT_URL/v1/time" 2>/dev/null | grep -Ex '[1-9][0-9]{8,11}' || true
}

# forget_identity: from memory, all but the CA. What is kept stays.
forget_identity() {
  forget_key
  rm -f "$KIT_IDENTITY/certificate.pem" "$KIT_IDENTITY/mac" "$KIT_IDENTITY/tier"
}

forget_key() {
  local name
  for name in $KEY_FILES openssl.cnf proved; do rm -f "$KIT_IDENTITY/$name"; done
}

make_identity_folder() {
  mkdir -p "$KIT_IDENTITY" && chmod 0700 "$KIT_IDENTITY"
}

# copy_private FROM TO: with mode 0600 from the first byte on.
copy_private() {
  rm -f "$2" && (umask 077 && cat "$1" >"$2")
}
