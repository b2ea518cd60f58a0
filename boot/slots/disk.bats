#!/usr/bin/env bats
# Finding and mounting the machine's own partitions, and putting files on kit-esp.

load slots.bash

setup_file() {
  make_applets
}

@test "find_partition() finds by label and tells none from several" {
  prepare() {
    partition vda3 kit-root-a
    partition vda4 kit-root-ab
    partition vda7 kit-overlay
    mkdir -p "$KIT_SYS/class/block/nvme0n1/nvme0n1p7" "$KIT_SYS/class/block/sr0"
    ln -s nvme0n1/nvme0n1p7 "$KIT_SYS/class/block/nvme0n1p7"
    echo 'PARTNAME=kit-overlay' >"$KIT_SYS/class/block/nvme0n1p7/uevent"
  }
  on_machine uefi 'for asked in "kit-root-a" "kit-overlay vda" "kit-overlay /dev/nvme0n1" kit-overlay kit-esp "kit-root-a nvme0n1"; do
    find_partition $asked 2>&1 && echo 0 || echo $?; done'
  [ "${output//"$KIT_DEV"/DEV}" = "DEV/vda3
0
DEV/vda7
0
DEV/nvme0n1p7
0
Cannot tell which partition kit-overlay is this machine's: DEV/nvme0n1p7 DEV/vda7
2
Cannot find the partition kit-esp: no disk has one
1
Cannot find the partition kit-root-a on nvme0n1: no disk has one
1" ]
}

@test "put_on_esp() replaces a file, and removes what a cut left only after that" {
  prepare() {
    mkdir -p "$KIT_ESP/loader"
    echo old >"$KIT_ESP/loader/x"
    echo left >"$KIT_ESP/loader/x.1"
    echo new >"$KIT_RUN/x"
    # Two names for the same clusters, as FAT has it after a cut: what is written to one is in the other.
    ln -f "$KIT_ESP/loader/x.1" "$KIT_ESP/loader/x"
    stand_in mv 'echo "at the rename x.1 is $(cat "$KIT_ESP/loader/x.1")"; exec /bin/mv "$@"'
  }
  on_machine uefi 'put_on_esp "$KIT_RUN/x" "$KIT_ESP/loader/x" | { grep -v rename || true; }; cat "$KIT_ESP/loader/x"; ls "$KIT_ESP/loader"'
  [ "$output" = "new
x" ]
  # busybox runs its own mv; dash the one that tells.
  fresh_machine uefi
  prepare
  run env PATH="$MACHINE/bin:$PATH" dash -c '. "$KIT_LIB/disk.sh"; put_on_esp "$KIT_RUN/x" "$KIT_ESP/loader/x"'
  [ "$output" = 'at the rename x.1 is left' ]
}

@test "put_on_esp() leaves the old file where there is no room, and says how much there is" {
  [ "$(id -u)" -eq 0 ] || skip 'mounting needs root'
  unshare --mount true || skip 'no namespaces here'
  for shell in dash busybox; do
    fresh_machine uefi
    head -c 200000 /dev/urandom >"$KIT_RUN/x"
    program=(env PATH="$PATH" dash)
    [ "$shell" = dash ] || program=(env PATH="$APPLETS" "$BUSYBOX" sh)
    run unshare --mount --propagation private "${program[@]}" -c '. "$KIT_LIB/disk.sh"; mount -t tmpfs -o size=100k tmpfs "$KIT_ESP"
      echo old >"$KIT_ESP/x"; put_on_esp "$KIT_RUN/x" "$KIT_ESP/x" 2>&1 | tail -n 1; cat "$KIT_ESP/x"; ls "$KIT_ESP"'
    [ "$output" = "Cannot write $KIT_ESP/x: 96 KiB are free on kit-esp, 195 are needed; or the disk does not keep what is written
old
x" ]
  done
}

@test "mount_kit_partition() mounts once, refuses what is no ext4, and makes nothing" {
  [ "$(id -u)" -eq 0 ] || skip 'mounting needs root'
  unshare --mount true || skip 'no namespaces here'
  for shell in dash busybox; do
    fresh_machine uefi
    partition vda7 kit-overlay 0 8
    partition vda9 kit-persist 0 8
    mkfs.ext4 -q -F "$KIT_DEV/vda7"
    printf 'precious' >"$KIT_DEV/vda9"
    before="$(sha256_of "$KIT_DEV/vda9")"
    program=(env PATH="$PATH" dash)
    [ "$shell" = dash ] || program=(env PATH="$APPLETS:/usr/sbin:/sbin" "$BUSYBOX" sh)
    run unshare --mount --propagation private "${program[@]}" -c '. "$KIT_LIB/disk.sh"
      mount_kit_partition kit-overlay "$KIT_OVERLAY" ext4 "$KIT_EXT4_OPTIONS" && mount_kit_partition kit-overlay "$KIT_OVERLAY" ext4 rw && is_mount_point "$KIT_OVERLAY" && echo mounted
      mount_kit_partition kit-persist "$KIT_PERSIST" ext4 "$KIT_EXT4_OPTIONS" 2>&1 | tail -n 1
      unmount_kit_partitions; is_mount_point "$KIT_OVERLAY" || echo unmounted'
    [ "$output" = "mounted
Cannot mount kit-persist ($KIT_DEV/vda9): it is no ext4 that can be mended by itself
unmounted" ] || { echo "$shell: $output" && false; }
    [ "$(sha256_of "$KIT_DEV/vda9")" = "$before" ]
  done
}

@test "kit_disk() tells the disk of the mounted kit-overlay, or nothing" {
  while IFS='|' read -r source wanted; do
    prepare() {
      partition vda7 kit-overlay
      rm "$KIT_PROC/self" && mkdir "$KIT_PROC/self"
      printf '22 1 8:1 / / rw - ext4 /dev/sda1 rw\n%s\n' "${source//OVERLAY/$KIT_OVERLAY}" >"$KIT_PROC/self/mountinfo"
    }
    on_machine uefi kit_disk
    [ "$output" = "$wanted" ] || { echo "$source gave $output" && false; }
  done <<'TABLE'
29 22 254:7 / OVERLAY rw,noatime shared:5 - ext4 /dev/vda7 rw,errors=remount-ro|vda
29 22 254:7 / OVERLAY rw,noatime - ext4 /dev/sdz7 rw|
|
TABLE
}
