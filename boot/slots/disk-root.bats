#!/usr/bin/env bats
# 61-disk-root and 62-persist in a mount namespace: real squashfs, overlay and ext4 (in place of FAT, too), a hash tree that
# veritysetup checks in place of the kernel.

load slots.bash

setup_file() {
  make_applets
  [ "$(id -u)" -eq 0 ] || skip 'mounting needs root'
  unshare --mount true || skip 'no namespaces here'
  command -v veritysetup >/dev/null || skip 'veritysetup (package cryptsetup-bin) is not here'
  local root="$BATS_FILE_TMPDIR/root" folder="$BATS_FILE_TMPDIR/image"
  mkdir -p "$folder" "$root"/{etc/ssh,usr/lib,var/lib/thing,var/log}
  ln -s usr/lib "$root/lib"
  : >"$root/etc/machine-id"
  echo image | tee "$root/etc/motd" "$root/etc/plain" "$root/var/lib/thing/seed" >/dev/null
  chmod 0750 "$root/var/lib/thing"
  chown 7:8 "$root/var/lib/thing"
  head -c 300000 /dev/urandom >"$root/usr/lib/noise"
  mksquashfs "$root" "$folder/root.squashfs" -quiet -no-progress -comp gzip >/dev/null
  veritysetup format --salt=- "$folder/root.squashfs" "$folder/root.verity" | sed -n 's/^Root hash:[[:space:]]*//p' >"$folder/root-hash"
}

# make_disk: slot a with the image, good; bundle 1; file systems. What a test changes before the file systems are mounted
# is the function disk_change, after that slot_change.
make_disk() {
  local name number=1
  fresh_machine uefi
  ln -s /proc/uptime "$KIT_PROC/uptime"
  mkdir -p "$KIT_PROC/sys/kernel/random"
  ln -s /proc/sys/kernel/random/uuid "$KIT_PROC/sys/kernel/random/uuid"
  for name in bios esp root-a verity-a root-b verity-b overlay containers persist; do
    partition "vda$number" "kit-$name" 0 4
    case "$name" in esp | overlay | containers | persist) mkfs.ext4 -q -F "$KIT_DEV/vda$number" ;; esac
    number=$((number + 1))
  done
  cp "$BATS_FILE_TMPDIR/image/root.squashfs" "$KIT_DEV/vda3"
  cp "$BATS_FILE_TMPDIR/image/root.verity" "$KIT_DEV/vda4"
  # Refuses at opening where the kernel would at reading, and leaves what cannot be read.
  # shellcheck disable=SC2016
  stand_in dmsetup 'PATH=/usr/sbin:/usr/bin:/sbin:/bin; for last; do :; done; echo "$*" >>"$MACHINE/dmsetup"
    case "$1" in
      create) name="$KIT_DEV/mapper/$2"; set -- $last
        if veritysetup verify "$5" "$6" "${12}" >&2; then ln -s "$5" "$name"; else mkdir "$name"; fi ;;
      remove) rm -rf "$KIT_DEV/mapper/$last" ;;
    esac'
  # No test loads modules into the kernel it runs on.
  export MODPROBE_OPTIONS=--dry-run
  export KIT_LIB="$MACHINE/lib" KIT_NEWROOT="$MACHINE/newroot" KIT_PLAN=disk KIT_SLOT=a KIT_IMAGE=1 KIT_BOOT='' KIT_MAC="$MAC"
  KIT_ROOT_HASH="$(cat "$BATS_FILE_TMPDIR/image/root-hash")"
  KIT_ROOT_SIZE="$(stat -c %s "$BATS_FILE_TMPDIR/image/root.squashfs")"
  export KIT_ROOT_HASH KIT_ROOT_SIZE IMAGE="$BATS_FILE_TMPDIR/image"
  cp -rL "$BOOT_FOLDER/initrd" "$KIT_LIB"
  sed -i 's/^DISK_TENTHS=.*/DISK_TENTHS=3/' "$KIT_LIB/steps/61-disk-root.sh"
  sed -i 's/^load_new_drivers() {/&\n  return 1/' "$KIT_LIB/drivers.sh"
  mkdir -p "$KIT_SYS/class/tty/console" && : >"$KIT_SYS/class/tty/console/active"
  disk_change
  export -f record slot_change
}

disk_change() { :; }
slot_change() { :; }

# in_namespace TEXT: TEXT under busybox, with the disk made, the slot's record written and `boot`, which runs the steps from 61 on as
# another start would: nothing is mounted, /run is empty. Sets status and output.
in_namespace() {
  make_disk
  # shellcheck disable=SC2016
  run unshare --mount --propagation private bash -c 'set -eu
    mount "$KIT_DEV/vda2" "$KIT_ESP" && mount "$KIT_DEV/vda7" "$KIT_OVERLAY"
    record a "root-hash $KIT_ROOT_HASH" "root-size $KIT_ROOT_SIZE"
    mkdir -p "$KIT_ESP/loader/entries" "$KIT_OVERLAY/bundles/$BUNDLE_1/etc" "$KIT_OVERLAY/bundles/$BUNDLE_2/etc"
    printf "version 1\nlinux /kit/a/vmlinuz\n" >"$KIT_ESP/loader/entries/kit-a.conf"
    echo "bundle 1" >"$KIT_OVERLAY/bundles/$BUNDLE_1/etc/motd"; echo "bundle 2" >"$KIT_OVERLAY/bundles/$BUNDLE_2/etc/motd"
    slot_change
    umount "$KIT_OVERLAY"
    exec env PATH="$MACHINE/bin:$APPLETS:/usr/sbin:/sbin" "$BUSYBOX" sh -eu -c "$1"' bash "$boot
$1"
}

# shellcheck disable=SC2016
boot='. "$KIT_LIB/lib.sh"; . "$KIT_LIB/json.sh"; . "$KIT_LIB/report.sh"; . "$KIT_LIB/root.sh"; . "$KIT_LIB/disk.sh"; . "$KIT_LIB/slots.sh"
. "$KIT_LIB/loader.sh"; . "$KIT_LIB/loader-uefi.sh"; . "$KIT_LIB/loader-bios.sh"
boot() {
  for step in "$@"; do
    export KIT_STEP=$step
    if ! sh "$KIT_LIB/steps/$step.sh" >"$KIT_RUN/log" 2>&1; then cat "$KIT_RUN/failure"; return 1; fi
  done
}
# kit-esp stays mounted: it stands for what a kernel with FAT would mount.
power_off() {
  leave_root
  unmount_below "$KIT_OVERLAY"; unmount_below "$KIT_PERSIST"; rm -rf "$KIT_RUN"; mkdir "$KIT_RUN"
}'

@test "61-disk-root lays the slot and its bundle, leaves word, and can run twice" {
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root; boot 61-disk-root; cat "$KIT_NEWROOT/etc/motd" "$KIT_NEWROOT/etc/plain"; echo x >"$KIT_NEWROOT/etc/new"
    cat "$KIT_RUN/bundle/root/etc/motd" "$KIT_RUN/slot"; touch "$KIT_RUN/bundle/root/x" 2>/dev/null || true
    [ "$(cat "$KIT_RUN/values/BUNDLE")" = "$BUNDLE_1" ]; slot_state a; grep -c . "$KIT_OVERLAY/slots/a.attempts"; head -n 1 "$MACHINE/dmsetup"'
  [ "$status" -eq 0 ]
  [ "${output//"$KIT_DEV"/DEV}" = "bundle 1
image
bundle 1
a
good
2
create kit-root --readonly --noudevsync --table 0 $((KIT_ROOT_SIZE / 512)) verity 1 DEV/vda3 DEV/vda4 4096 4096 $((KIT_ROOT_SIZE / 4096)) 1 sha256 $KIT_ROOT_HASH -" ]
}

@test "61-disk-root condemns a slot that is not what was started, and says why" {
  while IFS='|' read -r doing wanted; do
    eval "slot_change() { $doing; }"
    # shellcheck disable=SC2016
    in_namespace 'boot 61-disk-root || true; cat "$KIT_RUN/condemned"; slot_state a; slot_field a reason; ls "$KIT_ESP/loader/entries"'
    [ "$output" = "Cannot start slot a: $wanted
$wanted
bad
$wanted
kit-a+0.conf" ] || { echo "$doing gave $output" && false; }
  done <<TABLE
record a "root-size \$KIT_ROOT_SIZE"|mixed versions: the kernel was started for root-hash $(cat "$BATS_FILE_TMPDIR/image/root-hash"), the slot has $ROOT_HASH
record a "root-hash \$KIT_ROOT_HASH" "root-size \$KIT_ROOT_SIZE" "reason no luck"|no luck
record a "root-hash \$KIT_ROOT_HASH" "root-size \$KIT_ROOT_SIZE" "bundle abcd"|its bundle abcd is not on kit-overlay
dd if=/dev/urandom of="\$KIT_DEV/vda3" bs=64 seek=1000 count=1 conv=notrunc status=none|its root image is damaged: dm-verity refuses to read it
TABLE
}

@test "61-disk-root condemns a slot without a record, or with half of one" {
  while IFS='|' read -r doing wanted; do
    eval "slot_change() { $doing; }"
    # shellcheck disable=SC2016
    in_namespace 'boot 61-disk-root || true; loader_knows a'
    [ "$output" = "Cannot start slot a: $wanted
tried" ] || { echo "$doing gave $output" && false; }
  done <<'TABLE'
rm "$KIT_OVERLAY/slots/a"|it was never written to the end (state empty)
record a 'state writing'|it was never written to the end (state writing)
TABLE
}

attempts='printf "1\n2\n" >"$KIT_OVERLAY/slots/a.attempts"; echo "bundle-good $BUNDLE_2" >>"$KIT_OVERLAY/slots/a"'

@test "61-disk-root doubts a good slot after two starts: a sound one starts with its last good bundle" {
  eval "slot_change() { $attempts; }"
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root; cat "$KIT_NEWROOT/etc/motd" "$KIT_RUN/bundle-refused"; [ "$(cat "$KIT_RUN/values/BUNDLE")" = "$BUNDLE_2" ]; slot_state a; cut -d " " -f 2 "$MACHINE/dmsetup"'
  [ "$status" -eq 0 ]
  [ "$output" = "bundle 2
$BUNDLE_1 the machine did not get up with it
good
kit-check-a
--noudevsync
kit-root" ]
}

@test "61-disk-root takes the bundle as it is while a slot is on trial, and the last good one for one that is gone" {
  eval "slot_change() { $attempts; mv \"\$KIT_ESP/loader/entries/kit-a.conf\" \"\$KIT_ESP/loader/entries/kit-a+1-2.conf\"; }"
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root; cat "$KIT_NEWROOT/etc/motd"; slot_state a'
  [ "$output" = "bundle 1
trying" ]
  # shellcheck disable=SC2016
  slot_change() { echo "bundle-good $BUNDLE_2" >>"$KIT_OVERLAY/slots/a" && rm -r "$KIT_OVERLAY/bundles/$BUNDLE_1"; }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root; cat "$KIT_NEWROOT/etc/motd"'
  [ "$output" = 'bundle 2' ]
}

@test "61-disk-root condemns nothing when it is the disk that cannot be found or told" {
  disk_change() { rm "$KIT_SYS/class/block/vda4/uevent"; }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root || ls "$KIT_ESP/loader/entries" "$KIT_RUN" | grep "conf\|condemned"'
  [ "$output" = "Cannot find the partition kit-verity-a: no disk has one
kit-a.conf" ]
  disk_change() { mkdir "$KIT_SYS/class/block/sdb7" && echo PARTNAME=kit-overlay >"$KIT_SYS/class/block/sdb7/uevent"; }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root || ls "$KIT_ESP/loader/entries"'
  [ "${output//"$KIT_DEV"/DEV}" = "Cannot tell which partition kit-overlay is this machine's: DEV/sdb7 DEV/vda7
kit-a.conf" ]
}

@test "62-persist gives the machine an id and keeps it, and everything else that outlives the root" {
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root 62-persist; cd "$KIT_NEWROOT"; grep -Ecx "[0-9a-f]{32}" etc/machine-id; cat etc/machine-id >"$MACHINE/id"
    for kept in persist/volumes var/lib/etcd var/lib/containers var/lib/containerd; do echo "in $kept" >"$kept/file"; done
    readlink etc/ssh/ssh_host_ed25519_key; stat -c "%a %n" persist/machine persist/machine/ssh var/lib/etcd; cd /
    boot 62-persist; power_off; [ ! -e "$KIT_PERSIST/machine" ]
    boot 61-disk-root 62-persist; cd "$KIT_NEWROOT"; cmp etc/machine-id "$MACHINE/id"; cat persist/volumes/file persist/etcd/file var/lib/containers/file var/lib/containerd/file
    ls "$KIT_RUN/persist-problems" 2>/dev/null || true; ls persist'
  [ "$status" -eq 0 ]
  [ "$output" = "1
/persist/machine/ssh/ssh_host_ed25519_key
700 persist/machine
700 persist/machine/ssh
700 var/lib/etcd
in persist/volumes
in var/lib/etcd
in var/lib/containers
in var/lib/containerd
etcd
lost+found
machine
paths
volumes" ]
}

@test "62-persist keeps the node of a cluster with the containers, where the image has Kubernetes" {
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root; mkdir -p "$KIT_NEWROOT/usr/bin"; : >"$KIT_NEWROOT/usr/bin/kubeadm"; boot 62-persist; cd "$KIT_NEWROOT"
    for kept in etc/kubernetes var/lib/kubelet var/lib/cni; do echo "in $kept" >"$kept/file"; done
    stat -c "%a %n" etc/kubernetes var/lib/kubelet; cd /; power_off
    boot 61-disk-root 62-persist; ls -A "$KIT_NEWROOT/etc/kubernetes" 2>/dev/null || true; power_off
    boot 61-disk-root; mkdir -p "$KIT_NEWROOT/usr/bin"; : >"$KIT_NEWROOT/usr/bin/kubeadm"; boot 62-persist; cd "$KIT_NEWROOT"
    cat etc/kubernetes/file var/lib/kubelet/file var/lib/cni/file'
  [ "$status" -eq 0 ]
  [ "$output" = "700 etc/kubernetes
700 var/lib/kubelet
in etc/kubernetes
in var/lib/kubelet
in var/lib/cni" ]
}

@test "62-persist leaves what the bundle brings, keeps whole ssh keys and drops half ones" {
  # shellcheck disable=SC2016
  slot_change() {
    mkdir -p "$KIT_OVERLAY/bundles/$BUNDLE_1/etc/ssh"
    echo 00112233445566778899aabbccddeeff >"$KIT_OVERLAY/bundles/$BUNDLE_1/etc/machine-id"
    echo 'of the bundle' >"$KIT_OVERLAY/bundles/$BUNDLE_1/etc/ssh/ssh_host_rsa_key"
  }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root 62-persist; ssh="$KIT_PERSIST/machine/ssh"
    for kind in rsa ecdsa; do printf "%s\n" "-----BEGIN OPENSSH PRIVATE KEY-----" "-----END OPENSSH PRIVATE KEY-----" >"$ssh/ssh_host_${kind}_key"; echo public >"$ssh/ssh_host_${kind}_key.pub"; done
    : >"$ssh/ssh_host_ed25519_key"; power_off; boot 61-disk-root 62-persist; cd "$KIT_NEWROOT/etc"; cat machine-id ssh/ssh_host_rsa_key; ls ssh "$ssh"'
  [ "${output//"$KIT_PERSIST"/PERSIST}" = "00112233445566778899aabbccddeeff
of the bundle
PERSIST/machine/ssh:
ssh_host_ecdsa_key
ssh_host_ecdsa_key.pub
ssh_host_rsa_key
ssh_host_rsa_key.pub

ssh:
ssh_host_ecdsa_key
ssh_host_ecdsa_key.pub
ssh_host_ed25519_key
ssh_host_ed25519_key.pub
ssh_host_rsa_key" ]
}

@test "62-persist makes a broken kit-containers new, and fails for a broken kit-persist without touching it" {
  disk_change() { printf 'not ext4' | dd of="$KIT_DEV/vda8" bs=1024 seek=1 conv=notrunc 2>/dev/null; }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root 62-persist; echo x >"$KIT_NEWROOT/var/lib/containers/x"; cat "$KIT_RUN/persist-problems"; is_mount_point "$KIT_RUN/containers"'
  [ "$status" -eq 0 ]
  [ "$output" = 'kit-containers cannot be mounted: it is made new, images are fetched again' ]
  disk_change() { head -c 4194304 /dev/urandom >"$KIT_DEV/vda9" && sha256_of "$KIT_DEV/vda9" >"$MACHINE/before"; }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root 62-persist || true; sha256sum <"$KIT_DEV/vda9" | cut -d " " -f 1 | cmp - "$MACHINE/before"; loader_knows a'
  [ "${output//"$KIT_DEV"/DEV}" = 'Cannot mount kit-persist (DEV/vda9): it is no ext4 that can be mended by itself
good' ]
}

@test "62-persist keeps the paths that /etc/kit/persist names, and says of each that cannot be kept why" {
  # shellcheck disable=SC2016
  slot_change() {
    mkdir -p "$KIT_OVERLAY/bundles/$BUNDLE_1/etc/kit"
    cat >"$KIT_OVERLAY/bundles/$BUNDLE_1/etc/kit/persist" <<'PATHS'
# what this machine keeps
/var/lib/thing
/etc/plain
/srv/a b/made

/var/lib/thing/seed
relative
/
/etc
/proc/sys
/var/lib/../x
/lib/x
/usr//lib
/var/lib/etcd/member
PATHS
    printf '/var/lib/odd\t\n' >>"$KIT_OVERLAY/bundles/$BUNDLE_1/etc/kit/persist"
  }
  # shellcheck disable=SC2016
  in_namespace 'boot 61-disk-root 62-persist; cd "$KIT_NEWROOT"; cat var/lib/thing/seed etc/plain; stat -c "%u:%g %a %n" var/lib/thing "srv/a b/made"; cat "$KIT_RUN/persist-problems" | tr "\t" "?"
    echo changed | tee var/lib/thing/seed etc/plain "srv/a b/made/file" >/dev/null; cd /; power_off
    boot 61-disk-root 62-persist; boot 62-persist; cd "$KIT_NEWROOT"; cat var/lib/thing/seed etc/plain "srv/a b/made/file" "persist/paths/etc/plain"; stat -c "%u:%g %a" var/lib/thing; cd /; leave_root
    grep -c newroot /proc/self/mountinfo || true'
  [ "$status" -eq 0 ]
  [ "$output" = "image
image
7:8 750 var/lib/thing
0:0 755 srv/a b/made
/etc/kit/persist: cannot keep /: it is no plain path
/etc/kit/persist: cannot keep /etc: this place cannot be kept
/etc/kit/persist: cannot keep /lib/x: this place cannot be kept
/etc/kit/persist: cannot keep /proc/sys: this place cannot be kept
/etc/kit/persist: cannot keep /usr//lib: it is no plain path
/etc/kit/persist: cannot keep /var/lib/../x: it is no plain path
/etc/kit/persist: cannot keep /var/lib/etcd/member: it is taken care of already
/etc/kit/persist: cannot keep /var/lib/odd?: there is a control character in it
/etc/kit/persist: cannot keep relative: it does not begin with /
changed
changed
changed
changed
7:8 750
0" ]
}
