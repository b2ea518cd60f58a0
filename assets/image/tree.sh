# The root tree of a node: the Debian tree without what a node never needs, with our files over it.
# shellcheck shell=bash

# make_tree <root> <image folder> <version> <added folder or nothing>: changes the tree in place, moves kernel and loaders out of it.
make_tree() {
  local root=$1 image=$2 version=$3 added=$4
  take_kernel "$root" "$image"
  take_loaders "$root" "$image"
  make_boot_files "$root" "$image"
  mv "$root/.kit-build/loaders.txt" "$KIT_WORK/loaders.txt"
  rm -rf "$root/.kit-build"
  shrink_modules "$root"
  clean_tree "$root"
  # Debian enabled things while it installed; the presets below decide instead.
  find "$root/etc/systemd/system" -mindepth 1 -delete
  lay_files "$KIT_RECIPE/root" "$root"
  lay_files "$KIT_PROJECT/boot/node/root" "$root"
  make_places "$root"
  lay_kubernetes "$root"
  choose_units "$root"
  [ -z "$added" ] || lay_files "$added" "$root"
  printf 'IMAGE_ID=kateskit\nIMAGE_VERSION=%s\n' "$version" >>"$root/usr/lib/os-release"
}

take_kernel() {
  local kernels=("$1"/boot/vmlinuz-*)
  [ ${#kernels[@]} = 1 ] || fail "Cannot choose a kernel: ${#kernels[@]} in the Debian tree"
  install -m 644 "${kernels[0]}" "$2/vmlinuz"
  # The config stays: tools (and people) look for it; there is no boot loader to read the rest.
  rm -f "$1"/{vmlinuz,initrd.img}{,.old} "$1"/boot/{vmlinuz,initrd.img,System.map}-*
}

# Names on the wire are those of server/machine/loaders.ts; Debian's names on the right.
take_loaders() {
  local from=$1/.kit-build/loaders/usr/lib/ipxe name
  mkdir "$2/ipxe"
  install -m 644 "$from/snponly.efi" "$from/undionly.kpxe" "$from/ipxe.lkrn" "$2/ipxe/"
  install -m 644 "$from/ipxe-amd64.efi" "$2/ipxe/ipxe.efi"
  # arm64 has no snponly in trixie; its full build brings its own network drivers and falls back to the firmware's.
  if [ -f "$from/snponly-arm64.efi" ]; then name=snponly-arm64.efi; else name=ipxe-arm64.efi; fi
  install -m 644 "$from/$name" "$2/ipxe/snponly-arm64.efi"
}

# Drops what the list names. The rest stays in Debian's xz: unpacked, squashfs's zstd makes them 6 MB bigger, and an
# initrd of plain modules takes 2 s longer to unpack under emulation (docs/decisions/kernel-and-modules.md).
shrink_modules() {
  local root=$1 kernel path
  kernel=$(ls "$root/usr/lib/modules")
  while IFS= read -r path; do
    path=$root/usr/lib/modules/$kernel/kernel/$path
    [ -e "$path" ] || ! lists_are_exact || fail "Cannot drop the kernel modules $path: there are none"
    rm -rf "$path"
  done < <(list_column "$KIT_RECIPE/kernel-modules/dropped.txt")
  chroot "$root" depmod "$kernel"
}

# State of the package manager and of this build; identities, which each machine makes for itself.
clean_tree() {
  local root=$1
  rm -rf "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/apt "$root"/var/tmp/* "$root"/tmp/* "$root"/run/* \
    "$root"/var/lib/dpkg/{info,updates,parts,triggers,alternatives,*-old,lock*,cmethopt,diversions*,statoverride} \
    "$root"/var/lib/{ucf,pam,systemd/deb-systemd-*} "$root"/var/backups \
    "$root"/etc/{apt,dpkg,init.d,rc?.d,cron.*,logrotate.d,runit,sv,ufw,kernel,initramfs-tools,debconf.conf,adduser.conf,deluser.conf,ucf.conf,modules} \
    "$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$root"/etc/.pwd.lock \
    "$root"/etc/{hostname,resolv.conf} "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id \
    "$root"/usr/lib/udev/hwdb.bin "$root"/usr/lib/udev/hwdb.d "$root"/usr/share/{bug,lintian,debconf,perl5} \
    "$root"/usr/lib/x86_64-linux-gnu/perl-base "$root"/root/.ssh
  # Empty, not absent: systemd then makes an id for this boot without taking it for a first boot (machine-id(5)).
  : >"$root/etc/machine-id"
  : >"$root/etc/fstab"
  ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
  chroot "$root" ldconfig
  rm -rf "$root/var/cache/ldconfig"
  rm -f "$root"/etc/modules-load.d/modules.conf
  # "Nothing in /usr is newer than this": spares the boot ldconfig, hwdb, catalog and sysusers (systemd-update-done(8)).
  : >"$root/etc/.updated"
  : >"$root/var/.updated"
}

# Lays a folder over the root: owner root, modes from git's executable bit alone, directories that exist keep theirs. What
# comes as lib/… goes where /lib points to.
lay_files() {
  [ -d "$1" ] || return 0
  tar -C "$1" --owner=0 --group=0 --mode='u=rwX,go=rX' -c . | tar -C "$2" --no-overwrite-dir --keep-directory-symlink -x
}

# Where partitions are mounted (docs/disk.md): the root is read-only, so the folders have to be there.
make_places() {
  local place
  for place in /boot/efi /persist /var/lib/containers /var/lib/containerd; do
    install -d -m 755 "$1$place"
  done
}

# Enables what the presets name and nothing else, then masks what packages start without asking.
choose_units() {
  local unit
  # systemctl wants to see /proc; the mount ends with the command.
  # shellcheck disable=SC2016 # the inner shell expands it
  isolated sh -c 'mount -t proc proc "$1/proc" && chroot "$1" systemctl -q preset-all' sh "$1" 2>"$KIT_WORK/preset.log" ||
    fail "Cannot enable the units of the presets: $(<"$KIT_WORK/preset.log")"
  while IFS= read -r unit; do
    ln -s /dev/null "$1/etc/systemd/system/$unit" || fail "Cannot mask $unit: a preset enables it"
  done < <(list_column "$KIT_RECIPE/units-masked.txt")
  while IFS= read -r unit; do
    rm "$1/usr/lib/systemd/system-generators/$unit" || fail "Cannot remove the generator $unit: it is not there"
  done < <(list_column "$KIT_RECIPE/generators-removed.txt")
}
