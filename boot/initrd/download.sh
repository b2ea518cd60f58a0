# Downloads that are verified: hashed while they stream, continued when the network or the server goes away.
# shellcheck shell=dash

# Eight attempts with these pauses outlast a server restart and a switch that comes back: two minutes.
DOWNLOAD_ATTEMPTS=8
DOWNLOAD_PAUSE_LIMIT_SECONDS=30
DOWNLOAD_STALL_SECONDS=20

# download URL FILE SHA256 [SIZE BYTES]: fails the step unless FILE is then what the digest says.
# With a size it says on the console how far it is.
download() {
  local url="$1" file="$2" sha256="$3" size="${4:-}" watcher='' digest
  rm -f "$file" "$file.digest"
  : >"$file"
  if [ -n "$size" ]; then
    watch_progress "$file" "$size" &
    watcher=$!
  fi
  fetch_to_end "$url" "$file"
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
  check_size "$url" "$file" "$size"
  [ -z "$size" ] || progress "100% of $((size / 1048576)) MiB"
  digest="$(cut -d ' ' -f 1 "$file.digest" 2>/dev/null || true)"
  # Only the first attempt hashes as it goes: a continued one starts in the middle.
  [ -n "$digest" ] || digest="$(sha256sum <"$file" | cut -d ' ' -f 1)"
  if [ "$digest" != "$sha256" ]; then
    rm -f "$file"
    fail "Cannot use $url: its sha256 is $digest and should be $sha256"
  fi
}

# fetch_to_end URL FILE: fails the step when the server says no or stays away.
fetch_to_end() {
  local attempt=1 pause=1 status
  status="$(fetch_and_hash "$1" "$2")"
  while [ "$status" -ne 0 ]; do
    rm -f "$2.digest"
    # 4xx is an answer, except for the two that mean "later" (RFC 9110 §15.5.9, RFC 6585 §4), and 416: a part that is
    # no part of what the server has now.
    if grep -q 'error: HTTP/[0-9.]* 416' "$2.error"; then
      : >"$2"
    elif grep 'error: HTTP/[0-9.]* 4' "$2.error" | grep -qv ' 4\(08\|29\)'; then
      fail "Cannot download $1: $(tail -n 1 "$2.error")"
    fi
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] ||
      fail "Cannot download $1: $(tail -n 1 "$2.error") ($attempt attempts, $(stat -c %s "$2") bytes arrived)"
    progress "download broke off at $(($(stat -c %s "$2") / 1048576)) MiB ($(tail -n 1 "$2.error")); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2))
    [ "$pause" -le "$DOWNLOAD_PAUSE_LIMIT_SECONDS" ] || pause="$DOWNLOAD_PAUSE_LIMIT_SECONDS"
    status=0
    wget -q -c -T "$DOWNLOAD_STALL_SECONDS" -O "$2" "$1" 2>"$2.error" || status=$?
  done
}

# fetch_and_hash URL FILE: one pass; prints wget's exit status and leaves the digest in FILE.digest.
fetch_and_hash() {
  local status=0
  # The pipeline's own status would be sha256sum's.
  {
    wget -q -T "$DOWNLOAD_STALL_SECONDS" -O - "$1" 2>"$2.error" || status=$?
    echo "$status" >"$2.status"
  } | tee "$2" | sha256sum >"$2.digest"
  cat "$2.status"
}

# check_size URL FILE [SIZE]
check_size() {
  local arrived
  [ -n "$3" ] || return 0
  arrived="$(stat -c %s "$2")"
  [ "$arrived" -eq "$3" ] && return 0
  rm -f "$2"
  fail "Cannot use $1: it has $arrived bytes and should have $3"
}

# watch_progress FILE SIZE: a line for each tenth but the last, until it is killed.
watch_progress() {
  local shown=0 tenth
  while sleep 0.2; do
    tenth=$(($(stat -c %s "$1" 2>/dev/null || echo 0) * 10 / $2))
    [ "$tenth" -gt "$shown" ] || continue
    [ "$tenth" -lt 10 ] || return 0
    shown="$tenth"
    progress "${tenth}0% of $(($2 / 1048576)) MiB"
  done
}
