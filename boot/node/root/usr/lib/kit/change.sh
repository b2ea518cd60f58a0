# One change of bundle from download to check-in.
# shellcheck shell=dash

# change_bundle DIGEST: status 1 when the machine keeps the bundle it has; the server has been told why then.
change_bundle() {
  local digest="$1" started log="$KIT_RUN/bundle.log" failed changed reasons
  started="$(date +%s)"
  report started '' "bundle $digest"
  if ! fetch_bundle "$digest" >"$log" 2>&1; then
    cat "$log" >&2
    report failed $(($(date +%s) - started)) "$(tail -n 1 "$log")" "$log"
    return 1
  fi
  # Added to: an attempt that was interrupted after it had changed files still owes them their actions.
  apply_bundle "$(applied_tree)" "$KIT_TREES/$digest" 2>"$log" >>"$KIT_RUN/paths"
  LC_ALL=C sort -u -o "$KIT_RUN/paths" "$KIT_RUN/paths"
  forget_bundles "$digest"
  failed="$({ run_actions "$KIT_RUN/paths" && run_hooks "$KIT_RUN/paths"; } 2>>"$log")"
  write_reboot_reasons "$digest"
  cat "$log" >&2
  changed="$(wc -l <"$KIT_RUN/paths") paths changed"
  rm -f "$KIT_RUN/paths"
  reasons="$(wc -l <"$KIT_REBOOT_REASONS")"
  [ "$reasons" = 0 ] || changed="$changed; a reboot is needed: $(head -n 1 "$KIT_REBOOT_REASONS")"
  if [ -n "$failed" ]; then
    report failed $(($(date +%s) - started)) "$changed; failed: $failed" "$log"
  else
    report 'done' $(($(date +%s) - started)) "$changed"
  fi
}

# fetch_bundle DIGEST: into KIT_TREES/DIGEST, verified; the reason on standard error as the last line.
fetch_bundle() {
  local tar="$KIT_RUN/bundle.new" actual
  mkdir -p "$KIT_TREES"
  curl -sSf --max-time 600 --retry 3 --noproxy '*' -o "$tar" "$KIT_URL/bundles/$1.tar" || {
    echo "Cannot download bundle $1 (curl status $?)" >&2
    return 1
  }
  actual="$(sha256sum <"$tar" | cut -d ' ' -f 1)"
  if [ "$actual" != "$1" ]; then
    rm -f "$tar"
    echo "Cannot use bundle $1: its sha256 is $actual" >&2
    return 1
  fi
  unpack_bundle "$tar" "$KIT_TREES/$1.new" || return 1
  rm -rf "${KIT_TREES:?}/$1"
  mv "$KIT_TREES/$1.new" "$KIT_TREES/$1" && mv "$tar" "$KIT_RUN/bundle.tar"
}

# forget_bundles DIGEST: it is the applied one from here on; the trees before it go. The boot's own stays: the overlay
# is mounted over it.
forget_bundles() {
  local tree
  printf '%s\n' "$1" >"$KIT_APPLIED.new" && mv "$KIT_APPLIED.new" "$KIT_APPLIED"
  for tree in "$KIT_TREES"/*; do
    [ "${tree##*/}" = "$1" ] || rm -rf "$tree"
  done
}

# write_reboot_reasons DIGEST: what a reboot would change that the agent could not; worked out anew each time, so that
# going back to the old bundle ends them.
write_reboot_reasons() {
  {
    changed_paths "$KIT_BOOT_TREE" "$KIT_TREES/$1" | not_hidden | reboot_reasons
    sed 's|^\(.*\)\t\(.*\)$|/\1 was left as it is: \2|' "$KIT_CONFLICTS"
  } >"$KIT_REBOOT_REASONS.new"
  mv "$KIT_REBOOT_REASONS.new" "$KIT_REBOOT_REASONS"
}
