# The machine's own checks of this boot: boot-complete.target and whatever is ordered before it; and the root image as
# dm-verity sees it. Needs api.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # CHECKS and CHECKS_REASON are for those who asked

# local_checks: sets CHECKS to waiting, passed or failed, and CHECKS_REASON. Asks for boot-complete.target once in a boot:
# nothing else starts it (systemd.special(7)).
local_checks() {
  local unit
  CHECKS=waiting CHECKS_REASON=''
  unit="$(failed_check)"
  if [ -e "$KIT_RUN/trial-failed" ]; then
    CHECKS=failed CHECKS_REASON="$(slot_field "$KIT_SLOT" reason)"
  elif [ -s "$KIT_RUN/damaged" ]; then
    CHECKS=failed CHECKS_REASON="$(cat "$KIT_RUN/damaged")"
  elif [ -n "$unit" ]; then
    CHECKS=failed
    CHECKS_REASON="boot-complete.target is not reached: $unit failed"
  elif systemctl is-active --quiet boot-complete.target; then
    CHECKS=passed
    [ -e "$KIT_RUN/checks-passed" ] || note_seconds checks-passed
  elif grep -Eq '^(waiting|excused)' "$KIT_RUN/node-check" 2>/dev/null; then
    CHECKS_REASON="$(sed 's/^[a-z]* //' "$KIT_RUN/node-check" | head -c 300)"
  fi
  if [ "$CHECKS" = waiting ] && [ ! -e "$KIT_RUN/checks-asked" ] && systemctl is-active --quiet multi-user.target; then
    : >"$KIT_RUN/checks-asked"
    systemctl start --no-block boot-complete.target || true
  fi
}

# failed_check: the first unit that boot-complete.target requires and that failed, or nothing.
failed_check() {
  local unit
  for unit in $(systemctl show --property=Requires --value boot-complete.target 2>/dev/null); do
    if systemctl is-failed --quiet -- "$unit"; then
      printf '%s\n' "$unit"
      return 0
    fi
  done
}

# check_image: has dm-verity found a damaged block since this boot? Says so once, and has the next start read all of it
# first (docs/disk.md, "Starting from the disk").
check_image() {
  local attempts="$KIT_OVERLAY/slots/$KIT_SLOT.attempts"
  if [ -z "$KIT_SLOT" ] || [ -e "$KIT_RUN/damaged" ]; then return 0; fi
  case "$(dmsetup status kit-root 2>/dev/null)" in
    *' verity C'*) ;;
    *) return 0 ;;
  esac
  printf 'Cannot read all of the image in slot %s: dm-verity found damaged blocks in %s\n' "$KIT_SLOT" "$KIT_IMAGE" >"$KIT_RUN/damaged"
  cat "$KIT_RUN/damaged"
  while [ "$(lines_of "$attempts")" -lt 2 ]; do
    echo damaged >>"$attempts" || break
  done
  sync -f "${attempts%/*}"
  report verity failed '' "$(cat "$KIT_RUN/damaged")"
}
