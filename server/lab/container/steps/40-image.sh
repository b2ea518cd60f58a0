#!/bin/sh
# Gets the root image, once for all machines of the lab, and mounts it with the lab's own files over it.
# shellcheck shell=dash
set -eu

for library in lib download manifest root; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$library.sh"
done

wanted="$(manifest_file "$KIT_RUN/manifest" root.squashfs)"
sha256="${wanted#* }"
file="/lab/images/$sha256.squashfs"

leave_root
if is_mounted /lab/root; then umount /lab/root; fi
if [ -e "$file" ]; then
  progress 'a machine of this lab has brought it before'
else
  # Another one may be at it too: who is first has it for all.
  download "$KIT_URL/images/$KIT_IMAGE/root.squashfs" "$file.$KIT_MAC" "$sha256" "${wanted% *}"
  ln "$file.$KIT_MAC" "$file" 2>/dev/null || [ -e "$file" ] || fail "Cannot keep $file"
  rm -f "$file.$KIT_MAC"
fi
mount -t squashfs -o ro,loop "$file" /lab/root || fail "Cannot mount the root image $KIT_IMAGE as squashfs: this host has no loop devices, or no squashfs"
# Who may not take memory from others (CAP_SYS_RESOURCE) cannot promise a container that it is spared either.
config=etc/containerd/config.toml
capabilities="$(sed -n 's/^CapBnd:[[:space:]]*//p' "$KIT_PROC/self/status")"
if [ -e "/lab/root/$config" ] && [ $(((0x$capabilities >> 24) & 1)) = 0 ]; then
  mkdir -p "/lab/layer/${config%/*}"
  sed 's/^\( *\)sandbox_image = .*/&\n\1restrict_oom_score_adj = true/' "/lab/root/$config" >"/lab/layer/$config"
fi
mount -t overlay -o "ro,lowerdir=/lab/layer:/lab/root" overlay "$KIT_RUN/image" || fail "Cannot lay the lab's files over the root image"
