# Runs the steps in the order of their numbers, and says of each how it went.
# shellcheck shell=dash

# run_steps: status 1 after the first step that failed; the server and the consoles have been told then.
run_steps() {
  local step
  for step in "$KIT_LIB"/steps/[0-9]*.sh; do
    run_step "$step" || return 1
  done
}

# run_step FILE: in a shell of its own, so that its `set -e` counts and nothing it sets stays.
run_step() {
  local log started took message
  KIT_STEP="$(basename "$1" .sh)"
  export KIT_STEP
  log="$KIT_RUN/log/$KIT_STEP"
  mkdir -p "$KIT_RUN/log"
  rm -f "$KIT_RUN/failure"
  started="$(tenths_now)"
  report "$KIT_STEP" started
  deliver
  if sh "$1" >"$log" 2>&1 </dev/null; then
    took=$(($(tenths_now) - started))
    say "$KIT_STEP: done ($(as_seconds "$took")s)"
    report "$KIT_STEP" 'done' "$took"
    return 0
  else
    message="the step ended with status $?"
  fi
  took=$(($(tenths_now) - started))
  [ ! -s "$KIT_RUN/failure" ] || message="$(cat "$KIT_RUN/failure")"
  say "$KIT_STEP: failed ($(as_seconds "$took")s): $message"
  report "$KIT_STEP" failed "$took" "$message" "$log"
  check_in failed
  deliver
  return 1
}
