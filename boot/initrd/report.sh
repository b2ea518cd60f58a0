# What the server is told. Reports wait in a queue until there is a network, all but events also until the machine has proved
# who it is; they never fail a boot. Needs identity.sh and ask.sh to deliver them.
# A boot from the disk has no boot id, and so nothing that it could report, until the server gives it one.
# shellcheck shell=dash

# The server takes 16 KiB in all, and an escaped byte may need six: the second figure is for a log of control characters.
LOG_TAIL_BYTES=4096
LOG_TAIL_WORST_BYTES=2300

# report STEP STATUS [TENTHS] [MESSAGE] [LOG FILE]: how a step is getting on (POST …/events).
report() {
  local body
  [ -n "$KIT_BOOT" ] || return 0
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"step\":$(json_string "$1"),\"status\":\"$2\""
  [ -z "${3:-}" ] || body="$body,\"seconds\":$(as_seconds "$3")"
  [ -z "${4:-}" ] || body="$body,\"message\":$(json_string "$(printf '%s' "$4" | head -c 500)")"
  [ ! -s "${5:-}" ] || body="$body,\"log\":$(log_tail "$5")"
  enqueue events "$body}"
}

# log_tail FILE: its last lines as a JSON string.
log_tail() {
  local text
  text="$(tail -c "$LOG_TAIL_BYTES" "$1" | json_escape)"
  [ "${#text}" -le $((LOG_TAIL_WORST_BYTES * 6)) ] || text="$(tail -c "$LOG_TAIL_WORST_BYTES" "$1" | json_escape)"
  printf '%s' "$text"
}

# check_in PHASE [REASON]: what the machine is now (POST …/check-in).
check_in() {
  [ -n "$KIT_BOOT" ] || return 0
  enqueue check-in "$(check_in_body "$@")"
}

# check_in_body PHASE [REASON]
check_in_body() {
  local body address=''
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"phase\":\"$1\",\"image\":$(json_string "$KIT_IMAGE")"
  [ ! -e "$KIT_RUN/net" ] || address="$(sed -n 's/^address //p' "$KIT_RUN/net")"
  [ -z "$address" ] || body="$body,\"address\":$(json_string "$address")"
  [ -z "${KIT_SLOT:-}" ] || body="$body,\"slot\":$(json_string "$KIT_SLOT")"
  if slots_can_be_read; then body="$body,\"slots\":$(slots_json)"; fi
  [ -z "${2:-}" ] || body="$body,\"reason\":$(json_string "$(printf '%s' "$2" | head -c 500)")"
  printf '%s' "$body}"
}

# slots_can_be_read: what they are is on kit-esp and kit-overlay. Steps that have not read the library know nothing of them.
slots_can_be_read() {
  command -v slots_json >/dev/null && is_mount_point "$KIT_ESP" && is_mount_point "$KIT_OVERLAY"
}

# enqueue ENDPOINT BODY
enqueue() {
  local number=1
  mkdir -p "$KIT_RUN/queue"
  [ ! -e "$KIT_RUN/queue/last" ] || read -r number <"$KIT_RUN/queue/last"
  number=$((number + 1))
  echo "$number" >"$KIT_RUN/queue/last"
  printf '%s' "$2" >"$KIT_RUN/queue/$(printf '%06d' "$number").$1"
}

# deliver: sends what waits, oldest first, until the server stops answering. Always returns 0.
deliver() {
  local file answer="$KIT_RUN/queue/answer" base status
  [ -e "$KIT_RUN/net" ] || return 0
  for file in "$KIT_RUN"/queue/0*; do
    [ -e "$file" ] || return 0
    base="$KIT_TLS"
    if ! has_identity; then
      [ "${file##*.}" = events ] || continue
      base="$KIT_URL"
    fi
    status=0
    post "$base/v1/machines/$KIT_MAC/${file##*.}" "$file" "$answer" 5 || status=$?
    case "$status" in
      0) rm -f "$file" ;;
      1)
        # Refused for good (an old boot id, for one): sending it again cannot help.
        say "the server refused a report (${file##*.}): $(tail -n 1 "$answer.error")"
        rm -f "$file"
        ;;
      *) return 0 ;;
    esac
  done
}
