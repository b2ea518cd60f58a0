# Taking over a new bundle on the running machine: each path that the two bundles do not agree on, one by one.
# shellcheck shell=dash
# shellcheck disable=SC2153 # KIND and SHOWN are the answers of tree.sh

# apply_bundle OLD NEW: makes the merged root show NEW over the image where it now shows OLD over it. Prints each path
# it changed. What was changed on the machine itself is left alone and noted in KIT_CONFLICTS, `<path> TAB <why>` a line.
# After an interruption it can run again with the same trees. Where a secret file lies (secret-files.sh), that stays.
apply_bundle() {
  local old="$1" new="$2" list="$KIT_RUN/changed" path
  {
    changed_paths "$old" "$new"
    # Left alone last time: perhaps the new bundle agrees with the machine now.
    [ ! -e "$KIT_CONFLICTS" ] || cut -f 1 "$KIT_CONFLICTS"
  } | with_image_below "$old" "$new" | LC_ALL=C sort -u | not_hidden | not_secret >"$list"
  : >"$KIT_CONFLICTS"
  # What goes, children first; then what comes, parents first.
  LC_ALL=C sort -r "$list" | each_path take_away "$old" "$new"
  each_path put_in_place "$old" "$new" <"$list"
  rm -f "$KIT_RUN/taken-away"
}

# each_path COMMAND OLD NEW: runs COMMAND PATH WAS WANTED for each path of standard input.
each_path() {
  local path was
  while IFS= read -r path; do
    show "$2" "$path"
    was="$SHOWN"
    show "$3" "$path"
    "$1" "$path" "$was" "$SHOWN" </dev/null
  done
}

# not_hidden: those paths of standard input that the bundle's layer decides. File systems of their own hide the others;
# what a bundle has there comes with a boot, or never.
not_hidden() {
  local path
  while IFS= read -r path; do
    case "$path/" in
      proc/* | sys/* | dev/* | run/* | tmp/*) ;;
      *) printf '%s\n' "$path" ;;
    esac
  done
}

# with_image_below OLD NEW: the paths on standard input, and where one of them starts or ends to hide a directory of the
# image, everything in it.
with_image_below() {
  local path kind
  while IFS= read -r path; do
    printf '%s\n' "$path"
    kind_of "$KIT_IMAGE_TREE/$path"
    [ "$KIND" = d ] || continue
    kind_of "$1/$path"
    kind="$KIND"
    kind_of "$2/$path"
    case "$kind$KIND" in
      dd | d- | -d | --) ;;
      *) (cd "$KIT_IMAGE_TREE" && find "./$path" -mindepth 1 | sed 's|^\./||') ;;
    esac
  done
}

# take_away PATH WAS WANTED: removes what the new bundle has no more, or has as something else than it was.
take_away() {
  local live="$KIT_LIVE/$1" kind becomes
  kind_of "$live"
  kind="$KIND"
  kind_of "$3"
  becomes="$KIND"
  case "$kind$becomes" in
    -* | dd | [fl][fl]) return 0 ;;
  esac
  may_change "$1" "$2" "$3" || return 0
  if [ "$kind$becomes" = d- ] && is_folder_of_secrets "$1"; then
    # It goes with the last of them.
    printf '%s\n' "$1" >>"$KIT_SECRETS/made"
    return 0
  fi
  if [ "$kind" = d ]; then rmdir "$live" 2>/dev/null; else rm -f "$live"; fi ||
    { conflict "$1" 'something on this machine is in it' && return 0; }
  printf '%s\n' "$1" | tee -a "$KIT_RUN/taken-away"
}

# put_in_place PATH WAS WANTED: a file or link appears at once or not at all.
put_in_place() {
  local live="$KIT_LIVE/$1" fresh
  fresh="${live%/*}/.kit-new"
  [ -n "$3" ] && ! same "$live" "$3" && ! has_conflict "$1" || return 0
  was_taken_away "$1" || may_change "$1" "$2" "$3" || return 0
  kind_of "$3"
  if [ "$KIND" = d ]; then
    { [ -d "$live" ] || mkdir "$live"; } && chown --reference="$3" "$live" && chmod --reference="$3" "$live"
  else
    cp -a -T "$3" "$fresh" && mv -f -T "$fresh" "$live"
  fi || { rm -f "$fresh" && conflict "$1" 'it could not be written' && return 0; }
  printf '%s\n' "$1"
}

was_taken_away() {
  [ -s "$KIT_RUN/taken-away" ] && grep -qxF -- "$1" "$KIT_RUN/taken-away"
}

# may_change PATH WAS WANTED: is the machine's own file as it came? Notes a conflict when it is not.
may_change() {
  local above="$1" kind
  while [ "$above" != "${above%/*}" ]; do
    above="${above%/*}"
    [ ! -L "$KIT_LIVE/$above" ] || { conflict "$1" "/$above is a symbolic link here" && return 1; }
  done
  # Replacing /usr or /lib under a running system ends it.
  kind_of "$2"
  kind="$KIND"
  kind_of "$3"
  if [ "${1#*/}" = "$1" ] && [ -e "$KIT_IMAGE_TREE/$1" ] && [ "$kind" != "$KIND" ]; then
    conflict "$1" 'a part of the image directly below / cannot change its kind'
    return 1
  fi
  same "$KIT_LIVE/$1" "$2" || is_made_for_secrets "$1" || { conflict "$1" 'it was changed on this machine' && return 1; }
}

# conflict PATH WHY
conflict() {
  has_conflict "$1" || printf '%s\t%s\n' "$1" "$2" >>"$KIT_CONFLICTS"
}

has_conflict() {
  [ -s "$KIT_CONFLICTS" ] || return 1
  cut -f 1 "$KIT_CONFLICTS" | grep -qxF -- "$1"
}
