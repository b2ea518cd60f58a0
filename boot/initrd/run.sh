# Runs the steps of the machine's plan in order, and says of each how it went.
# shellcheck shell=dash

# run_steps: the steps named in plans/<plan>; status 1 after the first one that failed: the server and the consoles have
# been told then.
run_steps() {
  local step steps
  # What an attempt before this one found out does not count.
  rm -rf "$KIT_RUN/values" "$KIT_RUN/gone"
  steps="$(grep -v '^#' "$KIT_LIB/plans/${KIT_PLAN:-live}")"
  for step in $steps; do
    run_step "$KIT_LIB/steps/$step.sh" || return 1
  done
}

# run_step FILE: in a shell of its own, so that its `set -e` counts and nothing it sets stays but what it notes.
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
    read_values
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

# read_values: what the steps noted (lib.sh) joins what the kernel command line said, or takes its place.
read_values() {
  local name value
  for name in MAC SLOT IMAGE BUNDLE ROOT_HASH ROOT_SIZE BOOT; do
    [ -e "$KIT_RUN/values/$name" ] || continue
    read -r value <"$KIT_RUN/values/$name" || true
    case "$name" in
      MAC) KIT_MAC="$value" ;;
      SLOT) KIT_SLOT="$value" ;;
      IMAGE) KIT_IMAGE="$value" ;;
      BUNDLE) KIT_BUNDLE="$value" ;;
      ROOT_HASH) KIT_ROOT_HASH="$value" ;;
      ROOT_SIZE) KIT_ROOT_SIZE="$value" ;;
      BOOT) KIT_BOOT="$value" ;;
    esac
  done
  export KIT_MAC KIT_SLOT KIT_IMAGE KIT_BUNDLE KIT_ROOT_HASH KIT_ROOT_SIZE KIT_BOOT
}
