#!/usr/bin/env bats
# The steps themselves, in a network, mount and process namespace of their own: a real DHCP server (busybox udhcpd), a
# real HTTP server, a real squashfs, a real overlay. Only 10-modules is tried apart: it would load modules here.

load ../testing/machine.bash

setup_file() {
  make_applets
  [ "$(id -u)" -eq 0 ] || skip 'namespaces need root'
  unshare --mount --net --uts --pid --fork true || skip 'no namespaces here'
  # Debian 12's static busybox (1.35) crashes in wget whenever it is given a time-out.
  local crashed=0
  "$BUSYBOX" wget -q -T 1 -O /dev/null http://127.0.0.1:1/ 2>/dev/null || crashed=$?
  [ "$crashed" -ne 139 ] || skip "the wget of $BUSYBOX crashes; build the image or set KIT_BUSYBOX"
  make_image "$BATS_FILE_TMPDIR/image.squashfs"
}

setup() {
  make_machine
  FOLDER="$BATS_TEST_TMPDIR/server"
  mkdir -p "$FOLDER/images/2025.11.1" "$FOLDER/bundles" "$BATS_TEST_TMPDIR/bundle/etc"
  cp "$BATS_FILE_TMPDIR/image.squashfs" "$FOLDER/images/2025.11.1/root.squashfs"
  echo 'from the bundle' >"$BATS_TEST_TMPDIR/bundle/etc/motd"
  touch "$BATS_TEST_TMPDIR/bundle/etc/.wh.unwanted"
  tar -C "$BATS_TEST_TMPDIR/bundle" -cf "$BATS_TEST_TMPDIR/bundle.tar" .
  KIT_BUNDLE="$(sha256_of "$BATS_TEST_TMPDIR/bundle.tar")"
  mv "$BATS_TEST_TMPDIR/bundle.tar" "$FOLDER/bundles/$KIT_BUNDLE.tar"
  KIT_ROOT_SHA256="$(sha256_of "$FOLDER/images/2025.11.1/root.squashfs")"
  KIT_ROOT_SIZE="$(stat -c %s "$FOLDER/images/2025.11.1/root.squashfs")"
  KIT_LIB="$BATS_TEST_TMPDIR/lib" KIT_NEWROOT="$BATS_TEST_TMPDIR/newroot" KIT_SYS=/sys KIT_URL='http://10.77.0.1:8080' KIT_TLS='http://10.77.0.1:8080'
  cp -rL "$BOOT_FOLDER/initrd" "$KIT_LIB"
  sed -i '/10-modules/d' "$KIT_LIB"/plans/*
  sed -i 's/load_new_drivers;/false;/' "$KIT_LIB/wait-for-disks.sh"
  make_ca
  touch "$BATS_TEST_TMPDIR/resolv.conf"
  export KIT_BUNDLE KIT_ROOT_SHA256 KIT_ROOT_SIZE KIT_LIB KIT_NEWROOT KIT_SYS KIT_URL KIT_TLS FOLDER
}

# make_image FILE: a root file system that has just what 70-handover looks for, and 3 MiB that do not compress.
make_image() {
  local root="$BATS_FILE_TMPDIR/root"
  make_root "$root"
  echo 'from the image' | tee "$root/etc/motd" "$root/etc/unwanted" >"$root/etc/plain"
  head -c 3145728 /dev/urandom >"$root/var/noise"
  mksquashfs "$root" "$1" -quiet -no-progress -comp gzip >/dev/null
}

# in_machine TEXT: TEXT, with the libraries loaded, inside the namespaces, on the machine's end of a cable to the server.
in_machine() {
  export TEXT="$1" BOOT_FOLDER BATS_TEST_TMPDIR APPLETS
  run timeout -k 1 30 unshare --mount --net --uts --pid --fork --kill-child --mount-proc bash -eu "$BOOT_FOLDER/testing/lan.bash"
}

# failed: what there is to see when a machine did not get there.
failed() {
  printf '%s\n' "$output"
  cat "$KIT_DEV"/tty* "$KIT_RUN"/log/*
  return 1
}

statuses() {
  sed -n 's/^events .*"step":"\([^"]*\)","status":"\([^"]*\)".*/\1 \2/p' "$FOLDER/reports"
}

@test "the steps lead to a root with the bundle over the image, each reported, and can run twice" {
  in_machine 'run_steps && cd "$KIT_NEWROOT" && cat etc/motd etc/plain && ls etc && echo x >etc/written && cd / &&
    cat "$KIT_RUN/env" "$KIT_RUN/init" && sed -n "s/^address //p" "$KIT_RUN/net" && hostname && cat /etc/resolv.conf && run_steps'
  [ "$status" -eq 0 ] || failed
  [ "$output" = "from the bundle
from the image
motd
plain
KIT_URL=$KIT_URL
KIT_TLS=$KIT_TLS
KIT_CA=$KIT_CA
KIT_MAC=$MAC
KIT_BOOT=boot-1
KIT_IMAGE=2025.11.1
KIT_BUNDLE=$KIT_BUNDLE
KIT_PLAN=live
/sbin/init
10.77.0.50
kit-one
search lab.test
nameserver 10.77.0.1" ]
  [ "$(statuses | head -n 18)" = "$(for step in 20-network 25-identity 30-check-in 35-manifest 36-disks 40-image 50-bundle 60-root 70-handover; do
    printf '%s started\n%s done\n' "$step" "$step"
  done)" ]
  [ "$(grep -c '^check-in ' "$FOLDER/reports")" -eq 2 ]
  grep -q '^check-in {"boot":"boot-1","phase":"starting","image":"2025.11.1","address":"10.77.0.50"}$' "$FOLDER/reports"
}

@test "20-network takes the interface the machine booted from, not the first, and gets rid of an earlier route" {
  in_machine 'ip link add name a0 type veth peer name a1; ip link set a1 up; ip link set a0 up; ip addr add 10.9.9.9/24 dev a0
    ip route add default via 10.9.9.1; run_step "$KIT_LIB/steps/20-network.sh"; ip route; cat "$KIT_RUN/net"'
  [ "$status" -eq 0 ] || failed
  [ "$(sed -n 's/^interface //p' <<<"$output")" = machine0 ]
  [ "$(grep '^default' <<<"$output" | xargs)" = 'default via 10.77.0.1 dev machine0' ]
}

@test "40-image goes on where the transfer broke off, and shows how far it is" {
  echo 1000000 >"$FOLDER/cut"
  in_machine run_steps
  [ "$status" -eq 0 ] || failed
  grep -Eqr '40-image: download broke off at 0 MiB \(.*\); again in 1 s$' "$KIT_DEV"
  grep -Eqr '40-image: 100% of [0-9]+ MiB$' "$KIT_DEV"
}

@test "40-image goes on for as long as each attempt brings something" {
  echo '1500000 always' >"$FOLDER/cut"
  in_machine 'sed -i "s/^DOWNLOAD_ATTEMPTS=.*/DOWNLOAD_ATTEMPTS=2/" "$KIT_LIB/download.sh"; run_step "$KIT_LIB/steps/20-network.sh"
    run_step "$KIT_LIB/steps/40-image.sh"'
  [ "$status" -eq 0 ] || failed
  [ "$(grep -c 'broke off' "$KIT_RUN/log/40-image")" -ge 2 ]
}

@test "40-image names both digests when the image is a wrong one, and a retry without a reboot succeeds" {
  wrong="$(printf 'a%.0s' {1..64})"
  in_machine "good=\"\$KIT_ROOT_SHA256\"; export KIT_ROOT_SHA256=$wrong; run_steps && exit 9
    [ ! -e \"\$KIT_RUN/store/root.squashfs\" ] && export KIT_ROOT_SHA256=\"\$good\" && run_steps"
  [ "$status" -eq 0 ] || failed
  grep -q "\"step\":\"40-image\",\"status\":\"failed\",\"seconds\":[0-9.]*,\"message\":\"Cannot use $KIT_URL/images/2025.11.1/root.squashfs: its sha256 is $KIT_ROOT_SHA256 and should be $wrong\",\"log\":\"" "$FOLDER/reports"
  grep -q '^check-in .*"phase":"failed"' "$FOLDER/reports"
  [ "$(statuses | tail -n 1)" = '70-handover started' ]
}

@test "40-image says how much memory it needs and how much there is" {
  in_machine 'export KIT_ROOT_SIZE=99999999999999; run_steps'
  [ "$status" -eq 1 ]
  grep -Eq '"message":"Cannot run from memory: needs 95367752 MiB \(95367432 for the image, 320 to run\), [0-9]+ MiB are available"' "$FOLDER/reports"
}

@test "a step fails at once when the server says no" {
  rm "$FOLDER/bundles/$KIT_BUNDLE.tar"
  in_machine run_steps
  [ "$status" -eq 1 ]
  grep -q '"step":"50-bundle","status":"failed".*"message":"Cannot download .*404' "$FOLDER/reports"
  [ -e "$KIT_RUN/gone" ]
}

@test "a boot goes on when its reports are refused" {
  touch "$FOLDER/refuse"
  in_machine run_steps
  [ "$status" -eq 0 ] || failed
  grep -Eqr 'the server refused a report \(check-in\): .*409' "$KIT_DEV"
}

@test "10-modules asks for every modalias once, until no new one turns up" {
  KIT_SYS="$BATS_TEST_TMPDIR/hardware"
  mkdir -p "$KIT_SYS/devices/pci/nic" "$BATS_TEST_TMPDIR/bin"
  echo 'pci:v00008086d0000100E' >"$KIT_SYS/devices/pci/modalias"
  # A quotation mark in a product's name (seen where screens are sold by the inch).
  mkdir "$KIT_SYS/devices/dmi"
  echo "dmi:bvnKate's:pn27\"Kit" >"$KIT_SYS/devices/dmi/modalias"
  # A bus driver that finds a device.
  cat >"$BATS_TEST_TMPDIR/bin/modprobe" <<SH
#!/bin/sh
echo "\$*" >>"$BATS_TEST_TMPDIR/asked"
echo 'virtio:d00000001v00001AF4' >"$KIT_SYS/devices/pci/nic/modalias"
SH
  chmod +x "$BATS_TEST_TMPDIR/bin/modprobe"
  # Not its xargs, which would run its own modprobe.
  for applet in find sort grep tee tr; do ln -s "$BUSYBOX" "$BATS_TEST_TMPDIR/bin/$applet"; done
  KIT_STEP=10-modules PATH="$BATS_TEST_TMPDIR/bin:$PATH" run dash "$BOOT_FOLDER/initrd/steps/10-modules.sh"
  grep -q 'virtio:d00000001v00001AF4' "$BATS_TEST_TMPDIR/asked"
  [ "$(grep -c 'pci:v00008086d0000100E' "$BATS_TEST_TMPDIR/asked")" -eq 1 ]
  grep -qF "dmi:bvnKate's:pn27\"Kit" "$BATS_TEST_TMPDIR/asked"
}
