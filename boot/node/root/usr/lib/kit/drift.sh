# Drift: files of the running root that are not as image and bundle have them. Needs tree.sh, secret-files.sh.
# shellcheck shell=dash
# shellcheck disable=SC2153 # SHOWN is the answer of tree.sh

DRIFT_PATHS_MAX=50
# More than that is no hand at work, and each takes a process or two.
DRIFT_LOOKED_AT_MAX=1000

# drift_lines: up to 50 paths, sorted. Status 1 where it cannot be told: no layer for writes.
# Whatever differs has been written into the overlay's upper directory, so only that is looked through.
drift_lines() {
  local path count=0 upper="$KIT_RUN/writes/upper"
  [ -d "$upper" ] || return 1
  (cd "$upper" && find . -mindepth 1 \( -type f -o -type l -o -type c -o -type d \) -printf '/%P\n') | not_ignored |
    head -n "$DRIFT_LOOKED_AT_MAX" | LC_ALL=C sort | while IFS= read -r path; do
    [ "$count" -lt "$DRIFT_PATHS_MAX" ] || break
    has_drifted "${path#/}" || continue
    printf '%s\n' "$path"
    count=$((count + 1))
  done
}

# not_ignored: those lines of standard input that neither drift.ignore names nor the overlay file of what is kept on
# kit-persist: such a path shows something else than the writes.
not_ignored() {
  local patterns="$KIT_RUN/drift.patterns"
  # As the extended regular expressions that grep reads, so that a thousand paths are one process.
  {
    cat "$KIT_LIB/drift.ignore"
    sed -n 's|/*[[:space:]]*$||; /^\/[^*]/{p; s|$|/*|p;}' "$KIT_LIVE/etc/kit/persist" 2>/dev/null
  } | sed '/^#/d; /^$/d; s/[].[+?(){}|^$\\]/\\&/g; s/\*/.*/g; s/.*/^&$/' >"$patterns"
  LC_ALL=C grep -Evf "$patterns" || true
}

# has_drifted PATH: a file that was only touched has not; a directory counts by its mode and owner, and when it is new, its
# files do. A secret file is as it came, or has drifted like any other.
has_drifted() {
  show "$(applied_tree)" "$1"
  ! is_secret "$1" || SHOWN="$KIT_SECRETS/tree/$1"
  if [ -z "$SHOWN" ] && [ -d "$KIT_LIVE/$1" ] && [ ! -L "$KIT_LIVE/$1" ]; then return 1; fi
  ! same "$KIT_LIVE/$1" "$SHOWN"
}
