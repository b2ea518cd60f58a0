# The machine's secret files (docs/security.md, "Secrets"): fetched when the target names others than lie here, laid over the
# root, kept on kit-persist for a start without the server. Needs secret-files.sh, api.sh, target.sh, change.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034,SC2153 # checked_in is the agent's; KIT_BOOT is the environment's, or name_boot's

# Four times what the server sends at most.
SECRETS_LIMIT_BYTES=16777216
SECRETS_FETCH_SECONDS=120

# follow_secrets: does what the target says of them. Done again with the same target, it changes nothing.
follow_secrets() {
  local digest
  digest="$(target_value secrets)"
  # Before anything that may fail: a copy that must not be there goes at once.
  if [ -z "$digest" ] || [ "$(target_value secrets-kept)" = memory ]; then forget_kept_secrets; fi
  if [ "$digest" != "$(placed_secrets)" ]; then
    if [ "wanted $digest" = "${secrets_failed:-}" ] && [ "$(seconds_now)" -lt "$secrets_until" ]; then return 0; fi
    change_secrets "$digest" || return 0
  fi
  if [ -n "$digest" ] && [ "$(target_value secrets-kept)" != memory ]; then keep_secrets; fi
}

# placed_secrets: the digest of what lies in the root now; nothing when that is none.
placed_secrets() {
  cat "$KIT_SECRETS/digest" 2>/dev/null || true
}

# change_secrets DIGEST: status 1 when the machine keeps those it has; the server has been told why then.
change_secrets() {
  local started log="$KIT_RUN/secrets.log"
  started="$(seconds_now)"
  # Hooks write into it, too, and what they say may be secret.
  rm -f "$log" && (umask 077 && : >"$log")
  # Never the digest: whoever reads the history could try short secrets against it.
  report secrets started
  if ! fetch_secrets "$1" >"$log" 2>&1; then
    cat "$log" >&2
    report secrets failed $(($(seconds_now) - started)) "$(tail -n 1 "$log")"
    put_off_secrets "$1"
    return 1
  fi
  lay_secrets "$1" 2>"$log"
  secrets_failed='' checked_in=''
  follow_up secrets "$KIT_SECRETS/owed" "$started"
}

# put_off_secrets DIGEST: each pause is longer than the last.
put_off_secrets() {
  [ "${secrets_failed:-}" = "wanted $1" ] || secrets_pause="$FAILED_SECONDS"
  secrets_failed="wanted $1"
  secrets_until=$(($(seconds_now) + secrets_pause))
  secrets_pause=$((secrets_pause * 2 < FAILED_LIMIT_SECONDS ? secrets_pause * 2 : FAILED_LIMIT_SECONDS))
}

# fetch_secrets DIGEST: into KIT_SECRETS/new.tree, verified; the reason on standard error as the last line.
fetch_secrets() {
  make_secrets_folder || return 1
  rm -rf "$KIT_SECRETS/new.tar" "$KIT_SECRETS/new.tree"
  if [ -z "$1" ]; then
    mkdir "$KIT_SECRETS/new.tree" && : >"$KIT_SECRETS/new.tree.folders"
  elif ! download_secrets "$1" "$KIT_SECRETS/new.tar" || ! unpack_secrets "$KIT_SECRETS/new.tar" "$KIT_SECRETS/new.tree"; then
    rm -rf "$KIT_SECRETS/new.tar" "$KIT_SECRETS/new.tree"
    return 1
  fi
}

# download_secrets DIGEST FILE
download_secrets() {
  local actual
  (umask 077 && ask_server -sSf --max-time "$SECRETS_FETCH_SECONDS" --max-filesize "$SECRETS_LIMIT_BYTES" -o "$2" \
    "$(machine_url)/secrets?boot=$KIT_BOOT") || {
    echo "Cannot download the secret files (curl status $?)" >&2
    return 1
  }
  actual="$(sha256sum <"$2" | cut -d ' ' -f 1)"
  [ "$actual" = "$1" ] || {
    echo 'Cannot use the secret files: their sha256 is not the one that the server named' >&2
    return 1
  }
}

make_secrets_folder() {
  (umask 077 && mkdir -p "$KIT_SECRETS" && chmod 0700 "$KIT_SECRETS") || {
    echo "Cannot make $KIT_SECRETS" >&2
    return 1
  }
}

# lay_secrets DIGEST: what fetch_secrets left becomes what lies here; the paths that changed are owed what follows from it.
lay_secrets() {
  (
    umask 077
    # An interruption from here on is followed by all of this again.
    cd "$KIT_SECRETS" && echo interrupted >digest.new && mv digest.new digest || exit 1
    rm -rf tree tar && mv new.tree tree && mv new.tree.folders folders || exit 1
    [ ! -e new.tar ] || mv new.tar tar
    place_secrets >>owed
    printf '%s\n' "$1" >digest.new && mv digest.new digest
    ! [ -s problems ] || sed 's/^/Cannot place the secret file /' problems >&2
  )
}

# resume_secrets: finishes what an agent before this one began.
resume_secrets() {
  [ -s "$KIT_SECRETS/owed" ] && [ "$(placed_secrets)" != interrupted ] || return 0
  echo 'finishes a change of secret files that was interrupted'
  rm -f "$KIT_RUN/secrets.log" && (umask 077 && : >"$KIT_RUN/secrets.log")
  follow_up secrets "$KIT_SECRETS/owed" "$(seconds_now)"
}

kept_secrets_file() {
  printf '%s\n' "$KIT_PERSIST/machine/secrets.tar"
}

# keep_secrets: what lies here, for a start without the server.
keep_secrets() {
  local file
  file="$(kept_secrets_file)"
  # A live system leaves the disk alone.
  if [ -z "$KIT_SLOT" ] || [ ! -d "${file%/*}" ] || [ ! -e "$KIT_SECRETS/tar" ]; then return 0; fi
  [ ! -e "$file" ] || [ "$(cat "$KIT_SECRETS/kept" 2>/dev/null)" != "$(placed_secrets)" ] || return 0
  if (umask 077 && rm -f "$file.new" && cp "$KIT_SECRETS/tar" "$file.new" && sync "$file.new" && mv "$file.new" "$file" && sync -f "${file%/*}"); then
    placed_secrets >"$KIT_SECRETS/kept"
  else
    rm -f "$file.new"
    echo "Cannot keep the secret files in $file: a start without the server has those from before, or none" >&2
  fi
}

# forget_kept_secrets: they are the machine's no more, or are for its memory only.
forget_kept_secrets() {
  local file
  file="$(kept_secrets_file)"
  rm -f "$KIT_SECRETS/kept" "$file.new"
  [ -e "$file" ] || return 0
  rm -f "$file" && sync -f "${file%/*}" && echo "$file is removed"
}
