# After a start that was not the one that was meant: what this machine came back from. Image and bundle go forward and back as
# one unit, so a bundle that came with what failed is not taken alone. Needs slots.sh.
# shellcheck shell=dash

# note_fallback: once in a boot, before anything is changed. A slot's field `held` names the bundle that failed in it.
note_fallback() {
  local other wanted
  if [ -z "$KIT_SLOT" ] || [ -e "$KIT_RUN/fallback-noted" ]; then return 0; fi
  other="$(other_slot "$KIT_SLOT")"
  if [ "$(slot_state "$other")" = bad ] && [ -z "$(slot_field "$other" held)" ]; then
    set_slot_fields "$other" held "$(slot_field "$other" bundle)" || return 0
  fi
  # The initrd took the last good bundle in place of the one that was to be tried (docs/disk.md, "Starting from the disk").
  wanted="$(slot_field "$KIT_SLOT" bundle)"
  if [ -n "$KIT_BUNDLE" ] && [ -n "$wanted" ] && [ "$wanted" != "$KIT_BUNDLE" ]; then
    set_slot_fields "$KIT_SLOT" bundle "$KIT_BUNDLE" held "$wanted" || return 0
  fi
  : >"$KIT_RUN/fallback-noted"
}

# is_held BUNDLE: status 0 when the running image does not take that bundle by itself; KIT_RUN/bundle-held says why.
# A third bundle ends it: the server may want the held one again after that.
is_held() {
  local slot held found=1
  rm -f "$KIT_RUN/bundle-held"
  [ -n "$KIT_SLOT" ] || return 1
  for slot in a b; do
    held="$(slot_field "$slot" held)"
    case "$held" in
      '' | none) ;;
      "$1")
        [ "$1" = "$(applied_digest)" ] || found=0
        ;;
      *) set_slot_fields "$slot" held none || true ;;
    esac
  done
  [ "$found" = 1 ] ||
    printf 'bundle %.12s is not taken: it came with what failed; it is taken with another image, or after another change\n' "$1" >"$KIT_RUN/bundle-held"
  return "$found"
}
