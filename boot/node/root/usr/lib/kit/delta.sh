# Root image and initrd of a slot out of what the other slot has and what is missing (docs/decisions/delta-updates.md). The
# lists of chunks need no trust: what comes out is checked as a whole in the end. Needs fetch.sh.
# shellcheck shell=dash

# A gap shorter than this costs less to fetch than another request does.
DELTA_GAP_BYTES=16384
# More than this part of the image: fetching all of it costs no more.
DELTA_MOST_PERCENT=60

# is_chunk_list FILE BYTES: `<bytes> <sha256>` a line, so many bytes in all?
is_chunk_list() {
  [ -s "$1" ] && awk -v wanted="$2" '
    !/^[1-9][0-9]* [0-9a-f]+$/ || length($1) > 15 || length($2) != 64 { exit bad = 1 }
    { sum += $1 }
    END { exit bad || sum != wanted }' "$1"
}

# plan_delta OLD_CHUNKS NEW_CHUNKS: what makes the new image, in order: `copy <from> <to> <bytes>` out of the old one,
# `fetch <to> <bytes>`. Runs that belong together are one line.
plan_delta() {
  awk -v gap="$DELTA_GAP_BYTES" '
    # The old image: where each chunk lies first, and which one starts at each place.
    FILENAME == ARGV[1] { if (!($2 in place)) place[$2] = old; at[old] = $2; old += $1; next }
    # The new one: a chunk that goes on where the run before it ends belongs to that run.
    {
      if ($2 in place) {
        if (n && kind[n] == "copy" && at[from[n] + bytes[n]] == $2) bytes[n] += $1
        else { kind[++n] = "copy"; from[n] = place[$2]; to[n] = new; bytes[n] = $1 }
      }
      else if (n && kind[n] == "fetch") bytes[n] += $1
      else { kind[++n] = "fetch"; to[n] = new; bytes[n] = $1 }
      new += $1
    }
    function flush() { if (pending) printf "fetch %.0f %.0f\n", start, pending; pending = 0 }
    END {
      for (i = 1; i <= n; i++) {
        short = kind[i] == "copy" && bytes[i] < gap && i > 1 && i < n && pending && kind[i + 1] == "fetch"
        if (kind[i] == "fetch" || short) { if (!pending) start = to[i]; pending += bytes[i] }
        else { flush(); printf "copy %.0f %.0f %.0f\n", from[i], to[i], bytes[i] }
      }
      flush()
    }' "$1" "$2"
}

# delta_bytes PLAN: how many are to be fetched.
delta_bytes() {
  awk '$1 == "fetch" { sum += $3 } END { printf "%.0f\n", sum }' "$1"
}

# delta_pays PLAN BYTES: is it worth it for an image of so many bytes?
delta_pays() {
  [ $(($(delta_bytes "$1") * 100)) -le $(($2 * DELTA_MOST_PERCENT)) ]
}

# apply_delta PLAN OLD_DEVICE URL DEVICE: 1 when something could not be fetched or written, 2 when the old image cannot be
# read or the server serves no parts: then all of it may still be had.
apply_delta() {
  local plan="$1" old="$2" url="$3" device="$4" kind from to bytes
  while read -r kind from to bytes; do
    case "$kind" in
      copy) copy_run "$old" "$from" "$bytes" "$device" "$to" || return $? ;;
      fetch) fetch_range "$url" "$from" "$to" "$device" "$from" || return $? ;;
    esac
  done <"$plan"
}

# copy_run OLD FROM BYTES NEW TO
copy_run() {
  dd if="$1" of="$4" bs=1M skip="$2" count="$3" seek="$5" iflag=skip_bytes,count_bytes,fullblock oflag=seek_bytes \
    conv=notrunc 2>"$KIT_UPDATE/dd.error" </dev/null && return 0
  echo "Cannot copy from $1 to $4: $(grep -v records "$KIT_UPDATE/dd.error" | head -n 1)" >&2
  # dd names the file that failed.
  if grep -q "writing\|$4" "$KIT_UPDATE/dd.error"; then return 1; else return 2; fi
}
