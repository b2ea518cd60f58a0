#!/usr/bin/env bats
# Kubernetes as it is built from Debian's source: its programs, and that its container images run. The set-up of tests has
# built it (server/setup/setup.ts).

setup_file() {
  unset KATESKIT_KUBERNETES_VERSION
  MADE=$("$BATS_TEST_DIRNAME/build.sh" --source debian-source --find) || MADE=
  export MADE
}

setup() {
  [ -n "$MADE" ] || skip 'it is not built (npm test builds it)'
}

# references: as its own kubeadm calls them, but for CoreDNS, which Debian does not have.
references() {
  "$MADE/bin/kubeadm" config images list --kubernetes-version v1.20.2 2>/dev/null | grep -v /coredns:
}

# archive_of <reference>
archive_of() {
  sed -n "s|.*\"reference\": \"$1\", \"file\": \"\([^\"]*\)\".*|$MADE/\1|p" "$MADE/kubernetes.json"
}

# unpack <archive> <folder>: its only layer.
unpack() {
  mkdir -p "$2.oci" "$2"
  tar -xf "$1" -C "$2.oci"
  layer=$(cat "$2.oci"/blobs/sha256/* | grep -aoE '"application/vnd.oci.image.layer.v1.tar\+zstd","digest":"sha256:[0-9a-f]{64}' | grep -oE '[0-9a-f]{64}')
  zstd -dcq "$2.oci/blobs/sha256/$layer" | tar -x -C "$2"
}

@test "every program is there, says v1.20.2, and is what the manifest says" {
  [ "$("$MADE/bin/kubeadm" version -o short)" = v1.20.2 ]
  for name in kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
    [ "$("$MADE/bin/$name" --version)" = 'Kubernetes v1.20.2' ]
  done
  [[ $("$MADE/bin/kubectl" version --client --short) == *v1.20.2 ]]
  [ "$(ls "$MADE/bin" | wc -l)" -eq 7 ]
  sed -n 's/.*{ "name": "\([^"]*\)", "sha256": "\([0-9a-f]*\)".*/\2  \1/p' "$MADE/kubernetes.json" >"$BATS_TEST_TMPDIR/sums"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/sums")" -eq 7 ]
  (cd "$MADE/bin" && sha256sum --quiet --check "$BATS_TEST_TMPDIR/sums")
}

@test "there is an archive for each image that its kubeadm asks for, and every digest in it is true" {
  while IFS= read -r reference; do
    archive=$(archive_of "$reference")
    echo "$reference: $archive"
    unpack "$archive" "$BATS_TEST_TMPDIR/image"
    oci=$BATS_TEST_TMPDIR/image.oci
    (cd "$oci/blobs/sha256" && for blob in *; do echo "$blob  $blob"; done | sha256sum --quiet --check)
    grep -q "\"org.opencontainers.image.ref.name\":\"$reference\"" "$oci/index.json"
    for size_of in $(cat "$oci/index.json" "$oci"/blobs/sha256/* | grep -aoE '"digest":"sha256:[0-9a-f]{64}","size":[0-9]+' | tr -d '"' | sed 's/digest:sha256://;s/size://'); do
      [ "$(stat -c %s "$oci/blobs/sha256/${size_of%,*}")" -eq "${size_of#*,}" ]
    done
    zstd -dcq "$oci/blobs/sha256/$layer" | sha256sum | cut -d' ' -f1 >"$BATS_TEST_TMPDIR/diff-id"
    cat "$oci"/blobs/sha256/* | grep -aqF "\"diff_ids\":[\"sha256:$(<"$BATS_TEST_TMPDIR/diff-id")\"]"
    rm -r "$BATS_TEST_TMPDIR/image" "$oci"
  done < <(references)
  [ "$(references | wc -l)" -eq "$(ls "$MADE/images" | wc -l)" ]
}

@test "what is in the images runs with nothing but what is in them" {
  [ "$(id -u)" -eq 0 ] || skip 'chroot needs root'
  # inside <image> <command…>
  inside() {
    local tree=$BATS_TEST_TMPDIR/$1
    [ -d "$tree" ] || unpack "$MADE/images/$1.tar" "$tree"
    shift
    unshare --net chroot "$tree" "$@"
  }
  [[ $(inside etcd /usr/local/bin/etcd --version) == *'etcd Version: 3.'* ]]
  [ "$(inside kube-proxy /usr/local/bin/kube-proxy --version)" = 'Kubernetes v1.20.2' ]
  inside kube-proxy /usr/sbin/conntrack --version
  [[ $(inside kube-proxy /usr/sbin/iptables --version) == *nf_tables* ]]
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    [ "$(inside "$name" "/usr/local/bin/$name" --version)" = 'Kubernetes v1.20.2' ]
  done
}

@test "pause waits until it is asked to end, as process 1 too" {
  [ "$(id -u)" -eq 0 ] || skip 'a namespace of processes needs root'
  unpack "$MADE/images/pause.tar" "$BATS_TEST_TMPDIR/pause"
  unshare --pid --fork --kill-child "$BATS_TEST_TMPDIR/pause/pause" 3>&- &
  outer=$!
  until inner=$(pgrep -P "$outer" -x pause); do kill -0 "$outer"; done
  # Not before it has its handler: process 1 would not get the signal.
  until grep -q '^SigCgt:.*[1-9a-f]' "/proc/$inner/status"; do kill -0 "$inner"; done
  kill -TERM "$inner"
  wait "$outer"
}

@test "the same program makes the same image, byte for byte" {
  tree=$BATS_TEST_TMPDIR/tree
  unpack "$MADE/images/pause.tar" "$tree"
  touch "$tree/pause"
  bash -euo pipefail -c '. "$1/lib.sh"; . "$1/oci.sh"; KIT_WORK=$2; write_oci "$3" "$2/again.tar" k8s.gcr.io/pause:3.2 /pause' bash "$BATS_TEST_DIRNAME" "$BATS_TEST_TMPDIR" "$tree"
  cmp "$MADE/images/pause.tar" "$BATS_TEST_TMPDIR/again.tar"
}

@test "a labelled build says that it is another version, and of which it is made" {
  labelled=$("$BATS_TEST_DIRNAME/build.sh" --source debian-source --version-label v1.19.16 --find) || skip 'no such build is in the cache (build.sh --version-label v1.19.16)'
  [ "$("$labelled/bin/kubeadm" version -o short)" = v1.19.16 ]
  [ "$("$labelled/bin/kubelet" --version)" = 'Kubernetes v1.19.16' ]
  grep -q '"labelOf": "v1.20.2"' "$labelled/kubernetes.json"
  grep -q '"reference": "k8s.gcr.io/kube-apiserver:v1.19.16"' "$labelled/kubernetes.json"
}
