# The rescue prompt on one console: rescue-prompt.sh STEP SECONDS. Ends after SECONDS without a line typed, else when
# the person leaves the shell.
# shellcheck shell=dash

: "${KIT_LIB:=/lib/kit}" "${KIT_RUN:=/run/kit}"
# shellcheck source=lib.sh
. "$KIT_LIB/lib.sh"

cat <<TEXT

  This machine could not boot: $1 failed.
  $(cat "$KIT_RUN/failure" 2>/dev/null)

  What it did:   cat $KIT_RUN/log/$1
  The network:   ip addr; ip route; cat $KIT_RUN/net
  The server:    ${KIT_URL:-unknown}
  It tries again in $2 seconds by itself, or when you leave this prompt with exit.
  reboot -f starts over from the firmware.

TEXT
printf 'rescue# '
asked="$(tenths_now)"
# The first line is read here, because a shell cannot be told to give up waiting for one.
# shellcheck disable=SC3045 # busybox has read -t
if ! IFS= read -r -t "$2" line; then
  # A console without anything behind it (a serial port that is not there) does not wait: it has nothing to read at once.
  while [ "$(tenths_now)" -lt "$((asked + $2 * 10))" ]; do sleep 1; done
  exit 0
fi
printf '%s\n' "$line" >"$KIT_RUN/rescue-line.$$"
cat >"$KIT_RUN/rescue-rc.$$" <<RC
PS1='rescue# '
. '$KIT_RUN/rescue-line.$$'
RC
ENV="$KIT_RUN/rescue-rc.$$"
export ENV
exec sh -i
