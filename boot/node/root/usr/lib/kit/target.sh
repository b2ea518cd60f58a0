# What the server wants of this machine, as it said last (docs/ports-and-endpoints.md, "The target").
# shellcheck shell=dash

CLOCK_OFF_SECONDS=86400

# target_value NAME: a value of the target, or nothing.
target_value() {
  sed -n "s/^$1 //p" "$KIT_TARGET" 2>/dev/null | head -n 1
}

# is_target FILE: can it be believed? What is in it ends up in paths, URLs and kernel command lines.
is_target() {
  has_line "$1" 'tag [0-9a-f]{16}' && has_line "$1" 'image [A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}' &&
    has_line "$1" 'bundle [0-9a-f]{64}' && { ! grep -q '^secrets ' "$1" || has_line "$1" 'secrets [0-9a-f]{64}'; } && ! LC_ALL=C grep -q '[^ -~]' "$1"
}

has_line() {
  grep -Eqx -- "$2" "$1"
}

# target_is NAME: does it say `yes` to it?
target_is() {
  [ "$(target_value "$1")" = yes ]
}

# target_rate: KiB/s; 0 is unbounded.
target_rate() {
  target_value rate | grep -Ex '[0-9]{1,9}' || echo 0
}

# follow_clock: a clock that is more than a day off would refuse manifests and certificates.
follow_clock() {
  local time
  time="$(target_value time | grep -Ex '[1-9][0-9]{0,10}')" || return 0
  set_clock "$time"
}

# set_clock SECONDS: unless it is less than a day off, or a time server has set it, which knows better than ours.
set_clock() {
  local off
  [ ! -e "${KIT_SYNCHRONIZED:-/run/systemd/timesync/synchronized}" ] || return 0
  off=$(($1 - $(date +%s)))
  [ "${off#-}" -gt "$CLOCK_OFF_SECONDS" ] || return 0
  echo "the clock was $off s off: set to the server's"
  date -u -s "@$1" >/dev/null || true
}
