#!/bin/sh
# Leaves word for the agent, and makes sure that there is a system to hand over to.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"

program=''
for candidate in /usr/lib/systemd/systemd /sbin/init; do
  # In the new root: its own idea of an absolute link counts.
  if chroot "$KIT_NEWROOT" /bin/sh -c "test -x $candidate"; then
    program="$candidate"
    break
  fi
done
[ -n "$program" ] || fail "Cannot start image $KIT_IMAGE with this bundle: it has neither systemd nor /sbin/init"
for directory in proc sys dev run; do
  [ -d "$KIT_NEWROOT/$directory" ] || mkdir "$KIT_NEWROOT/$directory"
done

# Each value passed parameters.sh: nothing in them needs quoting.
cat >"$KIT_RUN/env" <<ENVIRONMENT
KIT_URL=$KIT_URL
KIT_TLS=$KIT_TLS
KIT_CA=$KIT_CA
KIT_MAC=$KIT_MAC
KIT_BOOT=$KIT_BOOT
KIT_IMAGE=$KIT_IMAGE
KIT_BUNDLE=$KIT_BUNDLE
KIT_PLAN=$KIT_PLAN
ENVIRONMENT
# A live system runs from no slot.
slot="${KIT_SLOT:-}"
[ -z "$slot" ] || echo "KIT_SLOT=$slot" >>"$KIT_RUN/env"
# What signs this server's images; the agent checks updates by it.
[ ! -e "$KIT_LIB/image-key.pub" ] || cp "$KIT_LIB/image-key.pub" "$KIT_RUN/image-key.pub"
# A trial counts from here.
cut -d . -f 1 "$KIT_PROC/uptime" >"$KIT_RUN/handed-over"
echo "$program" >"$KIT_RUN/init"
