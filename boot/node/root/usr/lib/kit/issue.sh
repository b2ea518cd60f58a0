# What stands above the login prompt: which machine this is and what it runs; the code by which a person takes it in. Needs
# prove.sh.
# shellcheck shell=dash

# write_issue: only when it changed, because showing it anew clears the prompt.
write_issue() {
  local folder="${KIT_ISSUE:-/run/issue.d}" text
  text="$(
    printf '%s  %s\n' "$(uname -n)" "$(own_address)"
    printf 'KatesKit image %s, bundle %.12s, machine %s\n' "$KIT_IMAGE" "$(applied_digest)" "$KIT_MAC"
    [ -z "$KIT_SLOT" ] || slots_line
    printf 'server %s\n' "$KIT_URL"
    ca_line
    identity_lines
    [ ! -s "$KIT_REBOOT_REASONS" ] || printf 'a reboot is needed: %s\n' "$(head -n 1 "$KIT_REBOOT_REASONS")"
  )"
  [ "$text" != "$(cat "$folder/kit.issue" 2>/dev/null)" ] || return 0
  mkdir -p "$folder"
  # agetty takes a backslash for the start of an escape (agetty(8), ISSUE FILES).
  printf '%s\n\n' "$text" | sed 's/\\/\\\\/g' >"$folder/kit.issue"
  agetty --reload 2>/dev/null || true
}

# ca_line: `CA <fingerprint>, identity paired`.
ca_line() {
  [ -s "$KIT_IDENTITY/ca.pem" ] || return 0
  printf 'CA %s%s\n' "$(certificate_fingerprint "$KIT_IDENTITY/ca.pem")" "$(sed 's/^/, identity /' "$KIT_IDENTITY/tier" 2>/dev/null)"
}

# slots_line: `slot a is good, slot b is ready (2025.11.2)`.
slots_line() {
  local other
  other="$(other_slot "$KIT_SLOT")"
  printf 'slot %s is %s, slot %s is %s\n' "$KIT_SLOT" "$(slot_text "$KIT_SLOT")" "$other" \
    "$(slot_text "$other")$(slot_field "$other" image | sed 's/.*/ (&)/')"
}

# slot_text SLOT: its state, and on trial the tries it has left.
slot_text() {
  local state tries
  state="$(slot_state "$1")"
  tries="$(loader_tries "$1")"
  case "$state" in
    trying) printf 'on trial, %s tries left' "${tries:-0}" ;;
    *) printf '%s' "$state" ;;
  esac
}
