# Where things lie on a running machine. Tests point these elsewhere; nothing else does.
# shellcheck shell=dash
# shellcheck disable=SC2034 # used by the parts of the agent that are read after this one

: "${KIT_LIB:=/usr/lib/kit}"
# What the initrd left and the agent adds: gone with the next boot.
: "${KIT_RUN:=/run/kit}"
# The merged root. Files change only through it: what lies below a mounted overlay must not change by itself
# (kernel, Documentation/filesystems/overlayfs.rst, "Changes to underlying filesystems").
: "${KIT_LIVE:=}"
: "${KIT_PROC:=/proc}"
: "${KIT_OVERLAY:=$KIT_RUN/overlay}"

# The slot the root comes from, left by the initrd; empty in a live system, which has neither slots nor a disk.
KIT_SLOT="$(cat "$KIT_RUN/slot" 2>/dev/null || true)"

# The layers as the machine was booted with them.
KIT_IMAGE_TREE="$KIT_RUN/image"
KIT_BOOT_TREE="$KIT_RUN/bundle/root"
# The bundle that was taken over last: `trees/<digest>`, and its digest. On a disk it has to be there after a cut.
KIT_TREES="$KIT_RUN/trees"
if [ -n "$KIT_SLOT" ]; then
  KIT_TREES="$KIT_OVERLAY/bundles"
  [ -d "$KIT_BOOT_TREE" ] || KIT_BOOT_TREE="$KIT_TREES/${KIT_BUNDLE:-none}"
fi
KIT_APPLIED="$KIT_RUN/applied"
# The digest of the bundle that is being taken over, and every path that changed and is still owed what follows from it:
# for an agent that was ended in the middle.
KIT_APPLYING="$KIT_RUN/applying"
KIT_OWED="$KIT_RUN/paths"
# One reason a line.
KIT_CONFLICTS="$KIT_RUN/conflicts"
KIT_REBOOT_REASONS="$KIT_RUN/reboot-reasons"
# What the server said last.
KIT_TARGET="$KIT_RUN/target"
# The writing of the other slot: what is wanted, and everything it needs on the way.
KIT_UPDATE="$KIT_RUN/update"

# seconds_now: since the kernel started. The clock of a machine may be wrong, and be set while we wait.
seconds_now() {
  local up rest
  read -r up rest <"$KIT_PROC/uptime"
  printf '%s\n' "${up%.*}"
}

# note_seconds NAME: `KIT_RUN/NAME` says that it was now.
note_seconds() {
  seconds_now >"$KIT_RUN/.$1.new" && mv "$KIT_RUN/.$1.new" "$KIT_RUN/$1"
}

# noted_seconds NAME: when it was; 0 when it never was.
noted_seconds() {
  if [ -s "$KIT_RUN/$1" ]; then cat "$KIT_RUN/$1"; else echo 0; fi
}

# lines_of FILE: how many it has; 0 when it is not there.
lines_of() {
  if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi
}

# applied_digest: of the bundle this machine runs.
applied_digest() {
  if [ -e "$KIT_APPLIED" ]; then cat "$KIT_APPLIED"; else printf '%s\n' "$KIT_BUNDLE"; fi
}

# applied_tree: its files.
applied_tree() {
  if [ -e "$KIT_APPLIED" ]; then printf '%s\n' "$KIT_TREES/$(cat "$KIT_APPLIED")"; else printf '%s\n' "$KIT_BOOT_TREE"; fi
}
