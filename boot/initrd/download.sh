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
  : >"$file"
  [ -z "$size" ] || watch_progress file "$file" "$size"
  fetch_to_end "$url" "$file"
  [ -z "$size" ] || stop_watching
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
  keep_fetching "$1" file "$2"
}

fetch_file() {
  wget -q -c -T "$DOWNLOAD_STALL_SECONDS" -O "$2" "$1"
}

arrived_file() {
  stat -c %s "$1" 2>/dev/null || echo 0
}

restart_file() {
  : >"$1"
}

# keep_fetching URL KIND TARGET: calls `fetch_<kind> URL TARGET`, which goes on where it stopped, until it succeeds.
# `arrived_<kind> TARGET` tells how many bytes are there, `restart_<kind> TARGET` throws them away.
keep_fetching() {
  local errors="$KIT_RUN/download-error" attempt=1 pause=1 most=0 arrived
  until "fetch_$2" "$1" "$3" 2>"$errors"; do
    # A part that is no part of what the server has now.
    if grep -q 'error: HTTP/[0-9.]* 416' "$errors"; then "restart_$2" "$3"; else refuse_answer "$1" "$errors"; fi
    # More of it will not fit next time either.
    if grep -q 'No space left' "$errors"; then
      [ "$2" != file ] || rm -f "$3"
      fail "Cannot download $1: there is no room left for it"
    fi
    arrived="$("arrived_$2" "$3")"
    # A line that breaks every few megabytes gets there too.
    if [ "$arrived" -gt "$most" ]; then attempt=1 pause=1 most="$arrived"; fi
    [ "$attempt" -lt "$DOWNLOAD_ATTEMPTS" ] ||
      fail "Cannot download $1: $(tail -n 1 "$errors") ($attempt attempts, $arrived bytes arrived)"
    progress "download broke off at $((arrived / 1048576)) MiB ($(tail -n 1 "$errors")); again in $pause s"
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2))
    [ "$pause" -le "$DOWNLOAD_PAUSE_LIMIT_SECONDS" ] || pause="$DOWNLOAD_PAUSE_LIMIT_SECONDS"
  done
}

# refuse_answer URL ERRORS: fails the step when the server has said no. 4xx is an answer, except for the two that mean
# "later" (RFC 9110 §15.5.9, RFC 6585 §4).
refuse_answer() {
  grep 'error: HTTP/[0-9.]* 4' "$2" | grep -qv ' 4\(08\|29\)' || return 0
  # What this boot was told to fetch is no more: no attempt with the same arguments can do better (init asks for this).
  if grep -q 'error: HTTP/[0-9.]* 4\(04\|10\)' "$2"; then : >"$KIT_RUN/gone"; fi
  fail "Cannot download $1: $(tail -n 1 "$2")"
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

# watch_progress KIND TARGET SIZE: a line for each tenth but the last, in the background until stop_watching.
watch_progress() {
  show_progress "$@" &
  watcher=$!
  # However the step ends, nobody is left behind to watch.
  trap stop_watching EXIT
}

stop_watching() {
  kill "$watcher" 2>/dev/null || true
}

show_progress() {
  local shown=0 tenth
  # Not with the file that stream.sh has open: this sleep outlives its watcher for a moment.
  while sleep 0.3 4>&-; do
    tenth=$(($("arrived_$1" "$2") * 10 / $3))
    [ "$tenth" -gt "$shown" ] || continue
    [ "$tenth" -lt 10 ] || return 0
    shown="$tenth"
    progress "${tenth}0% of $(($3 / 1048576)) MiB"
  done
}
