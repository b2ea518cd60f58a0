#!/usr/bin/env bats
# Where Kubernetes comes from, without the long build: what is refused, folders that somebody brought, and a repository of
# packages, which is a real one with a key of its own.

setup() {
  for tool in gcc gpg apt-ftparchive dpkg-deb; do
    command -v "$tool" >/dev/null || skip "no $tool (npm test installs it)"
  done
  recipe=$BATS_TEST_DIRNAME
  export XDG_CACHE_HOME=$BATS_TEST_TMPDIR/cache
  for name in SOURCE VERSION DIRECTORY REPOSITORY REPOSITORY_KEY; do unset "KATESKIT_KUBERNETES_$name"; done
}

# program <file> <what it prints…>: a real one, for this machine, that prints one line whatever it is asked.
program() {
  local file=$1
  shift
  mkdir -p "${file%/*}"
  printf '#include <stdio.h>\nint main(void) { puts("%s"); }\n' "$*" | gcc -x c -o "$file" -
}

# programs <folder> <version>
programs() {
  program "$1/kubeadm" "$2"
  program "$1/kubelet" "Kubernetes $2"
  program "$1/kubectl" "Client Version: $2"
}

# archive <file> <reference>: an image with one file.
archive() {
  mkdir -p "$BATS_TEST_TMPDIR/tree"
  echo hello >"$BATS_TEST_TMPDIR/tree/hello"
  bash -euo pipefail -c '. "$1/lib.sh"; . "$1/oci.sh"; KIT_WORK=$2; write_oci "$2/tree" "$3" "$4" ""' bash "$recipe" "$BATS_TEST_TMPDIR" "$1" "$2"
}

# fails_with <text> <arguments of build.sh…>
fails_with() {
  local text=$1
  shift
  run "$recipe/build.sh" "$@" 3>&-
  echo "$output"
  [ "$status" -eq 1 ]
  [[ $output == *"$text"* ]]
  [[ $output == *'fix: '* ]]
}

@test "build.sh refuses what it cannot do, and names what mends it" {
  fails_with "kubernetes/source is 'none'"
  KATESKIT_KUBERNETES_SOURCE=auto fails_with "kubernetes/source is 'auto'"
  fails_with "Cannot use the Kubernetes source 'snap'" --source snap
  fails_with "Cannot read the argument '--else'" --else
  fails_with "Cannot label Kubernetes from packages" --source packages --version-label v1.19.16
  fails_with "Cannot label Kubernetes '1.19'" --source debian-source --version-label 1.19
  KATESKIT_KUBERNETES_VERSION=latest fails_with "Cannot use the Kubernetes 'vlatest'" --source packages
  KATESKIT_KUBERNETES_VERSION=v1.33 KATESKIT_KUBERNETES_REPOSITORY=http://127.0.0.1:1/x fails_with 'nothing says whose signature counts' --source packages
  fails_with 'kubernetes/directory is empty' --source directory
  KATESKIT_KUBERNETES_DIRECTORY=/nowhere fails_with 'there is no such folder' --source directory
  KATESKIT_KUBERNETES_VERSION=v1.33 fails_with 'Cannot take Kubernetes v1.20.2: the setting kubernetes/version asks for v1.33' --source debian-source
}

@test "packages without a version are of the minor that default-minor names" {
  minor=$(<"$recipe/default-minor")
  [[ $minor =~ ^v1\.[0-9]+$ ]]
  [[ $("$recipe/build.sh" --source packages --key) == "$minor"-* ]]
  [[ $("$recipe/build.sh" --source packages --repository) == */"$minor"/deb/ ]]
  mkdir "$BATS_TEST_TMPDIR/mirror"
  echo key >"$BATS_TEST_TMPDIR/key.asc"
  export KATESKIT_KUBERNETES_VERSION=1.33 KATESKIT_KUBERNETES_REPOSITORY=$BATS_TEST_TMPDIR/mirror KATESKIT_KUBERNETES_REPOSITORY_KEY=$BATS_TEST_TMPDIR/key.asc
  [ "$("$recipe/build.sh" --source packages --repository)" = "copy:$BATS_TEST_TMPDIR/mirror/" ]
  export KATESKIT_KUBERNETES_REPOSITORY='http://127.0.0.1:1/{minor}'
  [ "$("$recipe/build.sh" --source packages --repository)" = http://127.0.0.1:1/v1.33/ ]
}

@test "the key names the version, and is another one for another label, minor, repository or content" {
  key() { "$recipe/build.sh" --key "$@"; }
  folder=$BATS_TEST_TMPDIR/brought
  programs "$folder" v1.30.1
  echo key >"$BATS_TEST_TMPDIR/key.asc"
  export KATESKIT_KUBERNETES_DIRECTORY=$folder
  {
    key --source debian-source
    key --source debian-source --version-label v1.19.16
    KATESKIT_KUBERNETES_VERSION=v1.33 key --source packages
    KATESKIT_KUBERNETES_VERSION=1.33.1 key --source packages
    KATESKIT_KUBERNETES_VERSION=v1.33 KATESKIT_KUBERNETES_REPOSITORY=/ KATESKIT_KUBERNETES_REPOSITORY_KEY=$BATS_TEST_TMPDIR/key.asc key --source packages
    key --source directory
    program "$folder/crictl" v1.30.1 && key --source directory
  } >"$BATS_TEST_TMPDIR/keys"
  cat "$BATS_TEST_TMPDIR/keys"
  [ "$(sort -u "$BATS_TEST_TMPDIR/keys" | wc -l)" -eq 7 ]
  [ "$(cut -d- -f1 "$BATS_TEST_TMPDIR/keys" | xargs)" = 'v1.20.2 v1.19.16 v1.33 v1.33.1 v1.33 directory directory' ]
}

@test "source directory takes programs of one version and archives with names, and finds them again" {
  [ "$(id -u)" -eq 0 ] || skip 'what is made belongs to root'
  folder=$BATS_TEST_TMPDIR/brought
  programs "$folder/bin" v1.30.1
  mkdir "$folder/images"
  archive "$folder/images/pause.tar" registry.k8s.io/pause:3.9
  export KATESKIT_KUBERNETES_SOURCE=directory KATESKIT_KUBERNETES_DIRECTORY=$folder
  run "$recipe/build.sh" --find
  [ "$status" -eq 1 ]
  made=$("$recipe/build.sh" 2>/dev/null 3>&-)
  cat "$made/kubernetes.json"
  grep -q '"version": "v1.30.1"' "$made/kubernetes.json"
  grep -q '{ "reference": "registry.k8s.io/pause:3.9", "file": "images/pause.tar"' "$made/kubernetes.json"
  cmp "$folder/images/pause.tar" "$made/images/pause.tar"
  [ "$("$recipe/build.sh" --find)" = "$made" ]
  [ "$("$recipe/build.sh" 2>/dev/null 3>&-)" = "$made" ]
  KATESKIT_KUBERNETES_VERSION=v1.30 "$recipe/build.sh" --fresh 3>&-
  KATESKIT_KUBERNETES_VERSION=v1.31 fails_with 'asks for v1.31' --fresh
}

@test "source directory refuses other versions, other machines' programs, and archives that say nothing" {
  [ "$(id -u)" -eq 0 ] || skip 'what is made belongs to root'
  folder=$BATS_TEST_TMPDIR/brought
  export KATESKIT_KUBERNETES_SOURCE=directory KATESKIT_KUBERNETES_DIRECTORY=$folder
  programs "$folder" v1.30.1
  rm "$folder/kubectl"
  fails_with "there is no kubectl"
  program "$folder/kubectl" 'Client Version: v1.29.0'
  fails_with "kubeadm is v1.30.1, kubectl says it is 'v1.29.0'"
  program "$folder/kubectl" 'Client Version: v1.30.1'
  program "$folder/kubelet" 'Kubernetes v1.30.2'
  fails_with "the kubelet says it is 'v1.30.2'"
  program "$folder/kubelet" 'Kubernetes v1.30.1'
  # e_machine: ARM64
  cp "$folder/kubeadm" "$BATS_TEST_TMPDIR/kubeadm"
  printf '\xb7' | dd of="$folder/kubeadm" bs=1 seek=18 conv=notrunc status=none
  fails_with 'is not made for amd64'
  printf '#!/bin/sh\necho v1.30.1\n' >"$folder/kubeadm"
  fails_with 'it is not a program of 64-bit Linux'
  cp "$BATS_TEST_TMPDIR/kubeadm" "$folder/kubeadm"
  tar -cf "$folder/odd.tar" -C "$BATS_TEST_TMPDIR" kubeadm
  fails_with 'it is not an OCI image archive'
  archive "$folder/odd.tar" latest
  mkdir "$BATS_TEST_TMPDIR/again"
  tar -xf "$folder/odd.tar" -C "$BATS_TEST_TMPDIR/again"
  sed -i 's/"io.containerd.image.name":"latest",//' "$BATS_TEST_TMPDIR/again/index.json"
  tar -cf "$folder/odd.tar" -C "$BATS_TEST_TMPDIR/again" .
  fails_with 'no image in it has a name'
  rm "$folder/odd.tar"
  "$recipe/build.sh" 3>&-
  [ -z "$(find "$XDG_CACHE_HOME/kateskit/kubernetes" -name 'work.*' -o -name '*.new.*')" ]
}

# package <name> <Debian version> <program> <what it prints…>: into $repository.
package() {
  local name=$1 version=$2 file=$3 tree=$BATS_TEST_TMPDIR/deb
  shift 3
  rm -rf "$tree"
  mkdir -p "$tree/DEBIAN"
  program "$tree/usr/bin/$file" "$*"
  printf 'Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\nDescription: for a test\n' "$name" "$version" >"$tree/DEBIAN/control"
  dpkg-deb --root-owner-group --build "$tree" "$repository/${name}_${version}_amd64.deb" >/dev/null
}

# release <version without v>: kubeadm, kubelet and kubectl of it.
release() {
  package kubeadm "$1-1.1" kubeadm "v$1"
  package kubelet "$1-1.1" kubelet "Kubernetes v$1"
  package kubectl "$1-1.1" kubectl "Client Version: v$1"
}

# sign_repository: by a key that is made for it.
sign_repository() {
  export GNUPGHOME=$BATS_TEST_TMPDIR/gpg
  mkdir -p -m 700 "$GNUPGHOME"
  gpg --batch --quiet --passphrase '' --quick-generate-key 'test <test@example.org>' ed25519 sign never 2>/dev/null
  (cd "$repository" && apt-ftparchive packages . >Packages && apt-ftparchive release . >"$BATS_TEST_TMPDIR/Release" && mv "$BATS_TEST_TMPDIR/Release" Release)
  gpg --batch --quiet --yes --clearsign --output "$repository/InRelease" "$repository/Release"
  gpg --batch --armor --export >"$BATS_TEST_TMPDIR/Release.key"
  gpgconf --kill all
}

@test "source packages takes the newest release of a minor from a signed repository, or the one that is named" {
  [ "$(id -u)" -eq 0 ] || skip 'apt with lists of its own needs root'
  repository=$BATS_TEST_TMPDIR/v1.30
  mkdir "$repository"
  release 1.30.2
  release 1.30.10
  package cri-tools 1.30.1-1.1 crictl 'crictl version v1.30.1'
  sign_repository
  export KATESKIT_KUBERNETES_SOURCE=packages KATESKIT_KUBERNETES_REPOSITORY=$BATS_TEST_TMPDIR/{minor}
  export KATESKIT_KUBERNETES_REPOSITORY_KEY=$BATS_TEST_TMPDIR/Release.key
  made=$(KATESKIT_KUBERNETES_VERSION=v1.30 "$recipe/build.sh" 3>&-)
  cat "$made/kubernetes.json"
  grep -q '"version": "v1.30.10"' "$made/kubernetes.json"
  [ "$(ls "$made/bin" | xargs)" = 'crictl kubeadm kubectl kubelet' ]
  made=$(KATESKIT_KUBERNETES_VERSION=v1.30.2 "$recipe/build.sh" 3>&-)
  grep -q '"version": "v1.30.2"' "$made/kubernetes.json"
  KATESKIT_KUBERNETES_VERSION=v1.30.3 fails_with 'Cannot find kubeadm v1.30.3 in the Kubernetes repository'
}

@test "source packages needs no crictl from 1.31 on, and believes nobody's signature but that of its key" {
  [ "$(id -u)" -eq 0 ] || skip 'apt with lists of its own needs root'
  repository=$BATS_TEST_TMPDIR/v1.33
  mkdir "$repository"
  release 1.33.1
  sign_repository
  export KATESKIT_KUBERNETES_SOURCE=packages KATESKIT_KUBERNETES_VERSION=v1.33 KATESKIT_KUBERNETES_REPOSITORY=$repository
  export KATESKIT_KUBERNETES_REPOSITORY_KEY=$BATS_TEST_TMPDIR/Release.key
  made=$("$recipe/build.sh" 3>&-)
  [ "$(ls "$made/bin" | xargs)" = 'kubeadm kubectl kubelet' ]
  export KATESKIT_KUBERNETES_REPOSITORY_KEY=/usr/share/keyrings/debian-archive-keyring.gpg
  fails_with 'they are not signed by the key that is known'
  # Signed, but not what was signed.
  export KATESKIT_KUBERNETES_REPOSITORY_KEY=$BATS_TEST_TMPDIR/Release.key
  release 1.33.2
  (cd "$repository" && apt-ftparchive packages . >Packages)
  fails_with 'Cannot ' --fresh
  export KATESKIT_KUBERNETES_REPOSITORY=http://127.0.0.1:1/deb
  fails_with 'Cannot fetch packages from http://127.0.0.1:1/deb'
  [[ $output == *'KATESKIT_KUBERNETES_SOURCE=directory'* ]]
}
