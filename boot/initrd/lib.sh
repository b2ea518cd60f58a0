# What every step of the initrd shares: where things lie, the console, how to fail.
# shellcheck shell=dash

# Tests point these elsewhere; nothing else does.
: "${KIT_LIB:=/lib/kit}" "${KIT_RUN:=/run/kit}" "${KIT_PROC:=/proc}" "${KIT_SYS:=/sys}" "${KIT_DEV:=/dev}"
# The mount point switch_root goes to. Not under /run, which is moved into it.
: "${KIT_NEWROOT:=/newroot}"

# tenths_now: tenths of a second since the kernel started.
tenths_now() {
  local up rest
  read -r up rest <"$KIT_PROC/uptime"
  rest="${up#*.}"
  echo "$((${up%.*} * 10 + ${rest%"${rest#?}"}))"
}

# as_seconds TENTHS: `32` as `3.2`.
as_seconds() {
  echo "$(($1 / 10)).$(($1 % 10))"
}

# say TEXT: one line on every console, and in the kernel log for the journal of the running system. Never fails: a serial
# port that is named on the command line and is not there answers each write with EIO.
say() {
  local line
  line="$(printf 'kit: [%5ss] %s' "$(as_seconds "$(tenths_now)")" "$*")"
  # Level 7: below the default console level, so that it does not show twice.
  printf '<7>%s\n' "$line" 2>/dev/null >>"$KIT_DEV/kmsg" || true
  show "$line"
}

# show LINE: on every console and nowhere else.
show() {
  local console
  consoles | while read -r console; do
    printf '%s\n' "$1" 2>/dev/null >>"$KIT_DEV/$console" || true
  done
}

# consoles: every console the kernel was given, one name a line (`tty0`, `ttyS0`).
consoles() {
  tr -s ' ' '\n' 2>/dev/null <"$KIT_SYS/class/tty/console/active" | grep . || true
}

# progress TEXT: a line about the step that runs now.
progress() {
  say "${KIT_STEP:-kit}: $*"
  printf '%s\n' "$*"
}

# fail TEXT: ends the step. TEXT is what people and the server are told: "Cannot <do> <thing>: <current value>".
fail() {
  printf '%s\n' "$*" >"$KIT_RUN/failure"
  printf '%s\n' "$*" >&2
  exit 1
}

# fail_as_said: ends the step for the reason that a library has just printed, which is the last line of the step's log.
fail_as_said() {
  fail "$(tail -n 1 "$KIT_RUN/log/$KIT_STEP")"
}

# is_mounted DIRECTORY: is something mounted right there?
is_mounted() {
  awk -v place="$1" '$5 == place { found = 1 } END { exit !found }' "$KIT_PROC/self/mountinfo"
}

# note NAME VALUE: KIT_<NAME> has that value for the steps after this one (read_values in run.sh).
note() {
  mkdir -p "$KIT_RUN/values"
  printf '%s\n' "$2" >"$KIT_RUN/values/$1"
}

# within TENTHS COMMAND…: asks again and again until the command is true; 1 when the time is up.
within() {
  local end
  end=$(($(tenths_now) + $1))
  shift
  until "$@"; do
    [ "$(tenths_now)" -lt "$end" ] || return 1
    sleep 0.2
  done
}
