# Secret files in the running root: laid over whatever image and bundle have there, and taken out again. Needs paths.sh,
# tree.sh, bundle.sh. Only their paths are ever printed, noted or told.
# shellcheck shell=dash
# shellcheck disable=SC2153 # KIND and SHOWN are the answers of tree.sh

# In memory, for root only: `tar`, its `digest`, `tree` (the files as they came), `folders` (the directories that the tar
# names: only those have a mode of theirs), `placed` (every path that is a secret's here, noted before it is written), `made`
# (directories made on the way to them), `problems`.
KIT_SECRETS="$KIT_RUN/secrets"

# unpack_secrets TAR TREE: replaces TREE by the files in TAR, TREE.folders by the directories it names. Status 1 with the
# reason on standard error.
unpack_secrets() {
  (
    umask 077
    refuse_names "$1" 'secret files' && rm -rf "$2" && mkdir "$2" || exit 1
    tar -x --numeric-owner -f "$1" -C "$2" || { echo "Cannot unpack the secret files: see tar's message above" >&2 && exit 1; }
    refuse_kinds "$2" 'secret files' || exit 1
    # Others never read them, whatever the archive says.
    chmod -R o-rwx "$2" && chmod 0700 "$2" || exit 1
    tar --quoting-style=literal -tf "$1" | sed -n 's|^\./||; s|/$||p' | grep . | LC_ALL=C sort -u >"$2.folders"
  )
}

# place_secrets: makes the running root show KIT_SECRETS/tree. Prints each path it changed; what it could not do is a line
# `/path: why` in `problems`. Can run again after an interruption, with the same tree or another.
place_secrets() {
  local path wanted="$KIT_SECRETS/wanted" placed="$KIT_SECRETS/placed" left="$KIT_SECRETS/left"
  {
    (cd "$KIT_SECRETS/tree" && find . -mindepth 1 ! -type d -printf '%P\n')
    cat "$KIT_SECRETS/folders"
  } | LC_ALL=C sort -u >"$wanted"
  : >"$KIT_SECRETS/problems"
  : >"$left"
  touch "$placed" "$KIT_SECRETS/made"
  # Children first, then parents first.
  LC_ALL=C sort -r "$placed" | grep -vxFf "$wanted" | while IFS= read -r path; do
    give_back "$path" </dev/null || printf '%s\n' "$path" >>"$left"
  done
  remove_folders
  LC_ALL=C sort -u "$placed" "$wanted" >"$placed.new" && mv "$placed.new" "$placed"
  while IFS= read -r path; do
    ! put_secret "$path" </dev/null || printf '%s\n' "$path"
  done <"$wanted"
  LC_ALL=C sort -u "$left" "$wanted" >"$placed.new" && mv "$placed.new" "$placed"
}

# put_secret PATH: appears at once or not at all. Status 1 when nothing changed.
put_secret() {
  local live="$KIT_LIVE/$1" source="$KIT_SECRETS/tree/$1" kind fresh
  fresh="${live%/*}/.kit-new"
  may_lie_at "$1" && make_parents "$1" || return 1
  ! same "$live" "$source" || return 1
  kind_of "$live"
  kind="$KIND"
  kind_of "$source"
  case "$kind$KIND" in
    d[fl]) secret_problem "$1" 'a directory is there' || return 1 ;;
    -d) mkdir -m 0700 "$live" && take_facts "$source" "$live" ;;
    dd) take_facts "$source" "$live" ;;
    *d) secret_problem "$1" 'it is to be a directory, and a file is there' || return 1 ;;
    *)
      show "$(applied_tree)" "$1"
      [ -z "$SHOWN" ] || echo "/$1: the secret file takes the place of the one that image or bundle have there" >&2
      # As a temporary file it is nobody else's to read either.
      (umask 077 && cp -a -T "$source" "$fresh" && mv -f -T "$fresh" "$live")
      ;;
  esac || { rm -f "$fresh" && secret_problem "$1" 'it could not be written'; }
}

# give_back PATH: what image and bundle have there takes the place of a secret file. Status 1 when that cannot be done.
give_back() {
  local live="$KIT_LIVE/$1" kind fresh
  fresh="${live%/*}/.kit-new"
  kind_of "$live"
  kind="$KIND"
  may_lie_at "$1" || return 1
  show "$(applied_tree)" "$1"
  ! same "$live" "$SHOWN" || return 0
  kind_of "$SHOWN"
  case "$kind$KIND" in
    # Gone already, or nothing that was put there.
    -? | o? | w?) return 0 ;;
    dd) take_facts "$SHOWN" "$live" ;;
    d?)
      # It may hold something else.
      printf '%s\n' "$1" >>"$KIT_SECRETS/made"
      return 0
      ;;
    ?[fl]) cp -a -T "$SHOWN" "$fresh" && mv -f -T "$fresh" "$live" ;;
    ?d) rm -f "$live" && cp -a -T "$SHOWN" "$live" ;;
    *) rm -f "$live" ;;
  esac || { rm -f "$fresh" && secret_problem "$1" 'it could not be removed' || return 1; }
  printf '%s\n' "$1"
}

# take_facts FROM TO: mode and owner.
take_facts() {
  chown --reference="$1" "$2" && chmod --reference="$1" "$2"
}

# make_parents PATH: those that are missing.
make_parents() {
  local above='' rest="$1"
  while [ "$rest" != "${rest#*/}" ]; do
    above="$above${above:+/}${rest%%/*}"
    rest="${rest#*/}"
    [ ! -d "$KIT_LIVE/$above" ] || continue
    mkdir -m 0755 "$KIT_LIVE/$above" 2>/dev/null || secret_problem "$1" "/$above cannot be made" || return 1
    printf '%s\n' "$above" >>"$KIT_SECRETS/made"
  done
}

# remove_folders: directories that were made for secret files and hold nothing any more.
remove_folders() {
  local path made="$KIT_SECRETS/made"
  LC_ALL=C sort -ru "$made" | while IFS= read -r path; do
    show "$(applied_tree)" "$path"
    # Image or bundle have it too by now.
    [ -z "$SHOWN" ] || continue
    rmdir "$KIT_LIVE/$path" 2>/dev/null || [ ! -d "$KIT_LIVE/$path" ] || printf '%s\n' "$path"
  done >"$made.new"
  mv "$made.new" "$made"
}

# may_lie_at PATH: is that a place of the root, in memory? Notes a problem when it is not.
may_lie_at() {
  local above='' rest="$1" root
  root="$(stat -c %d "$KIT_LIVE/")"
  while [ "$rest" != "${rest#*/}" ]; do
    above="$above${above:+/}${rest%%/*}"
    rest="${rest#*/}"
    [ ! -L "$KIT_LIVE/$above" ] || secret_problem "$1" "/$above is a symbolic link here" || return 1
    [ -e "$KIT_LIVE/$above" ] || return 0
    [ -d "$KIT_LIVE/$above" ] || secret_problem "$1" "/$above is no directory here" || return 1
    # What is bound there from kit-persist would end up on the disk.
    [ "$(stat -c %d "$KIT_LIVE/$above")" = "$root" ] || secret_problem "$1" "/$above is a file system of its own" || return 1
  done
}

# secret_problem PATH WHY: status 1.
secret_problem() {
  is_line_of "$KIT_SECRETS/problems" "/$1: $2" || printf '/%s: %s\n' "$1" "$2" >>"$KIT_SECRETS/problems"
  return 1
}

# is_line_of FILE LINE
is_line_of() {
  [ -s "$1" ] && grep -qxF -- "$2" "$1"
}

# is_secret PATH: does a secret file lie there, or is one to lie there?
is_secret() {
  is_line_of "$KIT_SECRETS/placed" "$1"
}

# is_folder_of_secrets PATH: a directory on the way to one?
is_folder_of_secrets() {
  [ -d "$KIT_SECRETS/tree/$1" ]
}

# is_made_for_secrets PATH: a directory that is here for them only?
is_made_for_secrets() {
  [ -d "$KIT_LIVE/$1" ] && is_line_of "$KIT_SECRETS/made" "$1"
}

# not_secret: those paths of standard input that are no secret's; the others are told on standard error.
not_secret() {
  local list="$KIT_RUN/changed.all"
  if [ ! -s "$KIT_SECRETS/placed" ]; then cat && return; fi
  cat >"$list"
  grep -xFf "$KIT_SECRETS/placed" "$list" | sed 's|.*|/& is left to the secret file of that path|' >&2
  grep -vxFf "$KIT_SECRETS/placed" "$list"
  rm -f "$list"
}

# changed_secrets: every path that is not as it was when this boot began (KIT_SECRETS/at-boot).
changed_secrets() {
  [ -d "$KIT_SECRETS/tree" ] || return 0
  (umask 077 && touch "$KIT_SECRETS/at-boot")
  manifest "$KIT_SECRETS/tree" | LC_ALL=C comm -3 "$KIT_SECRETS/at-boot" - | sed 's/^\t//' | cut -f 1 | LC_ALL=C sort -u
}
