# Downloads that are verified, and continued when the network or the server goes away.
# shellcheck shell=dash

# Eight attempts in a row that bring nothing, with these pauses, outlast a server restart and a switch that comes back:
# two minutes.
DOWNLOAD_ATTEMPTS=8
DOWNLOAD_PAUSE_LIMIT_SECONDS=30
DOWNLOAD_STALL_SECONDS=20

# download URL FILE SHA256 [SIZE BYTES]: fails the step unless FILE is then what the digest says.
# With a size it says on the console how far it is.
download() {
  local url="$1" file="$2" sha256="$3" size="${4:-}" digest
  watcher=''
  : >"$file"
  if [ -n "$size" ]; then
    watch_progress "$file" "$size" &
    watcher=$!
    # However the step ends, nobody is left behind to watch.
    trap 'kill "$watcher" 2>/dev/null || true' EXIT
  fi
  fetch_to_end "$url" "$file"
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
  check_size "$url" "$file" "$size"
  [ -z "$size" ] || progress "100% of $((size / 1048576)) MiB"
  # From the file in memory, afterwards: wget | tee | sha256sum took 11.2 s for 77 MiB in an emulated machine, one after
  # the other 2.2 s and 2.3 s. Pipes pass 4 KiB at a time.
  digest="$(sha256sum <"$file" | cut -d ' ' -f 1)"
  if [ "$digest" != "$sha256" ]; then
    rm -f "$file"
    fail "Cannot use $url: its sha256 is $digest and should be $sha256"
  fi
}

# fetch_to_end URL FILE: fails the step when the server says no or stays away.
fetch_to_end() {
  local attempt=1 pause=1 most=0 arrived
  until wget -q -c -T "$DOWNLOAD_STALL_SECONDS" -O "$2" "$1" 2>"$2.error"; do
    # 4xx is an answer, except for the two that mean "later" (RFC 9110 §15.5.9, RFC 6585 §4), and 416: a part that is
    # no part of what the server has now.
    if grep -q 'error: HTTP/[0-9.]* 416' "$2.error"; then
      : >"$2"
    elif grep 'error: HTTP/[0-9.]* 4' "$2.error" | grep -qv ' 4\(08\|29\)'; then
      fail "Cannot download $1: $(tail -n 1 "$2.error")"
    fi
    # More of it will not fit next time either.
    if grep -q 'No space left' "$2.error"; then
      rm -f "$2"
      fail "Cannot download $1: there is no memory left for it"
    fi
    arrived="$(stat -c %s "$2")"
    # A line that breaks every few megabytes gets there too.
    if [ "$arrived" -gt "$most" ]; then attempt=1 pause=1 most="$arrived"; fi
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] ||
      fail "Cannot download $1: $(tail -n 1 "$2.error") ($attempt attempts, $arrived bytes arrived)"
    progress "download broke off at $((arrived / 1048576)) MiB ($(tail -n 1 "$2.error")); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2))
    [ "$pause" -le "$DOWNLOAD_PAUSE_LIMIT_SECONDS" ] || pause="$DOWNLOAD_PAUSE_LIMIT_SECONDS"
  done
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
  while sleep 0.3; do
    tenth=$(($(stat -c %s "$1" 2>/dev/null || echo 0) * 10 / $2))
    [ "$tenth" -gt "$shown" ] || continue
    [ "$tenth" -lt 10 ] || return 0
    shown="$tenth"
    progress "${tenth}0% of $(($2 / 1048576)) MiB"
  done
}
