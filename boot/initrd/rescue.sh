# What happens after a step failed: a prompt on every console, and another attempt after a minute of nobody typing.
# shellcheck shell=dash

RESCUE_SECONDS=60

# rescue STEP: returns when it is time to try again.
rescue() {
  local console shells=''
  for console in $(consoles); do
    # A virtual console's shell belongs on a real one: tty0 is only a name for whichever is shown.
    [ "$console" != tty0 ] || console=tty1
    [ -c "$KIT_DEV/$console" ] || continue
    # A session of its own with this terminal: job control and Ctrl-C work.
    setsid -c sh "$KIT_LIB/rescue-prompt.sh" "$1" "$RESCUE_SECONDS" \
      0<>"$KIT_DEV/$console" 1>&0 2>&1 &
    shells="$shells $!"
  done
  # Without any console there is nobody to wait for.
  [ -n "$shells" ] || sleep "$RESCUE_SECONDS"
  wait
}
