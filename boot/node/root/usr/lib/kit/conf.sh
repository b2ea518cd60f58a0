# The agent's own settings: the overlay file /etc/kit/agent.conf, `NAME=number` a line. Read, never run.
# shellcheck shell=dash

# conf_number NAME DEFAULT: a whole number of at most nine digits, else the default.
conf_number() {
  local value
  value="$(sed -n "s/^[[:space:]]*$1=\"\{0,1\}\([0-9]\{1,9\}\)\"\{0,1\}[[:space:]]*\$/\1/p" "$KIT_LIVE/etc/kit/agent.conf" 2>/dev/null | tail -n 1)"
  # A number with a zero in front would count as octal.
  value="$(printf '%s' "$value" | sed 's/^0*\([0-9]\)/\1/')"
  printf '%s\n' "${value:-$2}"
}
