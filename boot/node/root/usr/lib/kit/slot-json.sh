# What a check-in says of the two slots, as JSON: shared by the initrd and the agent. Needs json.sh, slots.sh, loader.sh.
# shellcheck shell=dash

DEFAULT_BAD_REASON='did not come up in 3 tries'

# slots_json: kit-esp and kit-overlay are mounted.
slots_json() {
  printf '{"a":%s,"b":%s}' "$(slot_json a)" "$(slot_json b)"
}

# slot_json SLOT
slot_json() {
  local state tries reason
  state="$(slot_state "$1")"
  printf '{"state":"%s"' "$state"
  json_field image "$(slot_field "$1" image | head -c 128)"
  json_field bundle "$(slot_field "$1" bundle | head -c 64)"
  tries="$(loader_tries "$1")"
  [ -z "$tries" ] || printf ',"tries":%d' "$tries"
  reason="$(slot_field "$1" reason | head -c 300)"
  if [ "$state" = bad ] && [ -z "$reason" ]; then
    # The initrd notes what it failed at (failure.sh).
    reason="$DEFAULT_BAD_REASON$(slot_field "$1" failure | sed 's/^/: /' | head -c 300)"
  fi
  json_field reason "$reason"
  printf '}'
}

json_field() {
  [ -z "$2" ] || printf ',"%s":%s' "$1" "$(json_string "$2")"
}
