# Questions to the server whose answer the machine waits for, as patiently as for a download.
# Needs identity.sh.
# shellcheck shell=dash

# post URL BODY ANSWER SECONDS: posts the file BODY; the answer is in the file ANSWER. Status 1: the server said no, 2: it did
# not answer. The reason is in ANSWER.error then.
post() {
  local status
  status="$(kit_curl -sS -o "$3" -w '%{http_code}' --connect-timeout "$4" --max-time "$4" \
    -H 'Content-Type: application/json' --data-binary "@$2" "$1" 2>"$3.error")" || return 2
  case "$status" in 2??) return 0 ;; esac
  printf 'HTTP status %s: %s\n' "$status" "$(refusal "$3")" >"$3.error"
  # A refusal is an answer, except for the two that mean "later" (RFC 9110 §15.5.9, RFC 6585 §4).
  case "$status" in
    408 | 429) return 2 ;;
    4??) return 1 ;;
    *) return 2 ;;
  esac
}

# ask_once ENDPOINT BODY ANSWER: the same to that endpoint of this machine, with what proves who it is.
ask_once() {
  post "$KIT_TLS/v1/machines/$KIT_MAC/$1" "$2" "$3" 20
}

# ask ENDPOINT BODY ANSWER: the same, again and again while the server stays away (download.sh says for how long).
# Fails the step without an answer.
ask() {
  local attempt=1 pause=1 status
  while :; do
    status=0
    ask_once "$@" || status=$?
    case "$status" in
      0) return 0 ;;
      1)
        # Not known, or older than another boot of this machine: only a boot with a new name can go on (init asks for this).
        if grep -q '^HTTP status 40[49]:' "$3.error"; then : >"$KIT_RUN/gone"; fi
        fail "Cannot go on: the server refused what this machine said ($1): $(tail -n 1 "$3.error")"
        ;;
    esac
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] ||
      fail "Cannot go on: the server at $KIT_TLS does not answer ($1, $attempt attempts): $(tail -n 1 "$3.error")"
    progress "the server does not answer ($1: $(tail -n 1 "$3.error")); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2))
    [ "$pause" -le "$DOWNLOAD_PAUSE_LIMIT_SECONDS" ] || pause="$DOWNLOAD_PAUSE_LIMIT_SECONDS"
  done
}
