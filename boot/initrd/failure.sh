# What becomes of a machine whose boot failed. Needs ask.sh, kept.sh and the libraries of slots and of identity.
# shellcheck shell=dash
# shellcheck disable=SC2153 # parameters.sh sets KIT_SLOT

# after_failure STEP: status 0: another attempt may do better; 1: only a reboot can.
after_failure() {
  if [ -e "$KIT_RUN/gone" ]; then
    say 'the server has moved on: another attempt would be told the same'
    return 1
  fi
  [ "$KIT_PLAN" = disk ] || return 0
  if [ -e "$KIT_RUN/condemned" ]; then
    say "slot $KIT_SLOT will not be started again: $(cat "$KIT_RUN/condemned")"
    return 1
  fi
  if loader_is_trial; then
    note_trial_failure "$1"
    say "slot $KIT_SLOT is on trial: the boot loader decides what comes next"
    return 1
  fi
  # The machine has nothing better than this slot.
  tell_disk_failure "$1"
}

# note_trial_failure STEP: for the system that comes up in the end to report. No `reason`: that would take the tries that
# are left (slots.sh).
note_trial_failure() {
  is_mount_point "$KIT_OVERLAY" || return 0
  [ -e "$KIT_OVERLAY/slots/$KIT_SLOT" ] || return 0
  set_slot_fields "$KIT_SLOT" failure "$(printf '%s: %s' "$1" "$(failure_text)" | tr '[:cntrl:]' ' ' | head -c 500)" ||
    say "cannot note on kit-overlay why slot $KIT_SLOT failed"
}

failure_text() {
  cat "$KIT_RUN/failure" 2>/dev/null || echo 'the step ended without saying why'
}

# tell_disk_failure STEP: brings up the network, which a start from the disk does without, and tells the server what failed.
# Always returns 0.
tell_disk_failure() {
  local text log="$KIT_RUN/log/$1" failure="$KIT_RUN/failure"
  text="$(failure_text)"
  # The network is a step, with a failure of its own.
  if [ -e "$KIT_RUN/net" ] || run_step "$KIT_LIB/steps/20-network.sh"; then
    if bring_identity && { [ -n "$KIT_BOOT" ] || ask_for_boot; }; then
      report "$1" failed '' "$text" "$log"
      check_in failed "$text"
      deliver
    fi
  fi
  # The rescue prompt shows these.
  export KIT_STEP="$1"
  printf '%s\n' "$text" >"$failure"
}

# bring_identity: the kept one, with a certificate that counts now; nobody is waited for. Status 1 without one.
bring_identity() {
  if ! has_identity && ! find_kept_identity 2>"$KIT_RUN/identity-error"; then
    say "cannot tell the server: $(tail -n 1 "$KIT_RUN/identity-error")"
    return 1
  fi
  if [ -s "$KIT_IDENTITY/mac" ]; then read -r KIT_MAC <"$KIT_IDENTITY/mac"; fi
  export KIT_MAC
  if clock_is_off; then set_clock "$(server_time)"; fi
  if ! certificate_is_due || prove_identity 0 2>"$KIT_RUN/identity-error"; then return 0; fi
  say "cannot tell the server: $(tail -n 1 "$KIT_RUN/identity-error")"
  return 1
}

# identity_says TEXT: what the library has to tell people.
identity_says() {
  say "$1"
}

# ask_for_boot: the server's name for this boot, which all its reports bear; status 1 without one.
ask_for_boot() {
  local body="$KIT_RUN/boot.json" answer="$KIT_RUN/boot.answer" id
  printf '{"slot":"%s"}' "$KIT_SLOT" >"$body"
  if ! ask_once boots "$body" "$answer"; then
    say "the server has no name for this boot: $(tail -n 1 "$answer.error")"
    return 1
  fi
  id="$(sed -n 's/^boot \([A-Za-z0-9_-]\{1,128\}\)$/\1/p' "$answer" | head -n 1)"
  [ -n "$id" ] || return 1
  # For the attempts after this one.
  printf '%s\n' "$id" >"$KIT_RUN/boot-id"
  KIT_BOOT="$id"
  export KIT_BOOT
}
