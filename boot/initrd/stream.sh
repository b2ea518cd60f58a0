# A download straight onto a partition: nothing of it is kept anywhere else. Needs download.sh.
# shellcheck shell=dash

# Smaller ones are there at once.
SHOWN_FROM_BYTES=4194304

# stream URL DEVICE SIZE: fails the step unless SIZE bytes got onto the device. What they are is checked by who reads them.
stream() {
  local arrived
  STREAM_SIZE="$3"
  # wget writes to this very file description, so its position is how far wget came, whenever and however that ended:
  # no pipe (4 KiB at a time) and no guess.
  exec 4<>"$2" || fail "Cannot write to $2"
  [ "$3" -lt "$SHOWN_FROM_BYTES" ] || watch_progress device "$2" "$3"
  keep_fetching "$1" device "$2"
  [ "$3" -lt "$SHOWN_FROM_BYTES" ] || stop_watching
  arrived="$(arrived_device)"
  exec 4>&-
  [ "$arrived" -eq "$3" ] || fail "Cannot use $1: it has $arrived bytes and should have $3"
  [ "$3" -lt "$SHOWN_FROM_BYTES" ] || progress "100% of $(($3 / 1048576)) MiB"
}

fetch_device() {
  local from
  from="$(arrived_device)"
  [ "$from" -lt "$STREAM_SIZE" ] || return 0
  # A 206 is nothing to wget without a file of its own to continue (docs/ports-and-endpoints.md, `?from=`).
  [ "$from" -eq 0 ] || set -- "$1?from=$from" "$2"
  wget -q -T "$DOWNLOAD_STALL_SECONDS" -O - "$1" >&4 && return 0
  if grep -q 'short write\|write error' "$KIT_RUN/download-error"; then
    fail "Cannot write to $2: $(tail -n 1 "$KIT_RUN/download-error")"
  fi
  return 1
}

# arrived_device: /proc/self is sed, which has inherited the file description.
arrived_device() {
  sed -n 's/^pos:[[:space:]]*//p' "$KIT_PROC/self/fdinfo/4"
}

restart_device() {
  exec 4<>"$1"
}
