# The source `directory`: programs and image archives that somebody brought, where nothing can be fetched.
# shellcheck shell=bash

kubernetes_directory() {
  local folder
  folder=$(setting_in kubernetes directory '')
  [ -n "$folder" ] || fail 'Cannot take Kubernetes from a folder: the setting kubernetes/directory is empty' 'name it: KATESKIT_KUBERNETES_DIRECTORY=/path'
  [ -d "$folder" ] || fail "Cannot take Kubernetes from $folder (setting kubernetes/directory): there is no such folder" 'name the folder with kubeadm, kubelet and kubectl in it'
  (cd "$folder" && pwd)
}

# Programs lie in the folder or in its bin/, archives (*.tar) in the folder or in its images/.
brought_program() {
  local folder=$1 file
  for file in "$folder/$2" "$folder/bin/$2"; do
    if [ -f "$file" ]; then
      echo "$file"
      return
    fi
  done
  return 1
}

# describe_directory <folder>: what is in it, for the key.
describe_directory() {
  (cd "$1" && find . -maxdepth 2 -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum)
}

# make_from_directory <result folder>
make_from_directory() {
  local result=$1 folder name file version count=0
  folder=$(kubernetes_directory)
  progress 0 "taking Kubernetes from $folder"
  for name in $KIT_NODE_PROGRAMS crictl; do
    if file=$(brought_program "$folder" "$name"); then
      check_program "$file"
      install -m 755 "$file" "$result/bin/$name"
    elif [ "$name" != crictl ]; then
      fail "Cannot take Kubernetes from $folder: there is no $name" "put kubeadm, kubelet and kubectl of one version there (docs/image.md)"
    fi
  done
  version=$(version_of "$result/bin") || exit 1
  check_wanted "$version"
  check_programs "$result/bin" "$version"
  for file in "$folder"/*.tar "$folder"/images/*.tar; do
    [ -f "$file" ] || continue
    count=$((count + 1))
    progress $((count > 90 ? 90 : count)) "taking ${file##*/}"
    take_archive "$file" "$result"
  done
}

# check_program <file>: made for this architecture.
check_program() {
  local head machine
  # ELF, 64 bit, little-endian; at byte 18 the machine: 3e is x86-64, b7 is ARM64.
  head=$(od -An -tx1 -N 20 "$1" | tr -d ' \n')
  case $KIT_ARCH in
    amd64) machine=3e00 ;;
    arm64) machine=b700 ;;
  esac
  [[ $head == 7f454c460201* ]] || fail "Cannot use $1: it is not a program of 64-bit Linux" 'bring the ones for linux/amd64'
  [ "${head:36:4}" = "$machine" ] || fail "Cannot use $1: it is not made for $KIT_ARCH" "bring the ones for linux/$KIT_ARCH"
}

# take_archive <archive> <result folder>: an OCI image archive whose image has a name.
take_archive() {
  local references reference name=${1##*/}
  tar -tf "$1" 2>/dev/null | sed 's,^\./,,' | grep -qx oci-layout ||
    fail "Cannot take the image archive $1: it is not an OCI image archive" "write it again, such as: skopeo copy docker-archive:$name oci-archive:new.tar:<name>:<tag>"
  references=$(archive_references "$1")
  [ -n "$references" ] || fail "Cannot take the image archive $1: no image in it has a name" 'write it with one, such as: skopeo copy … oci-archive:new.tar:registry.k8s.io/pause:3.10'
  cp --reflink=auto "$1" "$2/images/$name"
  while IFS= read -r reference; do
    printf '%s\t%s\n' "$reference" "images/$name" >>"$KIT_WORK/images.list"
  done <<<"$references"
}

# archive_references <archive>: containerd's annotation has the whole name; OCI's may be a tag alone, which says nothing.
archive_references() {
  local index
  index=$(tar -xOf "$1" index.json 2>/dev/null || tar -xOf "$1" ./index.json)
  {
    grep -oE '"io\.containerd\.image\.name" *: *"[^"]+"' <<<"$index" ||
      grep -oE '"org\.opencontainers\.image\.ref\.name" *: *"[^"]*[/:][^"]*"' <<<"$index" || true
  } | sed 's/.*: *"\([^"]*\)"$/\1/' | sort -u
}
