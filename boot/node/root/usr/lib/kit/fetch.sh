# Getting parts of an image's files over HTTP straight to where they belong: continued when the line breaks, bounded in
# speed, counted. Needs paths.sh.
# shellcheck shell=dash

# Eight attempts in a row that bring nothing, with these pauses, outlast a server restart: two minutes.
FETCH_ATTEMPTS=8
FETCH_PAUSE_LIMIT_SECONDS=30
FETCH_STALL_SECONDS=30
# Of a manifest, a signature or a list of chunks.
TEXT_LIMIT_BYTES=16777216

# polite_curl ARGUMENT…: at most FETCH_RATE KiB/s, and no waiting for a server that has gone.
polite_curl() {
  [ "${FETCH_RATE:-0}" = 0 ] || set -- --limit-rate "${FETCH_RATE}K" "$@"
  curl -sS --fail --noproxy '*' --connect-timeout 10 --speed-limit 1 --speed-time "$FETCH_STALL_SECONDS" "$@"
}

# fetch_text URL FILE: a small file, whole or not at all. Status 1 with the reason on standard error.
fetch_text() {
  local status=0
  polite_curl --retry 3 --retry-connrefused --max-time 300 --max-filesize "$TEXT_LIMIT_BYTES" -o "$2.part" "$1" || status=$?
  if [ "$status" != 0 ] || [ ! -s "$2.part" ]; then
    rm -f "$2.part"
    echo "Cannot download $1 (curl status $status)" >&2
    return 1
  fi
  count_fetched "$(stat -c %s "$2.part")"
  mv "$2.part" "$2"
}

# fetch_range URL FROM BYTES TARGET SEEK: that part of the file to that place of TARGET, a file or a device. Status 1 with the
# reason on standard error; 2 when the server does not serve parts.
fetch_range() {
  local url="$1" from="$2" left="$3" target="$4" seek="$5" attempt=1 pause=1 got status
  while [ "$left" -gt 0 ]; do
    fetch_once "$url" "$from" "$left" "$target" "$seek"
    status=$?
    [ "$status" = 0 ] || [ "$status" = 3 ] || return "$status"
    got="$(cat "$KIT_UPDATE/fetch.got")"
    count_fetched "$got"
    from=$((from + got)) seek=$((seek + got)) left=$((left - got))
    [ "$left" -gt 0 ] || break
    # A line that breaks every few megabytes gets there too.
    if [ "$got" -gt 0 ]; then attempt=1 pause=1; fi
    if [ "$attempt" -ge "$FETCH_ATTEMPTS" ]; then
      echo "Cannot download $url: $(head -n 1 "$KIT_UPDATE/fetch.error" | grep . || echo "the server's file is shorter than the manifest says") ($left bytes were missing)" >&2
      return 1
    fi
    sleep "$pause"
    attempt=$((attempt + 1))
    pause=$((pause * 2 < FETCH_PAUSE_LIMIT_SECONDS ? pause * 2 : FETCH_PAUSE_LIMIT_SECONDS))
  done
}

# fetch_once URL FROM BYTES TARGET SEEK: one request. 0: done, 3: broke off; fetch.got says how many bytes are written. 1: no use
# in trying again. 2: not a part.
fetch_once() {
  local answer code size
  rm -f "$KIT_UPDATE/fetch.status"
  echo 0 >"$KIT_UPDATE/fetch.got"
  {
    polite_curl -r "$2-$(($2 + $3 - 1))" -w '%{stderr}answer %{http_code} %{size_download}\n' "$1" 2>"$KIT_UPDATE/fetch.error"
    echo $? >"$KIT_UPDATE/fetch.status"
  } | dd of="$4" bs=1M count="$3" seek="$5" iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc 2>"$KIT_UPDATE/dd.error" ||
    {
      echo "Cannot write $4: $(grep -v records "$KIT_UPDATE/dd.error" | head -n 1)" >&2
      return 1
    }
  answer="$(sed -n 's/^answer //p' "$KIT_UPDATE/fetch.error" | tail -n 1)"
  sed -i '/^answer /d' "$KIT_UPDATE/fetch.error"
  code="${answer% *}" size="${answer#* }"
  case "$code" in
    206) ;;
    # All of it, from its start: that is what was asked for, or of no use.
    200) [ "$2" = 0 ] || return 2 ;;
    408 | 429) return 3 ;;
    4??)
      echo "Cannot download $1: the server answers $code" >&2
      return 1
      ;;
    *) return 3 ;;
  esac
  [ "$size" -le "$3" ] || size="$3"
  echo "$size" >"$KIT_UPDATE/fetch.got"
  [ "$(cat "$KIT_UPDATE/fetch.status")" = 0 ] || return 3
}

# count_fetched BYTES: adds to what this update took from the network.
count_fetched() {
  echo "$1" >>"$KIT_UPDATE/fetched"
}

fetched_bytes() {
  awk '{ sum += $1 } END { printf "%.0f\n", sum }' "$KIT_UPDATE/fetched" 2>/dev/null || echo 0
}
