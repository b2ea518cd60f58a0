#!/usr/bin/env bash
# compile.sh <build folder> <Go's store> <version> <programs>: what runs in a mount namespace of its own (debian-source.sh).
# Everything lies at the same place in each build: Go's store is keyed by paths, and programs are the same bytes.
set -euo pipefail
build=$1 store=$2 version=$3 programs=$4
place=/tmp/k8sbuild

output=$build/src/_output/local/go
mkdir -p "$output/cache" "$build/tmp"
mount --bind "$store" "$output/cache"
cd "$build"
mount -t tmpfs tmpfs /tmp # hides the folder, if it lies there; we stand in it
mkdir "$place"
mount --no-canonicalize --rbind . "$place"
cd "$place/src"

number=${version#v}
minor=${number#*.}
export GOROOT=$place/go/usr/lib/go-1.19 TMPDIR=$place/tmp HOME=$place/tmp
export PATH=$GOROOT/bin:/usr/sbin:/usr/bin:/sbin:/bin
# GOPATH mode, as Debian's own rules build it; nothing is fetched.
export GO111MODULE=off GOFLAGS=-v CGO_ENABLED=0 GOPROXY=off
export KUBE_BUILD_PLATFORMS=linux/amd64 KUBE_GIT_VERSION_FILE=$place/version
# A file, for the source has its own version written into its scripts, which outweighs the environment.
cat >"$KUBE_GIT_VERSION_FILE" <<EOF
KUBE_GIT_COMMIT=unknown
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_VERSION=$version
KUBE_GIT_MAJOR=${number%%.*}
KUBE_GIT_MINOR=${minor%%.*}
EOF

# shellcheck disable=SC2086 # one word a program
make WHAT="$(printf 'cmd/%s ' $programs)" GOLDFLAGS='-s -w -buildid='
for program in $programs; do
  install -D -m 755 "_output/local/go/bin/$program" "$place/programs/$program"
done
