#!/bin/sh
# Brings into the new root what outlives it: kit-persist, the containers' storage, what the machine is known by, named paths.
# shellcheck shell=dash
set -eu

# shellcheck source=../lib.sh
. "${KIT_LIB:-/lib/kit}/lib.sh"
for part in json report disk identity persist; do
  # shellcheck source=/dev/null
  . "$KIT_LIB/$part.sh"
done

rm -f "$KIT_RUN/persist-problems"
disk="$(kit_disk)"
mount_kit_partition kit-persist "$KIT_PERSIST" ext4 "$KIT_EXT4_OPTIONS" "$disk" 2>"$KIT_RUN/error" || {
  cat "$KIT_RUN/error"
  fail "$(tail -n 1 "$KIT_RUN/error")"
}
mkdir -p "$KIT_PERSIST/machine/ssh" "$KIT_PERSIST/etcd" "$KIT_PERSIST/volumes" "$KIT_PERSIST/paths"
chmod 0700 "$KIT_PERSIST/machine" "$KIT_PERSIST/machine/ssh" "$KIT_PERSIST/etcd"
bind_directory "$KIT_PERSIST" /persist || fail 'Cannot mount kit-persist at /persist of the new root'
bind_directory "$KIT_PERSIST/etcd" /var/lib/etcd || problem 'cannot bind /var/lib/etcd: etcd would write to memory'
mount_containers "$disk"
keep_or_load_identity
keep_machine_id
keep_ssh_host_keys
bind_named_paths
