# The clock: a machine whose battery is dead starts years ago, when no manifest has been signed yet.
# shellcheck shell=dash

CLOCK_TOLERANCE_SECONDS=86400

# set_clock SECONDS: sets the clock when it is more than a day off. Time goes on from there, so that it is said once.
set_clock() {
  local now off
  [ -n "$1" ] || return 0
  now="$(date +%s)"
  off=$((now - $1))
  [ "${off#-}" -gt "$CLOCK_TOLERANCE_SECONDS" ] || return 0
  if date -u -s "@$1" >/dev/null; then
    say "set the clock, which was $((${off#-} / 86400)) days off, to $(date -u '+%Y-%m-%d %H:%M') as the server has it"
  else
    say "cannot set the clock, which is $((${off#-} / 86400)) days off"
  fi
}
