# What the agent and the server say to each other (docs/ports-and-endpoints.md, "For machines"); what a check-in holds is
# in check-in.sh, what a target means in target.sh. Needs json.sh, identity.sh.
# shellcheck shell=dash

REPORT_TIMEOUT_SECONDS=15
# A wait for a target may answer this much later than it should.
POLL_MARGIN_SECONDS=20

# machine_url: where the server has what is this machine's. It may know it by another of its network cards.
machine_url() {
  printf '%s/v1/machines/%s\n' "$KIT_TLS" "$(cat "$KIT_IDENTITY/mac" 2>/dev/null || printf '%s' "$KIT_MAC")"
}

# ask_server ARGUMENT…: curl, as the machine that this is, to the server that it knows. Notes in KIT_RUN/stranger when
# somebody else answers there: nothing has been sent then.
ask_server() {
  local status=0
  kit_curl --connect-timeout 10 "$@" || status=$?
  case "$status" in
    # curl(1), EXIT CODES: the other side's certificate is not by our CA, or not for this address or time.
    60) note_stranger ;;
    0 | 22) rm -f "$KIT_RUN/stranger" ;;
  esac
  return "$status"
}

# note_stranger: once, for all to see. For everything else it is as if nobody had answered.
note_stranger() {
  [ ! -e "$KIT_RUN/stranger" ] || return 0
  # Without a certificate of the CA nobody is believed yet.
  [ -s "$KIT_IDENTITY/ca.pem" ] || return 0
  printf 'Cannot believe the server at %s: its certificate is not by the CA of this machine (%s); nothing is sent to it\n' \
    "$KIT_TLS" "$(certificate_fingerprint "$KIT_IDENTITY/ca.pem")" >"$KIT_RUN/stranger"
  cat "$KIT_RUN/stranger" >&2
  say_on_console "$(cat "$KIT_RUN/stranger")"
}

# say_on_console TEXT
say_on_console() {
  printf 'kit: %s\n' "$1" >"${KIT_CONSOLE:-/dev/console}" 2>/dev/null || true
}

# note_refusal STATUS FILE: the server does not take us for who we say we are; prove.sh goes on from there.
note_refusal() {
  if [ "$1" = 403 ] && grep -Eq '"code": ?"identity-needed"' "$2" 2>/dev/null; then : >"$KIT_RUN/identity-needed"; fi
}

# post ENDPOINT BODY [FILE]: prints the HTTP status, 000 without an answer; what was answered goes to FILE. The body goes by
# standard input: a command line is everybody's to read (proc(5)).
post() {
  local answer="${3:-$KIT_RUN/answer.$$}" status
  rm -f "$answer"
  status="$(printf '%s' "$2" | ask_server -s -o "$answer" -w '%{http_code}' --max-time "$REPORT_TIMEOUT_SECONDS" \
    -H 'Content-Type: application/json' --data-binary @- "$(machine_url)/$1")" || true
  note_refusal "$status" "$answer"
  [ -n "${3:-}" ] || rm -f "$answer"
  printf '%s' "$status"
}

# report STEP STATUS [SECONDS] [MESSAGE] [LOG FILE]: how something is getting on. Never fails.
report() {
  local body
  # A machine that could not reach the server yet has no boot to speak of.
  [ -n "${KIT_BOOT:-}" ] || return 0
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"step\":\"$1\",\"status\":\"$2\""
  [ -z "${3:-}" ] || body="$body,\"seconds\":$3"
  [ -z "${4:-}" ] || body="$body,\"message\":$(json_string "$(printf '%s' "$4" | head -c 500)")"
  # At most 16 KiB in all, and an escaped byte may need six.
  [ ! -s "${5:-}" ] || body="$body,\"log\":$(tail -c 2000 "$5" | json_escape)"
  post events "$body}" >/dev/null
}

# name_boot: status 0 when this boot has an id, in KIT_BOOT. One from the network brought it along; one from the disk asks
# for it, and keeps it for the agents after this one. Sets CHECK_IN_STATUS otherwise.
name_boot() {
  local answer="$KIT_RUN/boot.answer" id
  if [ -s "$KIT_RUN/boot" ]; then KIT_BOOT="$(cat "$KIT_RUN/boot")"; fi
  [ -z "${KIT_BOOT:-}" ] || return 0
  rm -f "$answer"
  CHECK_IN_STATUS="$(post boots "{\"slot\":\"$KIT_SLOT\"}" "$answer")"
  # There is no boot yet that could be another's: it is the name of the machine that is not believed.
  [ "$CHECK_IN_STATUS" != 403 ] || : >"$KIT_RUN/identity-needed"
  [ "$CHECK_IN_STATUS" = 200 ] || return 1
  id="$(sed -n 's/^boot \([A-Za-z0-9_-]\{1,64\}\)$/\1/p' "$answer" | head -n 1)"
  [ -n "$id" ] || { CHECK_IN_STATUS=000 && return 1; }
  printf '%s\n' "$id" >"$KIT_RUN/.boot.new" && mv "$KIT_RUN/.boot.new" "$KIT_RUN/boot"
  KIT_BOOT="$id"
}

# forget_boot: the server does not know this boot, say because its database is another one. What it said of it is void.
forget_boot() {
  [ -n "$KIT_SLOT" ] || return 0
  rm -f "$KIT_RUN/boot" "$KIT_TARGET"
  KIT_BOOT=''
}

# ask_target KNOWN SECONDS: waits until the server's target has another tag than KNOWN, at most so long. 0: it is in
# KIT_TARGET. 1: no answer. 2: the server has nothing for this machine.
ask_target() {
  local status
  # Only root reads it: digests of secrets are in it.
  status="$(umask 077 && rm -f "$KIT_TARGET.new" && ask_server -s -o "$KIT_TARGET.new" -w '%{http_code}' \
    --max-time $(($2 + POLL_MARGIN_SECONDS)) "$(machine_url)/target?boot=$KIT_BOOT&known=$1&wait=$2")" || return 1
  note_refusal "$status" "$KIT_TARGET.new"
  case "$status" in
    200) ;;
    204 | 4??)
      # Nothing that was allowed before is now.
      rm -f "$KIT_TARGET"
      return 2
      ;;
    *) return 1 ;;
  esac
  if ! is_target "$KIT_TARGET.new"; then
    rm -f "$KIT_TARGET"
    return 2
  fi
  mv "$KIT_TARGET.new" "$KIT_TARGET"
  note_seconds answered
}

# own_address: of the interface with the machine's MAC, or the one it reaches the server from (it may be known by the MAC of a
# card that is not plugged in), or nothing.
own_address() {
  local path wanted
  wanted="$(printf '%s' "$KIT_MAC" | tr - :)"
  for path in "${KIT_SYS:-/sys}"/class/net/*; do
    [ "$(cat "$path/address" 2>/dev/null)" = "$wanted" ] || continue
    ip -4 -o addr show dev "${path##*/}" scope global | sed -n 's|.* inet \([0-9.]*\)[/ ].*|\1|p' | head -n 1 | grep . && return 0
  done
  ip -4 -o route get "$(printf '%s' "$KIT_URL" | sed 's|^http://||; s|:[0-9]*$||')" 2>/dev/null |
    sed -n 's|.* src \([0-9.]*\) .*|\1|p' | grep -v '^127\.' || true
}
