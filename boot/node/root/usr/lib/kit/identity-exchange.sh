# How the machine gets its certificate (docs/ports-and-endpoints.md, "How a machine proves who it is"). A part of identity.sh.
# shellcheck shell=dash

: "${KIT_SYS:=/sys}" "${KIT_PROC:=/proc}"

ASK_SECONDS=30
ANSWER_LIMIT_BYTES=65536
# How often a console shows the code; the server keeps an answer back for so long.
CODE_SECONDS=30
# A server that goes while a person is looking for the code may come back with the attempt.
AWAY_SECONDS=60
CODE_ALPHABET=0123456789ABCDEFGHJKMNPQRSTVWXYZ
MACS_LIMIT=32

# prove_identity [SECONDS]: asks the server for a certificate for key.pem, and waits for a person, at most so long when
# SECONDS are given. 0: certificate.pem, mac and tier are there. 1: refused; begin anew after 30 seconds. 2: no answer.
prove_identity() {
  local work="$KIT_IDENTITY/exchange" url="$KIT_TLS/v1/machines/$KIT_MAC/identity" patience="${1:-}" status=0
  local mine='' theirs='' attempt='' challenged=''
  rm -rf "$work"
  mkdir -m 0700 "$work" && make_request || complain 'Cannot make a certificate request' || status=1
  [ "$status" != 0 ] || identity_ask --data-binary "@$work/body" "$url" || status=$?
  while [ "$status" = 0 ] && [ "$(step_value state)" != issued ]; do
    answer_step || status=$?
  done
  [ "$status" != 0 ] || take_certificate || status=$?
  rm -rf "$work"
  return "$status"
}

# make_request: the files csr.pem and body.
make_request() {
  local uuid
  mine="$(od -An -N16 -t x1 /dev/urandom | tr -d ' \n')"
  printf '[req]\ndistinguished_name = name\n[name]\n' >"$work/request.cnf"
  with_key openssl req -config "$work/request.cnf" -new -sha256 -subj "/CN=$KIT_MAC" -key "$KIT_IDENTITY/key.pem" -out "$work/csr.pem" || return 1
  uuid="$(tr -cd '0-9A-Fa-f-' 2>/dev/null <"$KIT_SYS/class/dmi/id/product_uuid" || true)"
  {
    printf '{"csr":%s,"macs":[%s]' "$(json_escape <"$work/csr.pem")" "$(own_macs | sed 's/.*/"&"/' | tr '\n' ',' | sed 's/,$//')"
    [ -z "$uuid" ] || printf ',"uuid":"%s"' "$uuid"
    printf ',"commitment":"%s"' "$(printf '%s' "$mine" | sha256sum | cut -d ' ' -f 1)"
    tpm_claim
    printf '}'
  } >"$work/body"
}

# read_request ARGUMENT…: of openssl req, which fails without a configuration, and the initrd has none of its own.
read_request() {
  openssl req -config "$work/request.cnf" -in "$work/csr.pem" "$@"
}

# own_macs: with colons, one a line: of all network cards that are hardware with an address of their own. Bridges, bonds and what
# containers have is not this machine. The name it goes by only when it has no other: the disk may come from another machine.
own_macs() {
  local path own
  own="$(printf '%s' "$KIT_MAC" | tr - :)"
  for path in "$KIT_SYS"/class/net/*; do
    # Ethernet (ARPHRD_ETHER), NET_ADDR_PERM (linux/netdevice.h).
    [ -e "$path/device" ] && [ "$(cat "$path/type" "$path/addr_assign_type" 2>/dev/null | xargs)" = '1 0' ] && cat "$path/address"
  done | sort -u | grep -Ex '[0-9a-f]{2}(:[0-9a-f]{2}){5}' | grep -vx '00:00:00:00:00:00' | head -n "$MACS_LIMIT" | grep . || echo "$own"
}

# identity_ask ARGUMENT…: one request; its answer is in the file `step`. 1: the server said no, with its reason on standard
# error. 2: no answer, or later (RFC 9110 §15.5.9, RFC 6585 §4).
identity_ask() {
  local status
  if ! status="$(anonymous_curl -sS -o "$work/step" -w '%{http_code}' --max-time "$((ASK_SECONDS + CODE_SECONDS))" --connect-timeout 10 \
    --max-filesize "$ANSWER_LIMIT_BYTES" -H 'Content-Type: application/json' "$@" 2>"$work/error")"; then
    complain "Cannot reach the server at $KIT_TLS: $(tail -n 1 "$work/error")" || return 2
  fi
  case "$status" in
    200) return 0 ;;
    408 | 429 | 5??) complain "Cannot prove who this machine is yet: HTTP status $status: $(refusal "$work/step")" || return 2 ;;
    *) complain "Cannot prove who this machine is: $(refusal "$work/step" | grep . || echo "HTTP status $status")" ;;
  esac
}

# refusal ANSWER: what the server says is wrong, and what mends it.
refusal() {
  local message fix
  message="$(error_member "$1" message)"
  fix="$(error_member "$1" fix)"
  printf '%s%s' "$message" "$(printf '%s' "$fix" | sed 's/..*/ (&)/')"
}

# error_member ANSWER NAME: of the server's {"error": …}; what could change a console is left out.
error_member() {
  tr -cd '\040-\176' 2>/dev/null <"$1" | sed -n "s/.*\"$2\": *\"\(\([^\"\\\\]\|\\\\.\)*\)\".*/\1/p" | sed 's/\\\(.\)/\1/g' | head -c 500
}

# step_value NAME: a line of the step, before its empty line.
step_value() {
  sed -n "/^\$/q; s/^$1 //p" "$work/step" | head -n 1 | tr -cd '\040-\176'
}

# answer_step: does what the step asks for; `step` is the next one then. Status as of identity_ask.
answer_step() {
  attempt="$(step_value attempt)"
  case "$(step_value state) $attempt" in
    closed*) complain "Cannot prove who this machine is: $(step_value reason)" ;;
    *' '*[!A-Za-z0-9_-]* | *' ') complain 'Cannot prove who this machine is: the server has no name for the attempt' ;;
    challenge*) answer_challenge ;;
    pairing*) answer_pairing ;;
    waiting*) wait_for_person ;;
    *) complain "Cannot prove who this machine is: the server says $(step_value state), which this image does not know" ;;
  esac
}

answer_challenge() {
  local proof
  [ -z "$challenged" ] || complain 'Cannot prove who this machine is: the server did not take the answer of the TPM' || return 1
  challenged=1
  step_value credential | openssl base64 -d -A >"$work/credential" &&
    tpm_secret "$work/credential" "$work/secret" 2>"$work/error" ||
    complain "Cannot prove who this machine is: the TPM does not open what the server sent: $(grep . "$work/error" | head -n 1)" || return 1
  proof="$(read_request -outform DER | openssl dgst -sha256 -binary |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(hex_of "$work/secret")" | sed 's/.*= *//')"
  identity_ask --data-binary "{\"proof\":\"$proof\"}" "$url/$attempt"
}

# answer_pairing: our nonce is told once, after the server's. Who could hear it first could make the codes agree.
answer_pairing() {
  [ -z "$theirs" ] || complain 'Cannot prove who this machine is: the server changed its nonce' || return 1
  theirs="$(step_value nonce)"
  printf '%s\n' "$theirs" | grep -Eqx '[0-9a-f]{32}' || complain 'Cannot prove who this machine is: the server has no nonce' || return 1
  identity_ask --data-binary "{\"nonce\":\"$mine\"}" "$url/$attempt"
}

# wait_for_person: until the step is another one.
wait_for_person() {
  local line began asked status
  [ -n "$theirs" ] || complain 'Cannot prove who this machine is: the server waits for a code without a nonce' || return 1
  line="$(code_line)"
  began="$(uptime_seconds)"
  while [ "$(step_value state)" = waiting ]; do
    asked="$(uptime_seconds)"
    if [ -n "$patience" ] && [ $((asked - began)) -ge "$patience" ]; then
      complain 'Cannot prove who this machine is: nobody has confirmed its code' || return 1
    fi
    identity_says "$line"
    while :; do
      status=0
      identity_ask "$url/$attempt?wait=$CODE_SECONDS" || status=$?
      if [ "$status" = 2 ] && [ $(($(uptime_seconds) - asked)) -lt "$AWAY_SECONDS" ]; then sleep 5; else break; fi
    done
    [ "$status" = 0 ] || return "$status"
    # Not more often, whatever the server does.
    [ $(($(uptime_seconds) - asked)) -ge 2 ] || [ "$(step_value state)" != waiting ] || sleep 2
  done
}

# code_line: what a person reads and types.
code_line() {
  local code replace=''
  code="$(pairing_code "$KIT_MAC" "$(read_request -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d ' ' -f 1)" "$(certificate_fingerprint "$KIT_IDENTITY/ca.pem")" "$mine" "$theirs")"
  [ "$(step_value known)" != yes ] || replace=' --replace'
  printf 'pairing code %s: kateskit pair %s %s%s' "$code" "$(printf '%s' "$KIT_MAC" | tr - :)" "$code" "$replace"
}

# pairing_code MAC KEY CA MINE THEIRS: `K7M-2QX` (docs/security.md, "The code").
pairing_code() {
  local digest byte code=''
  digest="$(printf 'kateskit-pairing 1\n%s\n%s\n%s\n%s\n%s\n' "$@" | sha256sum)"
  for byte in 1 3 5 7 9 11; do
    byte="$(printf '%s' "$digest" | cut -c "$byte-$((byte + 1))")"
    code="$code$(printf '%s' "$CODE_ALPHABET" | cut -c "$((0x$byte % 32 + 1))")"
    [ "${#code}" != 3 ] || code="$code-"
  done
  printf '%s\n' "$code"
}

# take_certificate: out of the step, if it is one for our key.
take_certificate() {
  local fresh="$work/certificate.pem" mac tier
  mac="$(step_value machine)"
  tier="$(step_value tier)"
  printf '%s\n' "$mac" | grep -Eqx '[0-9a-f]{2}(-[0-9a-f]{2}){5}' && printf '%s\n' "$tier" | grep -Eqx '[a-z-]{1,32}' &&
    openssl x509 -in "$work/step" -out "$fresh" 2>/dev/null &&
    [ "$(openssl x509 -in "$fresh" -noout -pubkey)" = "$(read_request -noout -pubkey)" ] ||
    complain 'Cannot prove who this machine is: the certificate from the server is not one for its key' || return 1
  (umask 077 && printf '%s\n' "$mac" >"$work/mac" && printf '%s\n' "$tier" >"$work/tier" && : >"$work/proved") || return 1
  chmod 0600 "$fresh" && mv "$work/mac" "$work/tier" "$work/proved" "$fresh" "$KIT_IDENTITY/"
}

# uptime_seconds: a clock that nobody sets.
uptime_seconds() {
  local up rest
  # shellcheck disable=SC2034 # the second figure is of no interest
  read -r up rest <"$KIT_PROC/uptime"
  printf '%s\n' "${up%.*}"
}
