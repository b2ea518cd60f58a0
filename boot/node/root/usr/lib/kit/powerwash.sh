# Being made new: the next boot is from the network, where the server hands out the plan. Needs slots.sh, loader*.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # checked_in is the agent's: empty when there is something new to tell

# Restarts that led back here: the firmware does not do as it is told, and more of them do not help.
POWERWASH_TRIES=3

# follow_powerwash: status 0 when this machine is about to restart for it.
follow_powerwash() {
  local tries="$KIT_OVERLAY/powerwash-tries" error="$KIT_RUN/powerwash-failed"
  if ! target_is powerwash; then
    rm -f "$error"
    # kit-overlay is made new by a powerwash, and this with it; or the server has taken it back.
    [ ! -e "$tries" ] || rm -f "$tries"
    return 1
  fi
  # It is not tried again before the server has changed its mind, or somebody has restarted the machine.
  [ ! -e "$error" ] || return 1
  [ ! -e "$KIT_RUN/powerwashing" ] || return 0
  # A live system came from the network in the first place.
  if [ -n "$KIT_SLOT" ]; then start_from_network "$tries" || return 1; fi
  : >"$KIT_RUN/powerwashing"
  report powerwash 'done' '' 'restarts from the network to be made new'
  check_in || true
  systemctl reboot
}

# start_from_network TRIES_FILE
start_from_network() {
  local log="$KIT_RUN/powerwash.log"
  stop_update
  if [ "$(lines_of "$1")" -ge "$POWERWASH_TRIES" ]; then
    refuse_powerwash "Cannot start from the network: the firmware came back to the disk $POWERWASH_TRIES times; choose the network in its menu, or put it first in its order"
    rm -f "$1"
    return 1
  fi
  echo try >>"$1"
  sync -f "$KIT_OVERLAY"
  loader_network_once 2>"$log" && return 0
  refuse_powerwash "$(tail -n 1 "$log" | grep . || echo 'Cannot start from the network: the boot loader refuses')"
  return 1
}

refuse_powerwash() {
  printf '%s\n' "$1" | tee "$KIT_RUN/powerwash-failed"
  report powerwash failed '' "$1" "$KIT_RUN/powerwash.log"
  checked_in=''
}
