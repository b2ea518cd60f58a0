# From image to image: when the other slot is written, and when the machine restarts into it. Needs target.sh, slots.sh,
# loader*.sh. The writing itself is kit-update's.
# shellcheck shell=dash

UPDATE_TRIES=3
UPDATE_PAUSE_SECONDS=60
UPDATE_PAUSE_LIMIT_SECONDS=3600
# A restart that was asked for takes place within this time, or it is asked for again.
RESTART_SECONDS=600
SNAPSHOT_BEFORE_SECONDS=180

# follow_image: does what the target asks for, as far as this machine is ready for it. Sets IMAGE_STEP (decide_image).
follow_image() {
  local other before="$IMAGE_STEP"
  IMAGE_STEP=none
  [ -n "$KIT_SLOT" ] || return 0
  other="$(other_slot "$KIT_SLOT")"
  IMAGE_STEP="$(decide_image "$(slot_state "$KIT_SLOT")" "$(slot_state "$other")" "$(staged_as "$other")" "$(target_facts)")"
  # The server goes by what it was told last: a slot that has become ready waits for its word.
  # shellcheck disable=SC2034 # the agent's
  [ "$IMAGE_STEP" = "$before" ] || checked_in=''
  case "$IMAGE_STEP" in
    none) stop_update ;;
    withdraw)
      stop_update
      loader_forget "$other" || true
      ;;
    stage) keep_updating "$other" ;;
    restart)
      stop_update
      restart_into "$other"
      ;;
    # What is ready was written by one that may still be telling the server so.
    wait) update_runs || stop_update ;;
    trial) stop_update ;;
  esac
}

# decide_image RUNNING OTHER STAGED FACTS: RUNNING and OTHER are states of slots; STAGED is `same` when the other slot holds what
# is wanted; FACTS is `<is another image> <stage> <reboot>`, each yes or no.
# none: nothing to do. trial: the last good slot is the other one, it is not touched before this one has passed. stage: the
# other one is to be written. wait: it is ready. restart: into it. withdraw: it shall not be started after all.
decide_image() {
  case "$1:$2:$3:$4" in
    trying:good:*) echo trial ;;
    trying:*) echo none ;;
    good:trying:*:no\ * | good:trying:other:yes\ no\ *) echo withdraw ;;
    *:no\ *) echo none ;;
    *:ready:same:*yes | *:trying:same:*yes) echo restart ;;
    *:ready:same:* | *:trying:same:*) echo wait ;;
    *:yes\ yes\ *) echo stage ;;
    *) echo none ;;
  esac
}

target_facts() {
  local differs=no stage=no reboot=no
  [ -z "$(target_value image)" ] || [ "$(target_value image)" = "$KIT_IMAGE" ] || differs=yes
  if target_is stage; then stage=yes; fi
  if target_is reboot; then reboot=yes; fi
  echo "$differs $stage $reboot"
}

# staged_as SLOT: `same` when it holds the target's image, bundle and arguments.
staged_as() {
  local name
  for name in image bundle arguments; do
    if [ "$(slot_field "$1" "$name")" != "$(target_value "$name" | sed 's/ *$//')" ]; then
      echo other
      return 0
    fi
  done
  echo same
}

# takes_bundle_alone: may the running image take the target's bundle now? While this machine is on its way to another image,
# the bundle comes with that. On trial it is taken: it becomes part of the slot that is tried.
takes_bundle_alone() {
  case "$IMAGE_STEP" in
    # An image that cannot be written must not keep changes of files away for ever; nor one that is held up, say because
    # the channel is paused.
    stage) [ -s "$KIT_UPDATE/error" ] && ! update_runs ;;
    wait) ! target_is stage ;;
    restart) return 1 ;;
    *) return 0 ;;
  esac
}

update_runs() {
  systemctl is-active --quiet kit-update.service
}

# stop_update: nobody wants what is being written any more.
stop_update() {
  [ -e "$KIT_UPDATE/wanted" ] || return 0
  if update_runs; then
    echo 'the image is not wanted any more: stops writing it'
    systemctl stop kit-update.service || true
  fi
  rm -f "$KIT_UPDATE/wanted" "$KIT_UPDATE/error"
}

# keep_updating SLOT: starts kit-update for the target, unless it runs for it or failed at it a short while ago.
keep_updating() {
  local lines
  lines="$(for name in image bundle arguments; do printf '%s %s\n' "$name" "$(target_value "$name" | sed 's/ *$//')"; done)"
  if [ -e "$KIT_UPDATE/wanted" ] && [ "$lines" = "$(grep -v '^rate ' "$KIT_UPDATE/wanted")" ]; then
    if update_runs || ! update_is_due; then return 0; fi
  else
    stop_update
    update_pause='' update_after=''
  fi
  mkdir -p "$KIT_UPDATE"
  printf '%s\nrate %s\n' "$lines" "$(target_rate)" >"$KIT_UPDATE/wanted.new" && mv "$KIT_UPDATE/wanted.new" "$KIT_UPDATE/wanted"
  rm -f "$KIT_UPDATE/error"
  systemctl start kit-update.service || echo "Cannot start kit-update.service: see its journal" | tee "$KIT_UPDATE/error"
}

# update_is_due: an attempt at this target has ended, and the slot is not ready: a pause first, each longer than the last.
update_is_due() {
  local now
  now="$(seconds_now)"
  if [ -z "${update_after:-}" ]; then
    update_pause="${update_pause:-$UPDATE_PAUSE_SECONDS}"
    update_after=$((now + update_pause))
    echo "image $(target_value image) could not be written: will try again in $update_pause s"
    [ -s "$KIT_UPDATE/error" ] || echo 'Cannot write the image: kit-update.service ended without a reason' >"$KIT_UPDATE/error"
    return 1
  fi
  [ "$now" -ge "$update_after" ] || return 1
  update_after=''
  update_pause=$((update_pause * 2 < UPDATE_PAUSE_LIMIT_SECONDS ? update_pause * 2 : UPDATE_PAUSE_LIMIT_SECONDS))
}

# restart_into SLOT
restart_into() {
  local image log="$KIT_RUN/restart.log" now
  now="$(seconds_now)"
  if [ -e "$KIT_RUN/restarting" ] && [ $((now - $(noted_seconds restarting))) -lt "$RESTART_SECONDS" ]; then return 0; fi
  note_seconds restarting
  image="$(slot_field "$1" image)"
  if ! loader_offer "$1" "$UPDATE_TRIES" 2>"$log"; then
    cat "$log" >&2
    report update failed '' "$(tail -n 1 "$log")" "$log"
    return 0
  fi
  echo "restarts into $image in slot $1"
  report update 'done' '' "restarts into $image in slot $1"
  check_in || true
  # What an update may do to the data of a control plane; whether or not that can be had.
  [ ! -s "$KIT_LIVE/etc/kubernetes/manifests/etcd.yaml" ] || timeout "$SNAPSHOT_BEFORE_SECONDS" systemctl start kit-etcd-snapshot.service || true
  systemctl reboot
}
