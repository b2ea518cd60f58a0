# Questions to the server whose answer the machine waits for, as patiently as for a download.
# shellcheck shell=dash

# ask_once ENDPOINT BODY ANSWER: posts the file BODY; the answer is in the file ANSWER. Status 1: the server said no,
# 2: it did not answer. The reason is in ANSWER.error then.
ask_once() {
  wget -q -T 20 -O "$3" --header 'Content-Type: application/json' --post-file "$2" \
    "$KIT_URL/v1/machines/$KIT_MAC/$1" 2>"$3.error" && return 0
  # A refusal is an answer, except for the two that mean "later" (RFC 9110 §15.5.9, RFC 6585 §4).
  if grep 'error: HTTP/[0-9.]* 4' "$3.error" | grep -qv ' 4\(08\|29\)'; then return 1; fi
  return 2
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
        if grep -q 'error: HTTP/[0-9.]* 40[49]' "$3.error"; then : >"$KIT_RUN/gone"; fi
        fail "Cannot go on: the server refused what this machine said ($1): $(tail -n 1 "$3.error")"
        ;;
    esac
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] ||
      fail "Cannot go on: the server at $KIT_URL does not answer ($1, $attempt attempts): $(tail -n 1 "$3.error")"
    progress "the server does not answer ($1: $(tail -n 1 "$3.error")); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2))
    [ "$pause" -le "$DOWNLOAD_PAUSE_LIMIT_SECONDS" ] || pause="$DOWNLOAD_PAUSE_LIMIT_SECONDS"
  done
}
