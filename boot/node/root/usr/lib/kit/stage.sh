# Writing a new image into the other slot while the machine runs (docs/disk.md, "Writing a slot"): what kit-update does.
# Needs fetch.sh, delta.sh, change.sh, slot-write.sh.
# shellcheck shell=dash
# shellcheck disable=SC2153,SC2317 # the MANIFEST_ values are manifest.sh's; write_slot calls the functions below

# stage_image SLOT: makes SLOT what WANTED_IMAGE, WANTED_BUNDLE and WANTED_ARGUMENTS say. Status 1 with the reasons on standard
# error. What lies there already and is whole is not written again.
stage_image() {
  local slot="$1"
  # Another disk of the machine may have been installed once.
  STAGE_DISK="$(kit_disk)"
  fetch_manifest || return 1
  if [ "$(slot_field "$slot" state)" = written ] && [ "$(slot_field "$slot" root-hash)" = "$MANIFEST_ROOT_HASH" ] && restage "$slot"; then
    return 0
  fi
  rm -f "$(kept_chunks "$slot" root)" "$(kept_chunks "$slot" initrd)" "$KIT_UPDATE/root.chunks" "$KIT_UPDATE/initrd.chunks"
  STAGE_FULL='' STAGE_DELTA=''
  if ! write_slot "$slot" "$WANTED_BUNDLE" "$WANTED_ARGUMENTS" "$STAGE_DISK"; then
    # What was put together is not what was signed: a chunk of the old image is damaged, or a list is wrong.
    [ -n "$STAGE_DELTA" ] && tail -n 1 "$KIT_UPDATE/log" | grep -q 'root image is damaged' || return 1
    echo 'the parts do not make the image: fetching all of it'
    STAGE_FULL=1
    write_slot "$slot" "$WANTED_BUNDLE" "$WANTED_ARGUMENTS" "$STAGE_DISK" || return 1
  fi
  keep_chunks "$slot" root "$MANIFEST_ROOT_SIZE"
  keep_chunks "$slot" initrd "$(manifest_size initrd.img)"
}

# fetch_manifest: into KIT_UPDATE, verified; sets the MANIFEST_ values.
fetch_manifest() {
  local file="$KIT_UPDATE/manifest"
  [ -s "$KIT_RUN/image-key.pub" ] ||
    { complain "Cannot check image $WANTED_IMAGE: this machine has no key (/run/kit/image-key.pub, which the initrd leaves)" || return 1; }
  fetch_signed "$file" || return 1
  # A server that signs anew between the two requests has given what does not belong together: once more, then.
  check_signature "$file" "$file.sig" "$KIT_RUN/image-key.pub" 2>/dev/null || fetch_signed "$file" || return 1
  verify_manifest "$file" "$file.sig" "$KIT_RUN/image-key.pub" "$KIT_PERSIST/machine/epoch" "$WANTED_IMAGE"
}

# fetch_signed FILE: the manifest there, its signature beside it.
fetch_signed() {
  local url="$KIT_URL/images/$WANTED_IMAGE/manifest"
  fetch_text "$url" "$1" || return 1
  fetch_text "$url.sig" "$1.sig" || complain "Cannot use image $WANTED_IMAGE: the server has no signature of its manifest"
}

# restage SLOT: the image is there already, from an update before this one. Status 1 when it has to be written after all.
restage() {
  local slot="$1" state data hashes
  state="$(slot_state "$slot")"
  case "$state" in
    # Read back when it was written, by this boot or the one before.
    ready | trying) ;;
    *)
      data="$(find_partition "kit-root-$slot" "$STAGE_DISK")" && hashes="$(find_partition "kit-verity-$slot" "$STAGE_DISK")" &&
        check_slot_root "$slot" "$data" "$hashes" "$MANIFEST_ROOT_HASH" "$MANIFEST_ROOT_SIZE" || return 1
      ;;
  esac
  loader_forget "$slot" && put_boot_file "$slot" vmlinuz && put_boot_file "$slot" initrd.img && may_be_arguments "$WANTED_ARGUMENTS" &&
    lay_bundle "$WANTED_BUNDLE" || return 1
  # The trial before is over, and so is what was known of its bundle.
  set_slot_fields "$slot" image "$MANIFEST_VERSION" epoch "$MANIFEST_EPOCH" bundle "$WANTED_BUNDLE" arguments "$WANTED_ARGUMENTS" \
    reason '' bundle-good '' held '' || return 1
  rm -f "$KIT_OVERLAY/slots/$slot.attempts"
  slot_progress "slot $slot: had the image already, is ready"
}

# fetch_root DEVICE: by a delta where that pays.
fetch_root() {
  local status url="$KIT_URL/images/$WANTED_IMAGE/root.squashfs"
  STAGE_DELTA=''
  if [ -z "$STAGE_FULL" ] && prepare_delta root "$(slot_field "$KIT_SLOT" root-size)" "$MANIFEST_ROOT_SIZE"; then
    STAGE_DELTA=1
    slot_progress "fetches $(delta_bytes "$KIT_UPDATE/plan") of $MANIFEST_ROOT_SIZE bytes of the root image, copies the others"
    apply_delta "$KIT_UPDATE/plan" "$(find_partition "kit-root-$KIT_SLOT" "$STAGE_DISK")" "$url" "$1"
    status=$?
    [ "$status" = 2 ] || return "$status"
  fi
  STAGE_DELTA=''
  slot_progress 'fetches all of the root image'
  fetch_range "$url" 0 "$MANIFEST_ROOT_SIZE" "$1" 0
}

# fetch_part NAME FILE: the initrd by a delta where that pays.
fetch_part() {
  local status=2
  if [ "$1" = initrd.img ]; then
    fetch_initrd_delta "$2"
    status=$?
  fi
  [ "$status" = 2 ] || return "$status"
  fetch_range "$KIT_URL/images/$WANTED_IMAGE/$1" 0 "$(manifest_size "$1")" "$2" 0
}

# fetch_initrd_delta FILE: status 2, and no FILE, when all of it has to be fetched: there is no list, a delta does not pay, or the
# parts do not make the initrd that was signed.
fetch_initrd_delta() {
  local status old="$KIT_ESP/kit/$KIT_SLOT/initrd.img" size
  size="$(manifest_size initrd.img)"
  # An older server has no such list, nor does the manifest name it then.
  [ -n "$(manifest_size initrd.chunks)" ] && [ -e "$old" ] && prepare_delta initrd "$(stat -c %s "$old")" "$size" || return 2
  slot_progress "fetches $(delta_bytes "$KIT_UPDATE/plan") of $size bytes of the initrd, copies the others"
  apply_delta "$KIT_UPDATE/plan" "$old" "$KIT_URL/images/$WANTED_IMAGE/initrd.img" "$1"
  status=$?
  if [ "$status" = 0 ] && ! has_sha256 "$1" "$(manifest_sha256 initrd.img)"; then
    echo 'the parts do not make the initrd: fetching all of it'
    status=2
  fi
  [ "$status" != 2 ] || rm -f "$1"
  return "$status"
}

# prepare_delta root|initrd OLD_BYTES NEW_BYTES: KIT_UPDATE/plan, when the file of both images is known by its chunks and it pays.
prepare_delta() {
  local old new="$KIT_UPDATE/$1.chunks"
  old="$(kept_chunks "$KIT_SLOT" "$1")"
  rm -f "$new" "$KIT_UPDATE/plan"
  fetch_text "$KIT_URL/images/$WANTED_IMAGE/$1.chunks" "$new" || return 1
  is_chunk_list "$new" "$3" || { complain "$1.chunks of $WANTED_IMAGE is no list of its image" || return 1; }
  if ! is_chunk_list "$old" "$2"; then
    old="$KIT_UPDATE/old.chunks"
    fetch_text "$KIT_URL/images/$KIT_IMAGE/$1.chunks" "$old" || return 1
    is_chunk_list "$old" "$2" || { complain "$1.chunks of $KIT_IMAGE is no list of the image in slot $KIT_SLOT" || return 1; }
  fi
  plan_delta "$old" "$new" >"$KIT_UPDATE/plan" && delta_pays "$KIT_UPDATE/plan" "$3"
}

# kept_chunks SLOT root|initrd: where the list of what lies in the slot is kept.
kept_chunks() {
  case "$2" in
    root) printf '%s\n' "$KIT_OVERLAY/slots/$1.chunks" ;;
    *) printf '%s\n' "$KIT_OVERLAY/slots/$1.$2-chunks" ;;
  esac
}

# keep_chunks SLOT root|initrd BYTES: for the update after this one, when the server may have this image no more. It does without,
# if need be.
keep_chunks() {
  local list="$KIT_UPDATE/$2.chunks" file
  file="$(kept_chunks "$1" "$2")"
  # An initrd that did not change was copied from the slot that runs, without a list.
  [ "$2" != initrd ] || ! cmp -s "$KIT_ESP/kit/$1/initrd.img" "$KIT_ESP/kit/$KIT_SLOT/initrd.img" || list="$(kept_chunks "$KIT_SLOT" initrd)"
  is_chunk_list "$list" "$3" || return 0
  { cp "$list" "$file.new" && sync "$file.new" && mv "$file.new" "$file"; } || rm -f "$file.new"
}

slot_progress() {
  echo "$*"
}

# fetched_text: `fetched 1.3 of 105.2 MB, 1.2 %`: of what the image's files have.
fetched_text() {
  printf '%s' "${MANIFEST_FILES:-}" | awk -v fetched="$(fetched_bytes)" '
    $1 ~ /^(root\.squashfs|root\.verity|vmlinuz|initrd\.img)$/ { all += $2 }
    END { if (all) printf "fetched %.1f of %.1f MB, %.1f %%\n", fetched / 1e6, all / 1e6, fetched * 100 / all }'
}
