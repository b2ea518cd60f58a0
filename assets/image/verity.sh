# The hash tree by which dm-verity checks each block of the root file system as it is read.
# shellcheck shell=bash

# Any would do; the same one every time keeps the tree's bytes the same.
verity_uuid=6b617465-736b-4974-8000-766572697479

# make_verity <root file system> <hash tree to make>: the root hash goes to $KIT_WORK/root-hash.
make_verity() {
  local root_hash
  [ $(($(stat -c %s "$1") % 4096)) = 0 ] || truncate -s %4096 "$1" # verity knows whole blocks only
  # No salt: it would guard against tables made ahead for secret contents, and these are public.
  root_hash=$(veritysetup format --format=1 --hash=sha256 --data-block-size=4096 --hash-block-size=4096 --salt=- \
    --uuid="$verity_uuid" "$1" "$2" | sed -n 's/^Root hash:[[:space:]]*//p')
  [[ $root_hash =~ ^[0-9a-f]{64}$ ]] ||
    fail 'Cannot hash the root file system: veritysetup printed no root hash' 'see the lines above'
  printf '%s\n' "$root_hash" >"$KIT_WORK/root-hash"
  chmod 644 "$2"
}
