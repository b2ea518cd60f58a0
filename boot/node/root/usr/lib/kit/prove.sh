# How the agent sees to it that the server knows who this machine is (docs/security.md). The proving itself, which may wait for
# a person for days, is kit-identity's, beside the agent's loop. Needs identity.sh, api.sh, slots.sh.
# shellcheck shell=dash

PROVE_PAUSE_SECONDS=30
PROVE_PAUSE_LIMIT_SECONDS=120

# start_identity: what the initrd left, else what is kept. A key that is kept and cannot be used under this image is noted in
# KIT_RUN/key-unusable (trial.sh).
start_identity() {
  rm -f "$KIT_RUN/key-unusable"
  if has_identity || ! kept_identity "$KIT_PERSIST/machine" >/dev/null; then return 0; fi
  load_identity 2>"$KIT_RUN/identity-log" && return 0
  tail -n 1 "$KIT_RUN/identity-log" | tee "$KIT_RUN/key-unusable"
}

# follow_identity: status 0 when the server can be asked: there is a certificate, and the server has not refused it. One that is
# due is renewed meanwhile. What comes from kit-persist is shown to the server first: the disk may be in another machine now.
follow_identity() {
  if ! identity_runs && needs_proof && proof_is_due; then
    # A TPM may have come late; with another key, nobody would know this machine.
    [ ! -e "$KIT_RUN/key-unusable" ] || start_identity
    if [ ! -e "$KIT_RUN/key-unusable" ] || [ -z "$KIT_SLOT" ] || [ "$(slot_state "$KIT_SLOT")" != trying ]; then
      systemctl start kit-identity.service || echo 'Cannot start kit-identity.service: see its journal'
    fi
  fi
  has_identity && [ ! -e "$KIT_RUN/identity-needed" ] && { [ -e "$KIT_IDENTITY/proved" ] || ! identity_runs; }
}

needs_proof() {
  [ -e "$KIT_RUN/identity-needed" ] || ! has_identity || [ ! -e "$KIT_IDENTITY/proved" ] || certificate_is_due || clock_is_off
}

identity_runs() {
  systemctl is-active --quiet kit-identity.service
}

# proof_is_due: the first time at once, later after a pause, each longer than the last.
proof_is_due() {
  local now
  now="$(seconds_now)"
  [ "$now" -ge "${prove_after:-0}" ] || return 1
  prove_pause="${prove_pause:-$PROVE_PAUSE_SECONDS}"
  prove_after=$((now + prove_pause))
  prove_pause=$((prove_pause * 2 < PROVE_PAUSE_LIMIT_SECONDS ? prove_pause * 2 : PROVE_PAUSE_LIMIT_SECONDS))
}

# note_acceptance: the server takes this machine for what it is: the next proof has no need to wait.
note_acceptance() {
  prove_after=0 prove_pause=''
}

# identity_lines: for people: what this machine has shown of itself, what it waits for, what is wrong.
identity_lines() {
  if [ -s "$KIT_RUN/stranger" ]; then cat "$KIT_RUN/stranger"; fi
  if [ -s "$KIT_RUN/identity-says" ]; then
    cat "$KIT_RUN/identity-says"
  elif [ -s "$KIT_RUN/identity-error" ]; then
    cat "$KIT_RUN/identity-error"
  fi
}
