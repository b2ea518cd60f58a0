# The container images that kubeadm asks for, made of what was built and of Debian's packages.
# shellcheck shell=bash

# What kube-proxy and etcd need beside themselves comes from the same Debian as the base image, so that a node's own
# iptables and those in the container write the same kind of rules.
container_packages='etcd-server iptables conntrack'

# make_images <result folder> <version>: one archive for each name of `kubeadm config images list`, as far as there is
# something to put into it. Debian has no CoreDNS.
make_images() {
  local result=$1 version=$2 reference name
  progress 0 "fetching Debian's etcd and iptables"
  make_container_root "$KIT_WORK/trixie"
  list_images "$result/bin/kubeadm" "$version" | while IFS= read -r reference; do
    name=${reference##*/}
    name=${name%%:*}
    case $name in
      kube-proxy) make_image_of "$result" "$reference" kube_proxy_tree ;;
      kube-*) make_image_of "$result" "$reference" program_tree ;;
      etcd) make_image_of "$result" "$reference" etcd_tree ;;
      pause) make_image_of "$result" "$reference" pause_tree ;;
      *) continue ;;
    esac
    progress 50 "packing $reference"
  done
}

# list_images <kubeadm> <version>: as this kubeadm calls them.
list_images() {
  "$1" config images list --kubernetes-version "$2" 2>"$KIT_WORK/images.log" ||
    fail "Cannot ask $1 for its images: $(tail -n 1 "$KIT_WORK/images.log")"
}

# make_image_of <result folder> <reference> <who lays the tree>
make_image_of() {
  local result=$1 reference=$2 lay=$3 name tree entry=
  name=${reference##*/}
  name=${name%%:*}
  tree=$(mktemp -d "$KIT_WORK/tree.XXXXXX")
  mkdir -p "$tree/tmp" "$tree/etc"
  echo 'root:x:0:0:root:/root:/sbin/nologin' >"$tree/etc/passwd"
  echo 'hosts: files dns' >"$tree/etc/nsswitch.conf" # Go's resolver asks DNS first without
  "$lay" "$tree" "$name" "$result"
  [ "$name" != pause ] || entry=/pause
  write_oci "$tree" "$result/images/$name.tar" "$reference" "$entry"
  printf '%s\t%s\n' "$reference" "images/$name.tar" >>"$KIT_WORK/images.list"
  rm -r "$tree"
}

program_tree() {
  install -D -m 755 "$3/bin/$2" "$1/usr/local/bin/$2"
}

pause_tree() {
  gcc -static -Os -s -Wall -Wextra -o "$1/pause" "$KIT_KUBERNETES/pause.c" ||
    fail 'Cannot compile pause.c' 'apt-get install gcc libc6-dev'
}

etcd_tree() {
  take_programs "$1" /usr/bin/etcd
  # kubeadm's pod calls it by name, and its probes need nothing else.
  ln -s ../../bin/etcd "$(install -d "$1/usr/local/bin" && echo "$1/usr/local/bin")/etcd"
}

kube_proxy_tree() {
  local name
  program_tree "$@"
  take_programs "$1" /usr/sbin/xtables-nft-multi /usr/sbin/conntrack
  cp -a "$KIT_WORK/trixie/root/usr/lib/x86_64-linux-gnu/xtables" "$1/usr/lib/x86_64-linux-gnu/"
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s xtables-nft-multi "$1/usr/sbin/$name"
  done
  cp "$KIT_WORK/trixie/root/etc/protocols" "$1/etc/" 2>/dev/null || true # names of protocols in rules
}

# make_container_root <folder>: these packages and what they depend on, unpacked in root/; none of their scripts runs.
make_container_root() {
  local folder=$1 root=$1/root archive name
  mapfile -t sources < <(debian_sources deb trixie)
  open_apt "$folder" "${sources[@]}"
  # shellcheck disable=SC2086 # one word a package
  run_apt "$folder" install --download-only $container_packages
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
  for archive in "$folder"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$archive" | tar -x -C "$root" --keep-directory-symlink
  done
}

# take_programs <tree> <path…>: out of the packages, with their libraries.
take_programs() {
  local tree=$1 root=$KIT_WORK/trixie/root path library
  shift
  mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
  for path in bin sbin lib lib64; do [ -L "$tree/$path" ] || ln -s "usr/$path" "$tree/$path"; done
  for path in "$@"; do
    install -D -m 755 "$root$path" "$tree$path"
    for library in $(chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "$path" | awk '$2 == "=>" { print $3; next } $1 ~ /^\// { print $1 }'); do
      [ -e "$tree$library" ] || install -D -m 755 "$root$library" "$tree$library"
    done
  done
}
