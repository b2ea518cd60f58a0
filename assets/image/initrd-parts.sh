# Packs the initrd as several archives in a row, each compressed by itself, as the kernel unpacks them: what is updated
# together is one, so that another package leaves the bytes of the others alone (docs/decisions/delta-updates.md).
# shellcheck shell=bash

# note_owners <root tree>: lines "<source package> <path>" for pack_initrd, while the lists of dpkg are still in the tree.
note_owners() {
  dpkg-query --admindir="$1/var/lib/dpkg" -W -f '= ${source:Package}\n${db-fsys:Files}\n' |
    awk '$1 == "=" { owner = $2; next } sub(/^ \//, "/") { print owner, $0 }' >"$KIT_WORK/owners"
}

# pack_initrd <tree> <file> <yes: pack it again even when the cache has it>
# Sorted, owned by root, dated by the recipe: the same tree is the same file. Compressing takes longer than everything else
# that an image with one more file needs, so the cache keeps results; $kept_initrd names the one used.
pack_initrd() {
  local tree=$1 file=$2 fresh=$3 parts=$KIT_WORK/initrd-parts kept list
  find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  mkdir "$parts"
  list_parts "$tree" "$parts"
  for list in "$parts"/*; do
    (cd "$tree" && cpio --create --format=newc --quiet --reproducible --owner=0:0) <"$list" >"$list.cpio"
  done
  kept_initrd=$({ zstd --version && cat "$parts"/*.cpio; } | sha256sum | cut -d' ' -f1)
  kept=$KIT_CACHE/initrds/$kept_initrd
  if [ "$fresh" = yes ] || [ ! -f "$kept" ]; then
    # Level 19 asks for a window of 8 MiB at most, which is all the kernel gives (lib/decompress_unzstd.c).
    printf '%s\0' "$parts"/*.cpio | xargs -0 -n 1 -P "$(nproc)" zstd -q -19 -T1
    cat "$parts"/*.cpio.zst >"$kept.new"
    # The kernel wants a plain archive that follows to start at a multiple of four: whoever appends one need not think of it.
    truncate -s %4 "$kept.new"
    sync "$kept.new"
    mv -- "$kept.new" "$kept"
  fi
  touch "$kept"
  cp --preserve=mode "$kept" "$file"
  chmod 644 "$file"
  rm -r "$parts"
}

# list_parts <tree> <folder>: a file for each archive with the paths that are in it, named in the order in which they are to
# be unpacked: the first one makes the folders of the others.
list_parts() {
  (cd "$1" && find . -printf '%y %p\n') | LC_ALL=C sort -k 2 | awk -v folder="$2" '
    # One name for a place, whichever of the links in / somebody went by.
    function plain(path) { sub(/^\.?\/(usr\/)?/, "/", path); sub(/^\/sbin\//, "/bin/", path); return path }
    FILENAME == ARGV[1] { owner = $1; sub(/^[^ ]+ /, ""); owners[plain($0)] = owner; next }
    {
      kind = $1
      sub(/^. /, "")
      if ($0 ~ /^\.\/lib\/modules(\/|$)/) part = "3-modules"
      else if (kind != "f") part = "0-base"
      else if ($0 ~ /^\.\/lib\/firmware\//) part = "2-firmware"
      else part = plain($0) in owners ? "1-" owners[plain($0)] : "0-base"
      print >(folder "/" part)
    }' "$KIT_WORK/owners" -
}
