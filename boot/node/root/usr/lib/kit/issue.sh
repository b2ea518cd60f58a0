# What stands above the login prompt: which machine this is and what it runs.
# shellcheck shell=dash

# write_issue: only when it changed, because showing it anew clears the prompt.
write_issue() {
  local folder="${KIT_ISSUE:-/run/issue.d}" text
  text="$(
    printf '%s  %s\n' "$(uname -n)" "$(own_address)"
    printf 'KatesKit image %s, bundle %.12s, machine %s\n' "$KIT_IMAGE" "$(applied_digest)" "$KIT_MAC"
    printf 'server %s\n' "$KIT_URL"
    [ ! -s "$KIT_REBOOT_REASONS" ] || printf 'a reboot is needed: %s\n' "$(head -n 1 "$KIT_REBOOT_REASONS")"
  )"
  [ "$text" != "$(cat "$folder/kit.issue" 2>/dev/null)" ] || return 0
  mkdir -p "$folder"
  # agetty takes a backslash for the start of an escape (agetty(8), ISSUE FILES).
  printf '%s\n\n' "$text" | sed 's/\\/\\\\/g' >"$folder/kit.issue"
  agetty --reload 2>/dev/null || true
}
