# Drivers for the hardware that is there. Nothing in the initrd listens for hot-plugging, so whoever waits for a device
# asks here again meanwhile: a USB adapter turns up seconds after its bus.
# shellcheck shell=dash

# load_new_drivers: for every device that has turned up since it was asked last; status 1 when there was none. Every device
# names its driver (modalias); what is built in or has no driver here is no failure.
load_new_drivers() {
  local asked="$KIT_RUN/modaliases" fresh
  # Each name is asked for once: it costs a read of modules.alias.
  # Not empty: busybox's grep -v -f drops every line when it is given no pattern.
  [ -s "$asked" ] || echo '(none)' >"$asked"
  fresh="$(find "$KIT_SYS/devices" -name modalias -exec cat '{}' + 2>/dev/null | sort -u | grep -vxF -f "$asked")"
  [ -n "$fresh" ] || return 1
  echo "$(printf '%s\n' "$fresh" | wc -l) new modaliases"
  # Ended by NUL: the maker's name for a product may have a quotation mark in it, at which xargs would give up.
  printf '%s\n' "$fresh" | tee -a "$asked" | tr '\n' '\0' | xargs -0 modprobe -a -b -q 2>&1 || true
}
