# What the agent and the server say to each other (docs/ports-and-endpoints.md, "For machines").
# shellcheck shell=dash

REPORT_TIMEOUT_SECONDS=15
POLL_WAIT_SECONDS=50

# post ENDPOINT BODY: prints the HTTP status, 000 without an answer.
post() {
  curl -s -o /dev/null -w '%{http_code}' --max-time "$REPORT_TIMEOUT_SECONDS" --noproxy '*' \
    -H 'Content-Type: application/json' --data-binary "$2" "$KIT_URL/v1/machines/$KIT_MAC/$1" || true
}

# report STATUS [SECONDS] [MESSAGE] [LOG FILE]: how taking over a bundle is getting on. Never fails.
report() {
  local body
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"step\":\"bundle\",\"status\":\"$1\""
  [ -z "${2:-}" ] || body="$body,\"seconds\":$2"
  [ -z "${3:-}" ] || body="$body,\"message\":$(json_string "$(printf '%s' "$3" | head -c 500)")"
  # At most 16 KiB in all, and an escaped byte may need six.
  [ ! -s "${4:-}" ] || body="$body,\"log\":$(tail -c 2300 "$4" | json_escape)"
  post events "$body}" >/dev/null
}

# check_in: status 0 when the server took it. Sets CHECK_IN_STATUS to the HTTP status.
check_in() {
  local body address reasons=''
  address="$(own_address)"
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"phase\":\"running\",\"image\":$(json_string "$KIT_IMAGE")"
  body="$body,\"bundle\":$(json_string "$(applied_digest)")"
  [ -z "$address" ] || body="$body,\"address\":$(json_string "$address")"
  if [ -s "$KIT_REBOOT_REASONS" ]; then
    # A machine with more reasons than these needs its reboot no less.
    reasons="$(head -n 20 "$KIT_REBOOT_REASONS" | while IFS= read -r reason; do
      printf ',' && json_string "$(printf '%s' "$reason" | head -c 200)"
    done)"
  fi
  CHECK_IN_STATUS="$(post check-in "$body,\"rebootReasons\":[${reasons#,}]}")"
  [ "$CHECK_IN_STATUS" = 204 ]
}

# own_address: of the interface with the machine's MAC, or nothing.
own_address() {
  local path wanted
  wanted="$(printf '%s' "$KIT_MAC" | tr - :)"
  for path in "${KIT_SYS:-/sys}"/class/net/*; do
    [ "$(cat "$path/address" 2>/dev/null)" = "$wanted" ] || continue
    ip -4 -o addr show dev "${path##*/}" scope global | sed -n 's|.* inet \([0-9.]*\)[/ ].*|\1|p' | head -n 1
    return 0
  done
}

# wanted_bundle KNOWN: asks until the server wants another bundle than that or the time is up; prints the digest it wants. Status 1
# when there was no answer, 2 when the server has nothing for this machine.
wanted_bundle() {
  local answer status digest
  answer="$(curl -s -w '\n%{http_code}' --max-time $((POLL_WAIT_SECONDS + 20)) --connect-timeout 10 --noproxy '*' \
    "$KIT_URL/v1/machines/$KIT_MAC/target?bundle=$1&wait=$POLL_WAIT_SECONDS")" || return 1
  status="${answer##*
}"
  case "$status" in
    200) ;;
    204 | 4??) return 2 ;;
    *) return 1 ;;
  esac
  digest="$(printf '%s\n' "$answer" | sed -n 's/^bundle \([0-9a-f]\{64\}\)$/\1/p' | head -n 1)"
  [ -n "$digest" ] || return 2
  printf '%s\n' "$digest"
}
