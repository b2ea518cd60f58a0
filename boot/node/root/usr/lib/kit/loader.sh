# What the boot loader is told, whichever it is: systemd-boot keeps its state in names of files (loader-uefi.sh), GRUB in an
# environment block (loader-bios.sh). Needs disk.sh, slots.sh and both of those.
# shellcheck shell=dash

# loader_kind: uefi or bios, by the firmware at hand.
loader_kind() {
  if [ -d "$KIT_SYS/firmware/efi" ]; then echo uefi; else echo bios; fi
}

# loader_knows SLOT: good, trying, tried (no tries left), or nothing when the loader does not know it.
loader_knows() {
  "$(loader_kind)_knows" "$1"
}

# loader_tries SLOT: the tries it has left while it is on trial, else nothing.
loader_tries() {
  "$(loader_kind)_tries" "$1"
}

# loader_offer SLOT TRIES: the next to boot, with so many tries; 0 for a slot that is known to be good.
loader_offer() {
  local slot="$1" tries="$2" other generation
  case "$tries" in
    # grub.cfg counts down from nine.
    [0-9]) ;;
    *) complain "Cannot offer slot $slot: $tries tries are not 0 to 9" || return 1 ;;
  esac
  other="$(other_slot "$slot")" || return 1
  [ "$(slot_field "$slot" state)" = written ] ||
    { complain "Cannot offer slot $slot: it is $(slot_state "$slot")" || return 1; }
  generation="$(slot_generation "$slot")"
  # What is offered is newer than what was, whichever was written first. A reason belongs to the trial before this one.
  if [ "$generation" -le "$(slot_generation "$other")" ] || [ -n "$(slot_field "$slot" reason)" ]; then
    set_slot_fields "$slot" generation "$(next_generation)" reason '' || return 1
  fi
  "$(loader_kind)_offer" "$slot" "$tries"
}

# loader_bless SLOT: good; nothing is counted any more.
loader_bless() {
  case "$(slot_field "$1" reason):$(loader_knows "$1")" in
    # Once more for one that is good: a cut may have left two entries of it.
    :good | :trying | :tried) "$(loader_kind)_bless" "$1" ;;
    *) complain "Cannot call slot $1 good: it is $(slot_state "$1")" ;;
  esac
}

# loader_condemn SLOT REASON: no tries any more; the reason goes into its record.
loader_condemn() {
  local reason
  reason="$(printf '%s' "$2" | tr '[:cntrl:]' ' ' | head -c 500)"
  # The reason first: a start of the slot that should come in between finds it, and ends here again.
  if [ -e "$KIT_OVERLAY/slots/$1" ]; then set_slot_fields "$1" reason "${reason:-no reason given}" || return 1; fi
  "$(loader_kind)_condemn" "$1"
}

# loader_forget SLOT: the loader knows nothing of it any more.
loader_forget() {
  "$(loader_kind)_forget" "$1"
}

# loader_tidy: ends what a cut left half done, before anything else is written.
loader_tidy() {
  "$(loader_kind)_tidy"
}

# loader_is_trial: was this start counted by the loader? Needs no partition: it holds when the disk cannot be found.
loader_is_trial() {
  "$(loader_kind)_is_trial"
}

# loader_network_once: the next boot is from the network, whatever the firmware's order.
loader_network_once() {
  "$(loader_kind)_network_once"
}

# install_loaders ROOT DISK: the loaders of the image at ROOT, for both kinds of firmware; only what differs is written.
install_loaders() {
  local from="$1/usr/lib/kit/boot" file
  for file in systemd-bootx64.efi ipxe.efi ipxe.lkrn grub.cfg grub-boot.img grub-core.img; do
    [ -s "$from/$file" ] || { complain "Cannot install the boot loaders: the image has no /usr/lib/kit/boot/$file (is it for this architecture, $(uname -m)?)" || return 1; }
  done
  put_different "$from/ipxe.efi" "$KIT_ESP/kit/ipxe.efi" && put_different "$from/ipxe.lkrn" "$KIT_ESP/kit/ipxe.lkrn" || return 1
  put_network_script || return 1
  bios_install "$from" "$2" && uefi_install "$from" "$2"
}

# put_network_script: what the iPXE on kit-esp does. On UEFI it finds autoexec.ipxe beside itself (seen with 1.21.1 of May
# 2025 under systemd-boot); grub.cfg hands it over. Nothing without the server's URL: what is there is then better.
put_network_script() {
  local text="$KIT_RUN/autoexec"
  [ -n "${KIT_URL:-}" ] || return 0
  network_script "$KIT_URL" "$(printf '%s' "${KIT_MAC:-}" | tr - :)" >"$text" && put_different "$text" "$KIT_ESP/kit/autoexec.ipxe"
}

# network_script URL MAC: asks the server, by the machine's own interface first, and says by `want` that it comes from the
# disk: an installed machine would else be sent back there. Whom DHCP names is asked when the server has another address
# by now. It starts over in the end: a machine that was only sent here for a powerwash has a slot to start.
network_script() {
  local query="uuid=\${uuid}&platform=\${platform}&buildarch=\${buildarch}&want=\${want}"
  cat <<SCRIPT
#!ipxe
set want recover
set rounds:int32 0

:round
set index:int32 0
:find
isset \${net\${index}/mac} || goto any
iseq \${net\${index}/mac} ${2:-none} && goto own ||
inc index
goto find

:own
dhcp net\${index} && goto ask ||
:any
dhcp || goto wait

:ask
echo KatesKit: from the disk to $1
chain --autofree --replace $1/boot/\${netX/mac:hexhyp}.ipxe?$query ||
isset \${filename} && chain --autofree --replace \${filename}?$query ||
autoboot ||

:wait
inc rounds
iseq \${rounds} 30 && goto over ||
echo KatesKit: nobody there at $1, trying again in 10 seconds
sleep 10 ||
goto round

:over
reboot
SCRIPT
}

# put_different SOURCE TARGET: as put_on_esp, when they are not the same already.
put_different() {
  if [ -e "$2" ] && cmp -s "$1" "$2"; then return 0; fi
  put_on_esp "$1" "$2"
}
