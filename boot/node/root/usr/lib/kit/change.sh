# One change of bundle from download to check-in.
# shellcheck shell=dash

# change_bundle DIGEST: status 1 when the machine keeps the bundle it has; the server has been told why then.
change_bundle() {
  local digest="$1" started log="$KIT_RUN/bundle.log"
  started="$(seconds_now)"
  report bundle started '' "bundle $digest"
  if ! fetch_bundle "$digest" >"$log" 2>&1; then
    cat "$log" >&2
    report bundle failed $(($(seconds_now) - started)) "$(tail -n 1 "$log")" "$log"
    return 1
  fi
  printf '%s\n' "$digest" >"$KIT_APPLYING.new" && mv "$KIT_APPLYING.new" "$KIT_APPLYING"
  take_over 2>"$log"
  follow_up bundle "$KIT_OWED" "$started"
}

# resume_change: finishes what an agent before this one began. By now the server may want yet another bundle, whose files
# would then meet some that are neither the old bundle's nor its own, and take them for changed by hand.
resume_change() {
  [ -e "$KIT_APPLYING" ] || [ -e "$KIT_OWED" ] || return 0
  echo 'finishes a change of bundle that was interrupted'
  : >"$KIT_RUN/bundle.log"
  [ ! -e "$KIT_APPLYING" ] || take_over 2>"$KIT_RUN/bundle.log"
  follow_up bundle "$KIT_OWED" "$(seconds_now)"
}

# take_over: lays the bundle that KIT_APPLYING names over the root. After it, it is the applied one.
take_over() {
  local digest
  digest="$(cat "$KIT_APPLYING")"
  apply_bundle "$(applied_tree)" "$KIT_TREES/$digest" >>"$KIT_OWED"
  forget_bundles "$digest"
  rm -f "$KIT_APPLYING"
}

# follow_up STEP OWED STARTED: does what the changed paths in the file OWED ask for, and reports.
follow_up() {
  local log="$KIT_RUN/$1.log" paths="$KIT_RUN/changed-paths" failed changed reasons
  LC_ALL=C sort -u "$2" >"$paths"
  failed="$(run_actions "$paths" 2>>"$log")"
  # Nothing is owed from here on: a hook that restarts the agent must not be run by that one again.
  rm -f "$2"
  failed="$failed$(run_hooks "$paths" 2>>"$log")"
  write_reboot_reasons
  cat "$log" >&2
  changed="$(wc -l <"$paths") paths changed"
  reasons="$(wc -l <"$KIT_REBOOT_REASONS")"
  [ "$reasons" = 0 ] || changed="$changed; a reboot is needed: $(head -n 1 "$KIT_REBOOT_REASONS")"
  # What lies where it cannot is as good as a failed action.
  if [ "$1" = secrets ] && [ -s "$KIT_SECRETS/problems" ]; then failed="$failed$(sed 's/^/cannot place /' "$KIT_SECRETS/problems")"; fi
  # The output of hooks may hold what is in secret files: it stays here.
  [ "$1" != secrets ] || log=''
  if [ -n "$failed" ]; then
    report "$1" failed $(($(seconds_now) - $3)) "$changed; failed: $failed" "$log"
  else
    report "$1" 'done' $(($(seconds_now) - $3)) "$changed"
  fi
}

# fetch_bundle DIGEST: into KIT_TREES/DIGEST, verified; the reason on standard error as the last line. A failure leaves
# nothing behind: /run is memory, and all of systemd lives in it. On a disk the next start has it from here on: a cut
# leaves the old one or the new one.
fetch_bundle() {
  local tar="$KIT_RUN/bundle.new" tree="$KIT_TREES/$1"
  if [ -n "$KIT_SLOT" ]; then
    LAY_DIGEST="$1"
    lay_bundle "$1" && set_slot_fields "$KIT_SLOT" bundle "$1" && note_seconds bundle-changed
    return
  fi
  mkdir -p "$KIT_TREES"
  if download_bundle "$1" "$tar" && unpack_bundle "$tar" "$tree.new"; then
    rm -rf "$tar" "${tree:?}" && mv "$tree.new" "$tree"
  else
    rm -rf "$tar" "$tree.new"
    return 1
  fi
}

# fetch_bundle_into DIRECTORY: the tree of LAY_DIGEST; lay_bundle (slot-write.sh) asks for it.
fetch_bundle_into() {
  local tar="$KIT_RUN/bundle.$$" status=0
  download_bundle "$LAY_DIGEST" "$tar" && unpack_bundle "$tar" "$1" || status=1
  rm -f "$tar"
  return "$status"
}

# download_bundle DIGEST FILE
download_bundle() {
  local actual
  curl -sSf --max-time 600 --retry 3 --noproxy '*' -o "$2" "$KIT_URL/bundles/$1.tar" || {
    echo "Cannot download bundle $1 (curl status $?)" >&2
    return 1
  }
  actual="$(sha256sum <"$2" | cut -d ' ' -f 1)"
  [ "$actual" = "$1" ] || {
    echo "Cannot use bundle $1: its sha256 is $actual" >&2
    return 1
  }
}

# forget_bundles DIGEST: it is the applied one from here on; the trees before it go. The boot's own stays: the overlay
# is mounted over it.
forget_bundles() {
  local tree
  printf '%s\n' "$1" >"$KIT_APPLIED.new" && mv "$KIT_APPLIED.new" "$KIT_APPLIED"
  # On a disk the one before it is kept until this one has proven itself (note_good_boot).
  [ -z "$KIT_SLOT" ] || return 0
  for tree in "$KIT_TREES"/*; do
    [ "${tree##*/}" = "$1" ] || rm -rf "$tree"
  done
}

# write_reboot_reasons: what a reboot would change that the agent could not; worked out anew each time, so that
# going back to the old bundle ends them.
write_reboot_reasons() {
  {
    {
      changed_paths "$KIT_BOOT_TREE" "$(applied_tree)"
      changed_secrets
    } | LC_ALL=C sort -u | not_hidden | reboot_reasons
    [ ! -e "$KIT_CONFLICTS" ] || sed 's|^\(.*\)\t\(.*\)$|/\1 was left as it is: \2|' "$KIT_CONFLICTS"
  } >"$KIT_REBOOT_REASONS.new"
  mv "$KIT_REBOOT_REASONS.new" "$KIT_REBOOT_REASONS"
}
