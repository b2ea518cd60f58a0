# The initrd: busybox, the shell of boot/initrd/, the programs of initrd-programs.txt and the kernel modules of
# kernel-modules/initrd.txt. Nothing in it says which image it belongs to: images that differ elsewhere share its bytes.
# initrd-parts.sh packs it.
# shellcheck shell=bash

# make_initrd <root tree> <work folder> <file> <yes: pack it again even when the cache has it>
make_initrd() {
  local root=$1 tree=$2 file=$3 fresh=$4
  mkdir -p "$tree"/{bin,dev,etc,lib/kit,mnt,newroot,proc,root,run,sys,tmp,usr/lib}
  ln -s bin "$tree/sbin"
  ln -s ../bin "$tree/usr/bin"
  ln -s ../bin "$tree/usr/sbin"
  ln -s ../../lib/modules "$tree/usr/lib/modules"
  lay_busybox "$root" "$tree"
  lay_programs "$root" "$tree"
  lay_scripts "$tree"
  lay_modules "$root" "$tree"
  # The root's own has the image's version in it.
  printf 'NAME="KatesKit initrd"\nID=kateskit\n' >"$tree/etc/initrd-release"
  pack_initrd "$tree" "$file" "$fresh"
}

lay_busybox() {
  local applet
  install -m 755 "$1/usr/bin/busybox" "$2/bin/busybox"
  for applet in $("$1/usr/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$2/bin/$applet"
  done
}

# The programs and files of initrd-programs.txt, and what they are linked to. A program replaces busybox's of its name.
lay_programs() {
  local root=$1 tree=$2 path place library
  while IFS= read -r path; do
    [ -e "$root$path" ] || fail "Cannot make the initrd: the root tree has no $path" 'mend assets/image/initrd-programs.txt'
    case $path in
      */bin/* | */sbin/*) place=$tree/bin/${path##*/} ;;
      *) place=$tree$path ;;
    esac
    mkdir -p "${place%/*}"
    case $path in
      # Opened by that name at run time, whatever file it is a link to.
      *.so | *.so.*) cp --dereference --preserve=mode --remove-destination "$root$path" "$place" ;;
      *)
        cp --no-dereference --preserve=mode,links --remove-destination "$root$path" "$place"
        if [ -L "$place" ] || [ ! -x "$place" ]; then continue; fi
        ;;
    esac
    while IFS= read -r library; do
      [ -e "$tree$library" ] || install -D -m 755 "$root$library" "$tree$library"
    done < <(libraries_of "$root" "$path")
  done < <(list_column "$KIT_RECIPE/initrd-programs.txt")
}

# libraries_of <root tree> <program>: the paths of its shared libraries, the one that loads them included.
libraries_of() {
  # "name => path (address)", or "path (address)" for the loader; the kernel's own page has neither.
  chroot "$1" /lib64/ld-linux-x86-64.so.2 --list "$2" | awk '$2 == "=>" { print $3; next } $1 ~ /^\// { print $1 }'
}

# boot/initrd/init becomes /init, everything else in the folder /lib/kit/…; pages and tests stay behind.
lay_scripts() {
  local from=$KIT_PROJECT/boot/initrd
  [ -f "$from/init" ] || fail "Cannot make the initrd: $from/init is not there"
  # What it shares with the agent is a link to the agent's file.
  tar -C "$from" --dereference --owner=0 --group=0 --mode='u=rwX,go=rX' --exclude='*.bats' --exclude='*.md' --exclude='*.test.*' \
    --exclude=./init -c . | tar -C "$1/lib/kit" --no-overwrite-dir -x
  install -m 755 "$from/init" "$1/init"
}

# Copies each named module and what it depends on (modules.dep lists the whole chain).
lay_modules() {
  local root=$1 tree=$2 kernel from to files file
  kernel=$(ls "$root/usr/lib/modules")
  from=$root/usr/lib/modules/$kernel
  to=$tree/lib/modules/$kernel
  mkdir -p "$to"
  cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
  files=$(initrd_module_files "$from" 2>"$KIT_WORK/missing-modules") || ! lists_are_exact ||
    fail "Cannot make the initrd: the kernel has no module $(paste -sd' ' "$KIT_WORK/missing-modules")" \
      'mend assets/image/kernel-modules/initrd.txt'
  while IFS= read -r file; do
    install -D -m 644 "$from/$file" "$to/$file"
    lay_firmware "$root" "$tree" "${file##*/}"
  done <<<"$files"
  # The image's own depmod over the initrd's own modules, so that the tables name only what is there.
  mkdir -p "$root/.kit-initrd/lib"
  mv "$tree/lib/modules" "$root/.kit-initrd/lib/modules"
  chroot "$root" depmod -b /.kit-initrd "$kernel"
  mv "$root/.kit-initrd/lib/modules" "$tree/lib/modules"
  rm -r "$root/.kit-initrd"
  # The text tables are what busybox reads; kmod's binary ones would only be carried along.
  rm -f "$to"/modules.*.bin "$to"/modules.{devname,weakdep,softdep,builtin.modinfo}
}

# What a module says it may ask for, as far as the root tree has it: nothing, unless somebody added it (docs/image.md).
lay_firmware() {
  local root=$1 tree=$2 module=$3 name
  chroot "$root" modinfo -k "$(ls "$root/usr/lib/modules")" -F firmware "${module%%.ko*}" | while IFS= read -r name; do
    for name in "$name" "$name.xz" "$name.zst"; do
      [ -e "$root/usr/lib/firmware/$name" ] || continue
      mkdir -p "$tree/lib/firmware/${name%/*}"
      # What the file is, where Debian has a link to a newer one.
      cp --dereference "$root/usr/lib/firmware/$name" "$tree/lib/firmware/$name"
    done
  done
}

# The files under the module folder, once each. A module that is built in has none; names nobody knows go to stderr.
initrd_module_files() {
  local names
  names=$(list_column "$KIT_RECIPE/kernel-modules/initrd.txt")
  awk -v names="$names" '
    function plain(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
    BEGIN { count = split(names, wanted, "\n") }
    FILENAME ~ /modules.builtin$/ { builtin[plain($1)] = 1; next }
    { key = $1; sub(/:$/, "", key); chain[plain(key)] = $0 }
    END {
      for (i = 1; i <= count; i++) {
        name = plain(wanted[i])
        if (name in builtin) continue
        if (!(name in chain)) { print wanted[i] >"/dev/stderr"; missing = 1; continue }
        parts = split(chain[name], files, /:? /)
        for (j = 1; j <= parts; j++) {
          sub(/:$/, "", files[j])
          if (files[j] != "" && !seen[files[j]]++) print files[j]
        }
      }
      exit missing
    }
  ' "$1/modules.builtin" "$1/modules.dep"
}
