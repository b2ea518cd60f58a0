# GRUB: its script (boot/grub.cfg) decides by the environment block kit/grub/grubenv, of which one sector is used, so that
# it changes in one go. Needs disk.sh, slots.sh, loader.sh.
# shellcheck shell=dash

# GRUB's own size of the block (include/grub/lib/envblk.h), and the part of it that one write takes.
GRUBENV_BYTES=1024
GRUBENV_SECTOR_BYTES=512

# bios_env NAME: a value of the environment block, or nothing; only values that were written here or by grub.cfg.
bios_env() {
  sed -n "s/^$1=\([ab0-9]\)\$/\1/p" "$KIT_ESP/kit/grub/grubenv" 2>/dev/null | head -n 1
}

# bios_set [NAME=VALUE]…: changes values of the block; an empty value takes the line away.
bios_set() {
  local file="$KIT_ESP/kit/grub/grubenv" text="$KIT_RUN/grubenv" name value lines='' pair
  for name in boot spare try tries network; do
    value="$(bios_env "$name")"
    for pair in "$@"; do
      [ "${pair%%=*}" != "$name" ] || value="${pair#*=}"
    done
    [ -z "$value" ] || lines="$lines$name=$value
"
  done
  {
    printf '# GRUB Environment Block\n%s' "$lines"
    head -c "$GRUBENV_BYTES" /dev/zero | tr '\0' '#'
  } | head -c "$GRUBENV_BYTES" >"$text" || return 1
  bios_put_env "$text" "$file"
}

# bios_put_env SOURCE TARGET
bios_put_env() {
  if cmp -s "$1" "$2"; then return 0; fi
  if [ "$(stat -c %s "$2" 2>/dev/null)" != "$GRUBENV_BYTES" ]; then
    put_on_esp "$1" "$2"
    return
  fi
  # In place: GRUB finds it by the sectors it lay in, and one sector is written whole or not at all.
  dd if="$1" of="$2" bs="$GRUBENV_SECTOR_BYTES" count=1 conv=notrunc,fsync 2>/dev/null && sync -f "$2" && forget_cached "$2" &&
    cmp -s "$1" "$2" && return 0
  complain "Cannot write $2: the disk does not keep what is written"
}

# bios_knows SLOT: see loader_knows.
bios_knows() {
  if [ "$(bios_env try)" = "$1" ]; then
    case "$(bios_env tries)" in
      '' | 0) echo tried ;;
      *) echo trying ;;
    esac
  elif [ "$(bios_env boot)" = "$1" ] || [ "$(bios_env spare)" = "$1" ]; then
    echo good
  elif [ -z "$(bios_env boot)$(bios_env try)" ] && [ -e "$KIT_ESP/kit/$1/grub.cfg" ]; then
    # grub.cfg starts it, because it knows of none.
    echo trying
  fi
}

bios_tries() {
  [ "$(bios_env try)" != "$1" ] || bios_env tries
}

bios_offer() {
  if [ -n "$(bios_env boot)$(bios_env try)" ]; then
    bios_write_slot "$1" && bios_offer_env "$1" "$2"
  else
    # To a block that names no slot grub.cfg prefers what it can start, and would not count it.
    bios_offer_env "$1" "$2" && bios_write_slot "$1"
  fi
}

# bios_offer_env SLOT TRIES
bios_offer_env() {
  bios_drop "$1"
  if [ "$2" != 0 ]; then
    # A good slot that goes on trial again is no longer one to fall back to.
    bios_set "boot=$BOOT" "spare=$SPARE" "try=$1" "tries=$2"
  else
    # What was on trial is not what boots next.
    bios_set "boot=$1" "spare=$BOOT" try= tries=
  fi
}

bios_bless() {
  bios_make_good "$1"
}

# bios_make_good SLOT: the one to boot; the one before it is kept for when this one is condemned.
bios_make_good() {
  bios_drop "$1"
  if [ "$(bios_env try)" = "$1" ]; then
    bios_set "boot=$1" "spare=$BOOT" try= tries=
  else
    bios_set "boot=$1" "spare=$BOOT"
  fi
}

# bios_drop SLOT: sets BOOT and SPARE to the good slots but that one, in order.
bios_drop() {
  BOOT="$(bios_env boot)"
  SPARE="$(bios_env spare)"
  [ "$BOOT" != "$1" ] || BOOT=''
  [ "$SPARE" != "$1" ] || SPARE=''
  [ -n "$BOOT" ] || { BOOT="$SPARE" && SPARE=''; }
}

bios_condemn() {
  bios_drop "$1"
  if [ "$(bios_env try)" = "$1" ]; then
    bios_set "boot=$BOOT" "spare=$SPARE" "try=$1" tries=0
  elif [ -z "$BOOT" ] && [ -z "$(bios_env try)" ]; then
    # The last one: a block that names no slot at all is for grub.cfg one that was damaged.
    bios_set boot= spare= "try=$1" tries=0
  else
    bios_set "boot=$BOOT" "spare=$SPARE"
  fi
}

bios_tidy() {
  remove_leftovers "$KIT_ESP/kit/grub/grubenv"
}

bios_forget() {
  bios_drop "$1"
  if [ "$(bios_env try)" = "$1" ]; then
    bios_set "boot=$BOOT" "spare=$SPARE" try= tries= || return 1
  elif [ -e "$KIT_ESP/kit/grub/grubenv" ]; then
    bios_set "boot=$BOOT" "spare=$SPARE" || return 1
  fi
  rm -f "$KIT_ESP/kit/$1/grub.cfg" && remove_leftovers "$KIT_ESP/kit/$1/grub.cfg"
}

# bios_write_slot SLOT: the part of grub.cfg that starts it. Every word is quoted, so that nothing in it means anything to
# GRUB; $kit_trial is what grub.cfg adds on trial.
bios_write_slot() {
  local text="$KIT_RUN/slot.cfg" options
  options="$(slot_options "$1" | tr -s ' ' '\n' | sed "s/'/'\\\\''/g; s/.*/'&'/" | tr '\n' ' ')"
  cat >"$text" <<SCRIPT || return 1
# KatesKit $(slot_field "$1" image), slot $1. Written by loader-bios.sh.
if linux /kit/$1/vmlinuz $options\$kit_trial; then
  initrd /kit/$1/initrd.img
else
  false
fi
SCRIPT
  put_different "$text" "$KIT_ESP/kit/$1/grub.cfg"
}

# bios_is_trial: grub.cfg says so.
bios_is_trial() {
  tr -s '[:space:]' '\n' <"$KIT_PROC/cmdline" | grep -qx 'kit.trial=1'
}

bios_network_once() {
  bios_set network=1
}

# bios_install FOLDER DISK: GRUB's script, its core into kit-bios and its boot code into the first sector.
bios_install() {
  local core
  put_different "$1/grub.cfg" "$KIT_ESP/kit/grub/grub.cfg" || return 1
  if [ -e "$KIT_ESP/kit/grub/grubenv" ]; then bios_set network=; else bios_set; fi || return 1
  core="$(find_partition kit-bios "$2")" || return 1
  [ "$(cat "$KIT_SYS/class/block/${core##*/}/start")" = 2048 ] ||
    { complain "Cannot install GRUB: kit-bios does not begin at sector 2048, where its boot code looks for it" || return 1; }
  [ "$(stat -c %s "$1/grub-core.img")" -le 1048576 ] || { complain 'Cannot install GRUB: its core is larger than kit-bios' || return 1; }
  if ! begins_with "$core" "$1/grub-core.img"; then
    # While half of a core lies there, the boot code is a call that hands back to the firmware (INT 18h), which goes on to
    # the next device: the network, once more.
    printf '\315\030' >"$KIT_RUN/int18" && write_start "$KIT_DEV/${2##*/}" "$KIT_RUN/int18" && write_start "$core" "$1/grub-core.img" || return 1
  fi
  # The rest of the sector is the disk's own: its signature and the protective table.
  head -c 440 "$1/grub-boot.img" >"$KIT_RUN/grub-boot" || return 1
  begins_with "$KIT_DEV/${2##*/}" "$KIT_RUN/grub-boot" || write_start "$KIT_DEV/${2##*/}" "$KIT_RUN/grub-boot"
}

# begins_with DEVICE FILE: what is on the disk, not what is remembered of it.
begins_with() {
  blockdev --flushbufs "$1" 2>/dev/null || sync "$1"
  head -c "$(stat -c %s "$2")" "$1" | cmp -s - "$2"
}

# write_start DEVICE FILE: its first bytes, read back.
write_start() {
  dd if="$2" of="$1" bs=1M conv=notrunc,fsync 2>/dev/null && begins_with "$1" "$2" && return 0
  complain "Cannot write the boot loader to $1: the disk does not keep what is written"
}
