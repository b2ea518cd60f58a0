#!/usr/bin/env bats
# Records and states of slots, and what is on kit-overlay.

load slots.bash

setup_file() {
  make_applets
}

@test "other_slot() knows two slots" {
  on_machine uefi 'other_slot a; other_slot b; other_slot c 2>&1 || echo "status $?"'
  [ "$output" = "b
a
Cannot tell the other slot of c: slots are a and b
status 1" ]
}

@test "slot_state() puts record and loader together" {
  prepare() {
    mkdir -p "$KIT_ESP/loader/entries" "$KIT_ESP/kit/grub"
    [ "$change" = none ] || record a ${change:+"$change"}
    [ -z "$entry" ] || printf 'version 1\nlinux /kit/a/vmlinuz\n' >"$KIT_ESP/loader/entries/$entry"
    { printf '# GRUB Environment Block\n%b' "$block" && head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 >"$KIT_ESP/kit/grub/grubenv"
  }
  while IFS='|' read -r wanted change entry block; do
    for firmware in uefi bios; do
      on_machine "$firmware" 'slot_state a'
      [ "$output" = "$wanted" ] || { echo "$change|$entry|$block on $firmware gave $output" && false; }
    done
  done <<'TABLE'
empty|none|kit-a.conf|boot=a\n
writing|state writing|kit-a.conf|boot=a\n
writing|state odd|kit-a.conf|boot=a\n
writing|state|kit-a.conf|boot=a\n
ready|||boot=b\n
ready||kit-b.conf|try=b\ntries=3\n
trying||kit-a+3.conf|try=a\ntries=3\n
trying||kit-a+1-2.conf|boot=b\ntry=a\ntries=1\n
bad||kit-a+0-3.conf|boot=b\ntry=a\ntries=0\n
good||kit-a.conf|boot=a\n
good||kit-a.conf|boot=b\nspare=a\n
bad|reason it did not get up|kit-a.conf|boot=a\n
bad|reason it did not get up||boot=b\n
TABLE
}

@test "slot_state() of the slot that runs is trying during its last try" {
  prepare() {
    record a
    echo a >"$KIT_RUN/slot"
    mkdir -p "$KIT_ESP/loader/entries"
    printf 'version 1\nlinux /kit/a/vmlinuz\n' >"$KIT_ESP/loader/entries/kit-a+0-3.conf"
  }
  on_machine uefi 'slot_state a; set_slot_fields a reason "no good"; slot_state a'
  [ "$output" = "trying
bad" ]
}

@test "write_slot_record() replaces, set_slot_fields() changes, adds and removes" {
  on_machine bios 'printf "state written\nimage 1\nbundle x\n" | write_slot_record a
    set_slot_fields a bundle y bundle-good "" image "2 & \\1 |"; slot_field a image; slot_field a bundle-good; slot_field b image
    set_slot_fields a image ""; cat "$KIT_OVERLAY/slots/a"; ls -A "$KIT_OVERLAY/slots"'
  [ "$output" = '2 & \1 |
state written
bundle y
a' ]
}

@test "write_slot_record() says so when kit-overlay takes nothing" {
  prepare() { rmdir "$KIT_OVERLAY" && touch "$KIT_OVERLAY"; }
  on_machine bios 'echo x | write_slot_record a 2>&1 | tail -n 1'
  [ "$output" = 'Cannot write the record of slot a on kit-overlay' ]
}

@test "good_slots() gives the one that was offered last first, on both kinds of firmware" {
  prepare() { record a && record b 'generation 2'; }
  for firmware in uefi bios; do
    on_machine "$firmware" 'good_slots; for slot in a b; do loader_offer $slot 3; loader_bless $slot; done; good_slots | xargs
      loader_offer a 0; good_slots | xargs; slot_field a generation; loader_condemn a "no good"; good_slots'
    [ "$output" = 'b a
a b
5
b' ] || { echo "$firmware: $output" && false; }
  done
}

@test "drop_unused_bundles() keeps what slots, this boot and the caller need" {
  prepare() {
    record a "bundle-good $BUNDLE_2"
    for name in "$BUNDLE_1" "$BUNDLE_2" booted wanted old .new; do mkdir -p "$KIT_OVERLAY/bundles/$name/etc"; done
  }
  on_machine uefi 'KIT_BUNDLE=booted; drop_unused_bundles wanted; ls -A "$KIT_OVERLAY/bundles"'
  [ "$output" = "$BUNDLE_1
$BUNDLE_2
booted
wanted" ]
}
