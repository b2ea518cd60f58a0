# A slot on trial, and what follows from a good boot (docs/disk.md, "On trial"). Needs checks.sh, slots.sh, loader*.sh, conf.sh.
# shellcheck shell=dash
# shellcheck disable=SC2153,SC2034 # CHECKS is the answer of checks.sh; checked_in is the agent's

ALONE_SECONDS_DEFAULT=600
TRIAL_SECONDS_DEFAULT=1800
# A server that said something so long ago still counts as there.
ANSWERING_SECONDS=120
# After a change of bundle the checks have to hold for so long.
BUNDLE_PROVEN_SECONDS=60

# follow_trial: does what is due now. Sets CHECKS.
follow_trial() {
  local verdict
  local_checks
  if [ -e "$KIT_RUN/trial-failed" ]; then return 0; fi
  case "$(slot_state "$KIT_SLOT")" in
    good)
      [ "$CHECKS" != passed ] || note_good_boot
      ;;
    trying)
      verdict="$(trial_verdict)"
      case "$verdict" in
        good*) pass_trial "${verdict#good }" ;;
        bad*)
          [ "$CHECKS" != waiting ] || verdict="$verdict${CHECKS_REASON:+: $CHECKS_REASON}"
          fail_trial "${verdict#bad }"
          ;;
      esac
      ;;
  esac
}

# trial_verdict: decide_trial about this machine as it is now.
trial_verdict() {
  local good=no checks="$CHECKS"
  if [ "$CHECKS" = failed ]; then
    echo "bad $CHECKS_REASON"
    return 0
  fi
  if target_is good; then good=yes; fi
  # The image before this one could use the key (prove.sh). That the server refuses it is no fault of the image: the one before
  # would be refused as well.
  if [ "$checks" = passed ] && [ -e "$KIT_RUN/key-unusable" ]; then checks=keyless; fi
  decide_trial "$checks:$good" "$(seconds_now)" "$(noted_seconds answered)" "$(noted_seconds checks-passed)" \
    "$(conf_number ALONE_SECONDS "$ALONE_SECONDS_DEFAULT")" "$(conf_number TRIAL_SECONDS "$TRIAL_SECONDS_DEFAULT")" \
    "$(trial_start)"
}

# trial_start: when the trial began: not while something was awaited that is no fault of the image (kubernetes-health.sh).
trial_start() {
  local start excused
  start="$(noted_seconds handed-over)" excused="$(noted_seconds node-excused)"
  echo $((excused > start ? excused : start))
}

# decide_trial CHECKS:CONFIRMED NOW ANSWERED PASSED ALONE TRIAL [START]: `wait`, `good <why>` or `bad <why>`. Times are seconds
# since the kernel started; ANSWERED: the server's last target, PASSED: the checks; 0 is never. START: when the initrd handed
# over, for it may have waited for hours, for a person or a server.
decide_trial() {
  local now="$2" answered="$3" alone_since="$4" alone="$5" trial="$6" start="${7:-0}"
  [ "$answered" -le "$alone_since" ] || alone_since="$answered"
  case "$1" in
    passed:yes) echo 'good confirmed by the server' ;;
    passed:*)
      if [ $((now - alone_since)) -ge "$alone" ]; then
        echo "good the server has not answered for $alone s"
      # A server that is away never takes a machine back: it is waited for until the line above is true.
      elif [ $((now - start)) -ge "$trial" ] && [ "$answered" -gt 0 ] && [ $((now - answered)) -lt "$ANSWERING_SECONDS" ]; then
        echo "bad the server has not confirmed it within $trial s"
      else
        echo wait
      fi
      ;;
    keyless:*) if [ $((now - start)) -ge "$trial" ]; then echo 'bad this image cannot use the key of the machine'; else echo wait; fi ;;
    *) if [ $((now - start)) -ge "$trial" ]; then echo "bad boot-complete.target was not reached within $trial s"; else echo wait; fi ;;
  esac
}

# pass_trial WHY
pass_trial() {
  if ! loader_bless "$KIT_SLOT"; then
    report trial failed '' "Cannot call slot $KIT_SLOT good: the boot loader's state cannot be written"
    return 0
  fi
  echo "slot $KIT_SLOT is good: $1"
  note_good_boot
  report trial 'done' "$(seconds_now)" "slot $KIT_SLOT is good: $1"
  checked_in=''
}

# fail_trial WHY: the slot is not started again. The machine restarts where that brings something better; without another
# slot it stays as it is, for people to look at and for the next image to come.
fail_trial() {
  local text="slot $KIT_SLOT ($KIT_IMAGE) is bad: $1"
  echo "$text"
  loader_condemn "$KIT_SLOT" "$1" || return 0
  : >"$KIT_RUN/trial-failed"
  # What cannot be told now is told by the system that comes after this one.
  if name_boot; then
    report trial failed "$(seconds_now)" "$text"
    check_in || true
  fi
  checked_in=''
  if [ -n "$(good_slots)" ]; then systemctl reboot; fi
}

# note_good_boot: once in a boot, and again when a changed bundle has proven itself: this is what to come back to.
note_good_boot() {
  local bundle
  bundle="$(slot_field "$KIT_SLOT" bundle)"
  if [ "$(cat "$KIT_RUN/good-boot" 2>/dev/null)" = "$bundle" ]; then return 0; fi
  if [ -e "$KIT_RUN/bundle-changed" ] && [ $(($(seconds_now) - $(noted_seconds bundle-changed))) -lt "$BUNDLE_PROVEN_SECONDS" ]; then return 0; fi
  set_slot_fields "$KIT_SLOT" bundle-good "$bundle" && raise_epoch || return 0
  rm -f "$KIT_OVERLAY/slots/$KIT_SLOT.attempts" && sync -f "$KIT_OVERLAY/slots"
  printf '%s\n' "$bundle" >"$KIT_RUN/good-boot"
  # Not under the hands of who writes the other slot.
  if ! systemctl is-active --quiet kit-update.service; then drop_unused_bundles; fi
}

# raise_epoch: older security epochs are refused from now on.
raise_epoch() {
  local epoch file="$KIT_PERSIST/machine/epoch"
  epoch="$(slot_field "$KIT_SLOT" epoch | grep -Ex '[0-9]{1,9}')" || return 0
  [ "$epoch" -gt "$(grep -Ex '[0-9]{1,9}' "$file" 2>/dev/null || echo -1)" ] || return 0
  mkdir -p "${file%/*}" && printf '%s\n' "$epoch" >"$file.new" && sync "$file.new" && mv "$file.new" "$file" && sync -f "${file%/*}" && return 0
  complain "Cannot write $file: an older image would be taken for new enough"
}
