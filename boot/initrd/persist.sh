# What of the new root lies on kit-persist and kit-containers (docs/disk.md). A problem with one thing is said, reported and
# noted for the agent in KIT_RUN/persist-problems, and does not stop the boot.
# shellcheck shell=dash

# problem TEXT
problem() {
  progress "$1"
  report "$KIT_STEP" failed '' "$1"
  printf '%s\n' "$1" >>"$KIT_RUN/persist-problems"
}

# bind_directory SOURCE PATH: PATH of the new root shows SOURCE. Can run twice.
bind_directory() {
  if is_mount_point "$KIT_NEWROOT$2"; then return 0; fi
  mkdir -p "$KIT_NEWROOT$2" && mount -o bind "$1" "$KIT_NEWROOT$2"
}

# mount_containers DISK: images, running containers, and what makes the machine a node; all of it can be had again, so one that cannot
# be mounted is made new.
mount_containers() {
  local device place="$KIT_RUN/containers" folder
  if ! is_mount_point "$place"; then
    device="$(find_partition kit-containers "$1")" || { problem 'there is no kit-containers: containers live in memory' && return 0; }
    if ! mount_kit_partition kit-containers "$place" ext4 "$KIT_EXT4_OPTIONS" "$1"; then
      problem "kit-containers cannot be mounted: it is made new, images are fetched again"
      if ! { mkfs.ext4 -q -F -L kit-containers "$device" && mount -t ext4 -o "$KIT_EXT4_OPTIONS" "$device" "$place"; }; then
        problem 'kit-containers cannot be made new: containers live in memory'
        return 0
      fi
    fi
  fi
  for folder in containers containerd; do
    mkdir -p "$place/$folder"
    bind_directory "$place/$folder" "/var/lib/$folder" || problem "cannot bind /var/lib/$folder: containers live in memory"
  done
  bind_node "$place"
}

# bind_node FOLDER: what a node of a cluster keeps, where the image has Kubernetes.
bind_node() {
  local path
  [ -e "$KIT_NEWROOT/usr/bin/kubeadm" ] || return 0
  for path in /etc/kubernetes /var/lib/kubelet /var/lib/cni; do
    { mkdir -p "$1/node$path" && chmod 0700 "$1/node$path" && bind_directory "$1/node$path" "$path"; } ||
      problem "cannot bind $path: the node lives in memory"
  done
}

# keep_or_load_identity: what the machine has proved by in this boot is kept; a start from the disk takes what is kept. Without
# any, the agent makes one.
keep_or_load_identity() {
  if has_identity; then
    keep_identity 2>"$KIT_RUN/error" || problem "cannot keep the machine's key: $(tail -n 1 "$KIT_RUN/error")"
  elif load_identity 2>"$KIT_RUN/error"; then
    # It may have been found to be one with another MAC since the slot was written.
    if [ -s "$KIT_IDENTITY/mac" ]; then note MAC "$(cat "$KIT_IDENTITY/mac")"; fi
  else
    progress "$(tail -n 1 "$KIT_RUN/error")"
  fi
}

# keep_machine_id: made once; unless the bundle brings one.
keep_machine_id() {
  local file="$KIT_PERSIST/machine/machine-id" target="$KIT_NEWROOT/etc/machine-id"
  if is_mount_point "$target" || is_machine_id "$target"; then return 0; fi
  if ! is_machine_id "$file"; then
    make_machine_id "$file" || { problem 'cannot keep a machine id: this boot has one of its own' && return 0; }
  fi
  [ -e "$target" ] || : >"$target"
  mount -o bind "$file" "$target" || problem 'cannot bind /etc/machine-id: this boot has one of its own'
}

# make_machine_id FILE: a random UUID (version 4) without its dashes, as systemd makes them.
make_machine_id() {
  tr -d - <"$KIT_PROC/sys/kernel/random/uuid" >"$1.new" && chmod 0444 "$1.new" && sync "$1.new" && mv -f "$1.new" "$1" && sync -f "$1"
}

# is_machine_id FILE: machine-id(5).
is_machine_id() {
  grep -Eqx '[0-9a-f]{32}' "$1" 2>/dev/null
}

# keep_ssh_host_keys: links to where they are kept. The link of the key that sshd-keygen.service makes leads nowhere at first:
# for its condition there is no key then, and ssh-keygen writes through the link. Keys of the bundle stay.
keep_ssh_host_keys() {
  local kept="$KIT_PERSIST/machine/ssh" kind name
  for kind in ed25519 ecdsa rsa; do
    name="ssh_host_${kind}_key"
    # A cut while they were made leaves an empty file, with which no sshd starts.
    if ! grep -q '^-----END .*PRIVATE KEY-----$' "$kept/$name" 2>/dev/null || [ ! -s "$kept/$name.pub" ]; then
      rm -f "$kept/$name" "$kept/$name.pub"
    fi
    if [ -e "$KIT_NEWROOT/etc/ssh/$name" ] && [ ! -L "$KIT_NEWROOT/etc/ssh/$name" ]; then continue; fi
    [ "$kind" = ed25519 ] || [ -e "$kept/$name" ] || continue
    mkdir -p "$KIT_NEWROOT/etc/ssh"
    for name in "$name" "$name.pub"; do
      ln -snf "/persist/machine/ssh/$name" "$KIT_NEWROOT/etc/ssh/$name" || problem "cannot keep /etc/ssh/$name"
    done
  done
}

# bind_named_paths: what the file /etc/kit/persist of the new root names, parents before what is in them.
bind_named_paths() {
  local list="$KIT_NEWROOT/etc/kit/persist" path
  [ -f "$list" ] || return 0
  grep -v '^[[:space:]]*\(#\|$\)' "$list" | LC_ALL=C sort -u >"$KIT_RUN/persist-paths" || true
  while IFS= read -r path; do
    bind_named_path "$path" 2>"$KIT_RUN/error" ||
      problem "/etc/kit/persist: cannot keep $path: $(tail -n 1 "$KIT_RUN/error")"
  done <"$KIT_RUN/persist-paths"
}

# bind_named_path PATH: status 1 with the reason on standard error. The first time, what image and bundle have there is
# copied; from then on it is the machine's own.
bind_named_path() {
  local kept="$KIT_PERSIST/paths$1" target="$KIT_NEWROOT$1"
  may_be_kept "$1" || return 1
  if is_mount_point "$target"; then return 0; fi
  if [ ! -e "$kept" ]; then
    rm -rf "${kept%/*}/.kit-new"
    mkdir -p "${kept%/*}" || return 1
    if [ -e "$target" ]; then cp -a "$target" "${kept%/*}/.kit-new"; else mkdir "${kept%/*}/.kit-new"; fi || return 1
    sync -f "${kept%/*}" && mv "${kept%/*}/.kit-new" "$kept" && sync -f "${kept%/*}" || return 1
  fi
  if [ ! -e "$target" ]; then
    mkdir -p "${target%/*}" || return 1
    if [ -d "$kept" ]; then mkdir "$target"; else : >"$target"; fi || return 1
  elif [ -d "$target" ] && [ ! -d "$kept" ]; then
    complain 'it is a directory now and was a file' || return 1
  elif [ ! -d "$target" ] && [ -d "$kept" ]; then
    complain 'it is a file now and was a directory' || return 1
  fi
  mount -o bind "$kept" "$target"
}

# may_be_kept PATH: a place of its own, not one that others are mounted at or that the image lives by.
may_be_kept() {
  local rest="${1#/}" part=''
  case "$1" in
    *[[:cntrl:]]*) complain 'there is a control character in it' || return 1 ;;
    /*) ;;
    *) complain 'it does not begin with /' || return 1 ;;
  esac
  case "$1/" in
    // | */./* | */../* | *//*) complain 'it is no plain path' || return 1 ;;
    /proc/* | /sys/* | /dev/* | /run/* | /tmp/* | /persist/* | /boot/* | /bin/* | /sbin/* | /lib/* | /lib64/* | /usr/ | /etc/ | /var/ | /var/lib/)
      complain 'this place cannot be kept' || return 1
      ;;
    /etc/machine-id/* | /etc/ssh/ | /etc/kit/* | /var/lib/etcd/* | /var/lib/containers/* | /var/lib/containerd/* | \
      /etc/kubernetes/* | /var/lib/kubelet/* | /var/lib/cni/*)
      complain 'it is taken care of already' || return 1
      ;;
  esac
  # What is behind a link in the new root is not where it seems from here.
  while [ -n "$rest" ]; do
    part="$part/${rest%%/*}"
    [ ! -L "$KIT_NEWROOT$part" ] || { complain "$part is a symbolic link" || return 1; }
    case "$rest" in
      */*) rest="${rest#*/}" ;;
      *) rest='' ;;
    esac
  done
}
