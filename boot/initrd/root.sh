# The root that the machine is handed over to: an image, the bundle over it, and writes to memory over that.
# shellcheck shell=dash

# lay_root IMAGE_TREE BUNDLE_TREE: fails the step unless KIT_NEWROOT is then the root.
lay_root() {
  local writes="$KIT_RUN/writes"
  mkdir -p "$writes"
  # Half of the memory, as for any tmpfs of Debian: a log that runs away must not take the machine with it.
  mount -t tmpfs -o mode=0755,size=50% tmpfs "$writes" || fail 'Cannot make room in memory for what the running system writes'
  mkdir "$writes/upper" "$writes/work"
  mount -t overlay -o "lowerdir=$2:$1,upperdir=$writes/upper,workdir=$writes/work" overlay "$KIT_NEWROOT" ||
    fail "Cannot lay the bundle over the root image: $(dmesg | grep overlayfs | tail -n 1)"
}

# leave_root: takes away what an attempt before this one may have left. Nothing runs from it yet.
leave_root() {
  local place
  for place in "$KIT_NEWROOT" "$KIT_RUN/writes" "$KIT_RUN/bundle/root" "$KIT_RUN/image" "$KIT_RUN/containers"; do
    unmount_below "$place"
  done
  # Last, for until then it is the slot that is in use.
  if [ -e "$KIT_DEV/mapper/kit-root" ]; then DM_DISABLE_UDEV=1 dmsetup remove --noudevsync kit-root; fi
  rm -f "$KIT_RUN/slot"
  mkdir -p "$KIT_NEWROOT" "$KIT_RUN/image"
}

# unmount_below DIRECTORY: everything that is mounted there or below, the deepest first.
unmount_below() {
  local place
  # A blank in a path is written \040 there (proc(5), mountinfo).
  awk -v place="$1" '$5 == place || index($5, place "/") == 1 { print $5 }' "$KIT_PROC/self/mountinfo" | sort -r |
    while IFS= read -r place; do umount "$(printf '%b' "$(printf '%s' "$place" | sed 's/\\/\\0/g')")" || exit 1; done
}
