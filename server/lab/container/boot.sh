#!/bin/sh
# One start of a container machine, from its firmware on: asks for an address and the boot script as iPXE does, gets the initrd
# that the script names, lets that make the root, and boots the root under systemd-nspawn. Ends as nspawn does: 133 is a restart.
# Runs in namespaces of its own (mounts, processes, hostname), inside the machine's network: whatever it makes ends with it.
# shellcheck shell=dash
set -eu

# By container.ts: the machine's name, MAC and UUID; the folder of its "disk" (containers/, persist/) and the one that the lab's
# machines share; this folder; the cgroups it shall be in, one a line, and which kind they are.
: "${NAME:?}" "${MAC:?}" "${UUID:?}" "${DISK:?}" "${SHARED:?}" "${LAB_LIB:?}" "${CGROUPS:?}" "${CGROUP_FOLDERS?}"

INTERFACE=eth0
PAUSE_SECONDS=3
LOOP_DEVICES=64
# What a kernel module, the clock or the hardware is the host's matter.
DROPPED_CAPABILITIES=CAP_SYS_MODULE,CAP_SYS_TIME,CAP_SYS_RAWIO

say() {
  printf 'firmware: %s\n' "$*"
}

# echo_once TEXT: unless it was the last thing said: a machine may be held for long.
echo_once() {
  [ "$1" = "${said:-}" ] || printf '%s\n' "$1"
  said="$1"
}

# lease: an address, asked for as iPXE does (docs/boot-path.md, step 1); sets script_url to what the server offers with it.
lease() {
  local uuid
  rm -f "$work/lease"
  # Option 97 is a type byte and the UUID as SMBIOS has it, the first three fields little endian (RFC 4578 §2.3).
  uuid="$(printf '%s' "$UUID" | tr -d - | sed 's/^\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)\(..\)/\4\3\2\1\6\5\8\7/')"
  # Option 175 is iPXE's own; in it, feature 0x13 is HTTP.
  LEASE="$work/lease" busybox udhcpc -i "$INTERFACE" -f -q -n -t 4 -T 2 -s "$LAB_LIB/lease.sh" \
    -V PXEClient:Arch:00007:UNDI:003010 -x 0x4d:69505845 -x 0x5d:0007 -x 0x5e:01030a -x "0x61:00$uuid" -x 0xaf:130101 \
    -O bootfile >"$work/udhcpc.log" 2>&1 || true
  script_url="$(sed -n 's/^boot //p' "$work/lease" 2>/dev/null)" || return 1
  [ -n "$script_url" ]
}

# fetch_script: sets initrd_url and writes cmdline; status 1 unless the script starts an image.
fetch_script() {
  local script="$work/script"
  curl -q -sSf --noproxy '*' --max-time 20 -o "$script" "$script_url" || { say "cannot get $script_url" && return 1; }
  echo_once "$(sed -n 's/^echo \(KatesKit: .*\)$/\1/p' "$script" | head -n 1)"
  sed -n 's/^kernel --name vmlinuz [^ ]* initrd=initrd.img \(.*\) || goto failed$/\1/p' "$script" >"$work/cmdline"
  initrd_url="$(sed -n 's/^initrd --name initrd.img \([^ ]*\) .*/\1/p' "$script")"
  [ -s "$work/cmdline" ] && [ -n "$initrd_url" ]
}

# unpack_initrd: archives in a row that zstd has packed, and behind them a plain one of one file, the key. Modules stay behind:
# the kernel is the host's.
unpack_initrd() {
  local file="$work/initrd.img" offset
  curl -q -sSf --noproxy '*' --max-time 120 -o "$file" "$initrd_url" || { say "cannot get $initrd_url" && return 1; }
  # zstd complains of what is behind its own part when that is unpacked, and cpio at the end that there is no more.
  (cd "$root" && zstd -dcq "$file" 2>/dev/null | while unpack_archive; do :; done)
  # The plain archive has two headers, its file's and its end's.
  offset="$(LC_ALL=C grep -obUa 070701 "$file" | tail -n 2 | head -n 1 | cut -d : -f 1)"
  [ -z "$offset" ] || (cd "$root" && tail -c "+$((offset + 1))" "$file" | unpack_archive)
  rm -f "$file"
  if [ ! -x "$root/init" ] || [ ! -d "$root/lib/kit/steps" ]; then
    say "cannot unpack $initrd_url"
    return 1
  fi
}

# unpack_archive: the next one on standard input.
unpack_archive() {
  cpio -idu --quiet --nonmatching '*lib/modules/*' 2>/dev/null
}

# lay_devices: what the initrd needs and no more: of the host's consoles, disks and TPM it sees nothing.
lay_devices() {
  local number=0
  mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
  mknod -m 666 "$root/dev/null" c 1 3
  mknod -m 666 "$root/dev/zero" c 1 5
  mknod -m 666 "$root/dev/random" c 1 8
  mknod -m 666 "$root/dev/urandom" c 1 9
  mknod -m 600 "$root/dev/loop-control" c 10 237
  while [ "$number" -lt "$LOOP_DEVICES" ]; do
    mknod -m 600 "$root/dev/loop$number" b 7 "$number"
    number=$((number + 1))
  done
  # The machine's consoles are this one's output.
  ln -s /proc/1/fd/1 "$root/dev/console"
  ln -s /proc/self/fd "$root/dev/fd"
}

# lay_initrd: the initrd's root as its init finds it.
lay_initrd() {
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  echo console >"$work/consoles"
  mount --bind "$work/consoles" "$root/sys/class/tty/console/active"
  lay_devices
  mkdir -p "$root/run/kit/persist" "$root/lab/containers" "$root/lab/images" "$root/lab/root"
  mount --bind "$DISK/persist" "$root/run/kit/persist"
  mount --bind "$DISK/containers" "$root/lab/containers"
  mount --bind "$SHARED" "$root/lab/images"
  cp -r "$LAB_LIB/layer" "$root/lab/layer"
  cp "$LAB_LIB/initrd.sh" "$root/init"
  cp "$LAB_LIB"/steps/*.sh "$root/lib/kit/steps/"
  # The disks are the host's: there are none to wait for.
  echo 'settle_disks() { :; }' >"$root/lib/kit/wait-for-disks.sh"
  rm -rf "$root/lib/kit/plans"
  cp -r "$LAB_LIB/plans" "$root/lib/kit/plans"
  cp "$LAB_LIB/plans/powerwash" "$root/lib/kit/plans/powerwash-all"
  cp "$LAB_LIB/plans/powerwash" "$root/lib/kit/plans/install"
  cp "$work/cmdline" "$root/cmdline"
}

join_cgroups() {
  local folder
  for folder in $CGROUP_FOLDERS; do echo 0 >"$folder/cgroup.procs"; done
}

# start_system: nspawn takes what the initrd left in /run/kit along, as switch_root would.
start_system() {
  local hostname arguments=''
  hostname="$(tr ' ' '\n' <"$work/cmdline" | sed -n 's/^systemd.hostname=//p')"
  export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_SECCOMP=0
  if [ "$CGROUPS" = v1 ]; then
    export UNIFIED_CGROUP_HIERARCHY=0 SYSTEMD_NSPAWN_USE_CGNS=1
    arguments='SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0'
  fi
  # What nspawn notes for others is for nobody here, and would outlast a kill.
  mkdir -p /run/systemd
  mount -t tmpfs tmpfs /run/systemd
  join_cgroups
  # shellcheck disable=SC2086 # words
  systemd-nspawn --quiet --directory="$root/newroot" --boot --machine="$NAME" --hostname="$hostname" \
    --register=no --keep-unit --network-namespace-path=/proc/self/ns/net --console=read-only \
    --capability=all --drop-capability="$DROPPED_CAPABILITIES" --system-call-filter=@default \
    --bind="$root/run/kit:/run/kit" --bind=/dev/kmsg --resolv-conf=off --timezone=off --link-journal=no \
    "systemd.hostname=$hostname" systemd.show_status=1 systemd.log_target=journal $arguments
}

work="$DISK/run"
root="$work/root"
mkdir -p "$DISK/containers" "$DISK/persist" "$work"
mount -t tmpfs -o mode=0755,size=50% tmpfs "$work"
mkdir "$root"
say "$NAME, $MAC"
ip link set lo up
until lease; do sleep "$PAUSE_SECONDS"; done
until fetch_script && unpack_initrd; do sleep "$PAUSE_SECONDS"; done
lay_initrd
chroot "$root" /init
start_system
