# What follows from changed files: actions.table, applied.
# shellcheck shell=dash

# One that hangs would keep the agent from checking in for ever.
ACTION_SECONDS=300

# action_for PATH: `<line> <action> [argument]` of the first rule that fits /PATH, or nothing.
action_for() {
  local pattern action argument number=0
  while read -r pattern action argument; do
    number=$((number + 1))
    case "$pattern" in '' | '#'*) continue ;; esac
    # shellcheck disable=SC2254 # it is a pattern, and the table is ours
    case "/$1" in
      $pattern)
        printf '%04d %s %s\n' "$number" "$action" "$argument"
        return 0
        ;;
    esac
  done <"$KIT_LIB/actions.table"
}

# reboot_reasons: standard input is every path that is not as it was at boot; prints why that needs a reboot.
reboot_reasons() {
  local path number action argument
  while IFS= read -r path; do
    action_for "$path" | while read -r number action argument; do
      [ "$action" != reboot ] || printf '/%s changed: %s\n' "$path" "$argument"
    done
  done
}

# run_actions FILE: does what the changed paths in FILE ask for, in the order of the table; prints what failed.
run_actions() {
  local path number action argument
  while IFS= read -r path; do
    action_for "$path" | while read -r number action argument; do
      # Units are gathered per path, everything else per rule.
      if [ "$action" = unit ]; then printf '%s unit %s\n' "$number" "$path"; else printf '%s %s %s\n' "$number" "$action" "$argument"; fi
    done
  done <"$1" | sort -u >"$KIT_RUN/actions"
  # PID 1 reads unit files only when told to; everything below may restart a unit.
  ! grep -q '^[0-9]* unit ' "$KIT_RUN/actions" || attempt systemctl daemon-reload
  while read -r number action argument; do
    case "$action" in
      run)
        # The table's words, split at blanks; nothing in them comes from the server.
        # shellcheck disable=SC2086
        attempt $argument
        ;;
      unit) follow_unit "$argument" ;;
      restart-agent) : >"$KIT_RUN/restart-agent" ;;
    esac
  done <"$KIT_RUN/actions"
}

# follow_unit PATH: brings the unit that a file below system/ belongs to in line with it.
follow_unit() {
  local below="${1#*/systemd/system/}"
  case "$below" in
    # Enabled or disabled.
    *.wants/* | *.requires/*)
      if [ -L "$KIT_LIVE/$1" ]; then attempt systemctl start --no-block -- "${below##*/}"; else attempt systemctl stop --no-block -- "${below##*/}"; fi
      ;;
    # A drop-in; ours is not restarted in the middle of its work.
    kit-agent.service | kit-agent.service.d/*) : >"$KIT_RUN/restart-agent" ;;
    *.d/*) attempt systemctl try-restart --no-block -- "${below%%.d/*}" ;;
    */* | *.d | *.wants | *.requires) ;;
    *)
      # Gone, or masked (systemd.unit(5)): a masked unit cannot be restarted.
      if [ -e "$KIT_LIVE/$1" ] && [ "$(readlink "$KIT_LIVE/$1")" != /dev/null ]; then
        attempt systemctl try-restart --no-block -- "$below"
      else
        attempt systemctl stop --no-block -- "$below"
      fi
      ;;
  esac
}

# attempt COMMAND…: prints the command when it fails or does not end, and goes on.
attempt() {
  echo "runs: $*" >&2
  timeout -k 10 "$ACTION_SECONDS" "$@" >&2 </dev/null || echo "$* (status $?)"
}

# run_hooks FILE: each program in /etc/kit/changed.d gets the changed paths on standard input, one absolute path a line.
run_hooks() {
  local hook
  for hook in "$KIT_LIVE"/etc/kit/changed.d/*; do
    if [ ! -f "$hook" ] || [ ! -x "$hook" ]; then continue; fi
    echo "runs: $hook" >&2
    sed 's|^|/|' "$1" | timeout -k 10 "$ACTION_SECONDS" "$hook" >&2 || echo "$hook (status $?)"
  done
}
