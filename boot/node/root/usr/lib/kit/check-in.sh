# What a check-in says of this machine: what runs, the slots, the trial, drift. Needs api.sh, slot-json.sh, secret-files.sh.
# shellcheck shell=dash
# shellcheck disable=SC2153 # KIT_BOOT is the environment's, or name_boot's

# A body has at most 16 KiB. Each list is cut where it has so many bytes as JSON.
REASONS_LIMIT_BYTES=3000
DRIFT_LIMIT_BYTES=5000

# check_in: status 0 when the server took it. Sets CHECK_IN_STATUS to the HTTP status.
check_in() {
  CHECK_IN_STATUS="$(post check-in "$(check_in_body)")"
  [ "$CHECK_IN_STATUS" = 204 ]
}

check_in_body() {
  local address drift
  address="$(own_address)"
  printf '{"boot":%s,"phase":"running","image":%s' "$(json_string "$KIT_BOOT")" "$(json_string "$KIT_IMAGE")"
  printf ',"bundle":%s' "$(json_string "$(applied_digest)")"
  [ -z "$address" ] || printf ',"address":%s' "$(json_string "$address")"
  # A machine with more reasons than fit needs its reboot no less.
  printf ',"rebootReasons":%s' "$(json_lines "$REASONS_LIMIT_BYTES" <"$(existing "$KIT_REBOOT_REASONS")")"
  [ -z "$KIT_SLOT" ] || slots_body
  if drift="$(drift_lines)"; then printf ',"drift":%s' "$(printf '%s\n' "$drift" | json_lines "$DRIFT_LIMIT_BYTES")"; fi
  printf '}'
}

existing() {
  if [ -s "$1" ]; then printf '%s' "$1"; else printf /dev/null; fi
}

# slots_body: of a machine that started from a slot.
slots_body() {
  local reason
  printf ',"slot":"%s","slots":%s' "$KIT_SLOT" "$(slots_json)"
  local_checks
  printf ',"checks":"%s"' "$CHECKS"
  reason="$(machine_reasons | awk '!seen[$0]++' | head -c 500 | tr '\n' ';' | sed 's/;$//; s/;/; /g')"
  [ -z "$reason" ] || printf ',"reason":%s' "$(json_string "$reason")"
}

# machine_reasons: what is wrong here, one a line, the worst first.
machine_reasons() {
  slot_field "$KIT_SLOT" reason
  [ "$CHECKS" != failed ] || printf '%s\n' "$CHECKS_REASON"
  [ ! -s "$KIT_RUN/powerwash-failed" ] || cat "$KIT_RUN/powerwash-failed"
  [ ! -s "$KIT_UPDATE/error" ] || cat "$KIT_UPDATE/error"
  [ ! -s "$KIT_RUN/bundle-held" ] || cat "$KIT_RUN/bundle-held"
  [ ! -s "$KIT_RUN/key-unusable" ] || cat "$KIT_RUN/key-unusable"
  [ ! -s "$KIT_SECRETS/problems" ] || sed 's/^/cannot place the secret file /' "$KIT_SECRETS/problems"
  # What of the disk could not be brought into this root (the initrd's persist.sh).
  [ ! -s "$KIT_RUN/persist-problems" ] || cat "$KIT_RUN/persist-problems"
}

# json_lines LIMIT: the lines of standard input as a JSON list of at most so many bytes; each line is cut at 200 bytes.
json_lines() {
  local line text='' item
  while IFS= read -r line; do
    [ -n "$line" ] || continue
    item="$(json_string "$(printf '%s' "$line" | head -c 200)")"
    [ $((${#text} + ${#item})) -lt "$1" ] || break
    text="$text,$item"
  done
  printf '[%s]' "${text#,}"
}
