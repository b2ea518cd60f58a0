# What lies in the two slots: their records on kit-overlay, and the state of each (docs/disk.md). Needs disk.sh and loader.sh.
# shellcheck shell=dash

# other_slot SLOT
other_slot() {
  case "$1" in
    a) echo b ;;
    b) echo a ;;
    *) complain "Cannot tell the other slot of $1: slots are a and b" ;;
  esac
}

# running_slot: the slot the root comes from (61-disk-root leaves word), or nothing.
running_slot() {
  cat "$KIT_RUN/slot" 2>/dev/null || true
}

# slot_field SLOT NAME: a value of its record, or nothing.
slot_field() {
  [ -e "$KIT_OVERLAY/slots/$1" ] || return 0
  sed -n "s/^$2 //p" "$KIT_OVERLAY/slots/$1" | head -n 1
}

# write_slot_record SLOT: standard input becomes the record; after a cut it is the old one or the new one.
write_slot_record() {
  local folder="$KIT_OVERLAY/slots"
  mkdir -p "$folder" && cat >"$folder/.$1.new" && sync -f "$folder" && mv -f "$folder/.$1.new" "$folder/$1" &&
    sync -f "$folder" && return 0
  complain "Cannot write the record of slot $1 on kit-overlay"
}

# set_slot_fields SLOT [NAME VALUE]…: the record with these values and the others as they were; an empty value takes the
# line away.
set_slot_fields() {
  local slot="$1" text line
  shift
  text="$(cat "$KIT_OVERLAY/slots/$slot" 2>/dev/null || true)"
  while [ $# -ge 2 ]; do
    text="$(printf '%s\n' "$text" | sed "/^$1 /d")"
    [ -z "$2" ] || text="$text
$1 $2"
    shift 2
  done
  printf '%s\n' "$text" | while IFS= read -r line; do
    [ -z "$line" ] || printf '%s\n' "$line"
  done | write_slot_record "$slot"
}

# slot_state SLOT: empty, writing, ready, trying, good or bad. The last try of the slot that runs has no tries left after
# it and is no failure yet.
slot_state() {
  local in_loader
  case "$(slot_field "$1" state)" in
    '')
      # A record that cannot be understood is one that was being written.
      if [ -e "$KIT_OVERLAY/slots/$1" ]; then echo writing; else echo empty; fi
      return 0
      ;;
    written) ;;
    *)
      echo writing
      return 0
      ;;
  esac
  in_loader="$(loader_knows "$1")"
  if [ -n "$(slot_field "$1" reason)" ]; then
    echo bad
  elif [ "$in_loader" = tried ] && [ "$(running_slot)" = "$1" ]; then
    echo trying
  else
    case "$in_loader" in
      good) echo good ;;
      trying) echo trying ;;
      tried) echo bad ;;
      *) echo ready ;;
    esac
  fi
}

# good_slots: every good slot, the one that was made the next to boot last first.
good_slots() {
  local slot
  for slot in a b; do
    [ "$(slot_state "$slot")" != good ] || printf '%d %s\n' "$(slot_generation "$slot")" "$slot"
  done | sort -rn | cut -d ' ' -f 2
}

# slot_generation SLOT: 0 without one.
slot_generation() {
  local generation
  generation="$(slot_field "$1" generation)"
  case "$generation" in
    '' | *[!0-9]*) echo 0 ;;
    *) echo "$generation" ;;
  esac
}

# next_generation: higher than that of any slot.
next_generation() {
  local a b
  a="$(slot_generation a)"
  b="$(slot_generation b)"
  if [ "$a" -gt "$b" ]; then echo $((a + 1)); else echo $((b + 1)); fi
}

# slot_options SLOT: the kernel command line it starts with, from its record.
slot_options() {
  printf 'kit.plan=disk kit.slot=%s kit.image=%s kit.root-hash=%s kit.root-size=%s panic=10 %s\n' "$1" \
    "$(slot_field "$1" image)" "$(slot_field "$1" root-hash)" "$(slot_field "$1" root-size)" "$(slot_field "$1" arguments)" |
    sed 's/ *$//'
}

# drop_unused_bundles [DIGEST]…: removes bundles that neither a slot, nor this boot, nor a DIGEST needs.
drop_unused_bundles() {
  local folder name kept
  kept=" $* ${KIT_BUNDLE:-} $(for slot in a b; do
    printf '%s %s ' "$(slot_field "$slot" bundle)" "$(slot_field "$slot" bundle-good)"
  done) "
  for folder in "$KIT_OVERLAY"/bundles/* "$KIT_OVERLAY"/bundles/.[!.]*; do
    [ -e "$folder" ] || continue
    name="${folder##*/}"
    case "$kept" in
      *" $name "*) ;;
      *)
        # Its name first: half of a bundle must not be found under a digest.
        case "$name" in
          .*) rm -rf "$folder" ;;
          *) rm -rf "$KIT_OVERLAY/bundles/.old" && mv "$folder" "$KIT_OVERLAY/bundles/.old" && rm -rf "$KIT_OVERLAY/bundles/.old" ;;
        esac
        ;;
    esac
  done
}
