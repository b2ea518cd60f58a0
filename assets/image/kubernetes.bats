#!/usr/bin/env bats
# Kubernetes in the image: what is chosen, what it changes in the image's identity, and what lies in a built one.

setup() {
  recipe=$BATS_TEST_DIRNAME
  for name in SOURCE VERSION DIRECTORY CRI OCI_RUNTIME; do unset "KATESKIT_KUBERNETES_$name"; done
}

# with_built: the newest choice's image of debian-source, as far as one of this recipe is built.
with_built() {
  export KATESKIT_KUBERNETES_SOURCE=debian-source
  built=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
  [ -f "$built/manifest.json" ] || skip 'no such image of this recipe is built (KATESKIT_KUBERNETES_SOURCE=debian-source assets/image/build.sh)'
}

@test "an image without Kubernetes is another one for nothing that Kubernetes' settings say" {
  plain=$("$recipe/digest.sh")
  [ "$(KATESKIT_KUBERNETES_CRI=cri-o KATESKIT_KUBERNETES_VERSION=v1.33 "$recipe/digest.sh")" = "$plain" ]
  [ "$(KATESKIT_KUBERNETES_SOURCE=none "$recipe/digest.sh")" = "$plain" ]
  plain_base=$("$recipe/digest.sh" base)
  [ "$(KATESKIT_KUBERNETES_OCI_RUNTIME=crun "$recipe/digest.sh" base)" = "$plain_base" ]
}

@test "the source and both runtimes are part of the identity of the image, and the runtimes of the Debian tree's" {
  export KATESKIT_KUBERNETES_SOURCE=debian-source
  {
    KATESKIT_KUBERNETES_SOURCE=none "$recipe/digest.sh"
    "$recipe/digest.sh"
    KATESKIT_KUBERNETES_OCI_RUNTIME=crun "$recipe/digest.sh"
    KATESKIT_KUBERNETES_CRI=cri-o "$recipe/digest.sh"
    KATESKIT_KUBERNETES_SOURCE=none "$recipe/digest.sh" base
    "$recipe/digest.sh" base
    KATESKIT_KUBERNETES_OCI_RUNTIME=crun "$recipe/digest.sh" base
  } >"$BATS_TEST_TMPDIR/digests"
  [ "$(sort -u "$BATS_TEST_TMPDIR/digests" | wc -l)" -eq 7 ]
}

@test "build.sh refuses choices it cannot use, before it does anything" {
  while IFS='|' read -r settings message; do
    # shellcheck disable=SC2086
    run env XDG_CACHE_HOME="$BATS_TEST_TMPDIR/cache" KATESKIT_KUBERNETES_SOURCE=debian-source $settings "$recipe/build.sh" 3>&-
    echo "$settings: $output"
    [ "$status" -eq 1 ]
    [[ $output == *"$message"* ]]
    [[ $output == *'  fix: '* ]]
    [ ! -e "$BATS_TEST_TMPDIR/cache" ]
  done <<TABLE
KATESKIT_KUBERNETES_SOURCE=snap|Cannot use the Kubernetes source 'snap'
KATESKIT_KUBERNETES_CRI=docker|Cannot use the container runtime 'docker'
KATESKIT_KUBERNETES_OCI_RUNTIME=kata|Cannot use the OCI runtime 'kata'
KATESKIT_KUBERNETES_CRI=cri-o|Cannot put CRI-O into the image: Debian trixie has no package of it
KATESKIT_KUBERNETES_VERSION=v1.33|the setting kubernetes/version asks for v1.33
TABLE
}

@test "the built image says which Kubernetes it has, in its manifest and its version" {
  with_built
  grep -q '"kubernetes": { "version": "v1.20.2", "cri": "containerd", "ociRuntime": "runc" },' "$built/manifest.json"
  grep -q '^  "version": "[0-9.]*-[0-9a-f]*-k1.20.2",' "$built/manifest.json"
}

@test "the built image has the programs, the units, switched off, and the modules that a node needs" {
  command -v unsquashfs >/dev/null || skip 'no unsquashfs (npm test installs it)'
  with_built
  unsquashfs -l "$built/root.squashfs" | sed 's,^squashfs-root,,' >"$BATS_TEST_TMPDIR/list"
  for path in /usr/bin/{kubeadm,kubelet,kubectl,crictl,containerd,ctr,etcdctl} /usr/sbin/{runc,iptables,conntrack,ethtool} /usr/bin/socat \
    /usr/lib/cni/{bridge,host-local,loopback,portmap} /usr/lib/systemd/system/{kubelet,containerd}.service /etc/containerd/config.toml \
    /etc/containerd/certs.d /etc/kubernetes/manifests /var/lib/{etcd,kubelet,cni} /opt/cni/bin; do
    grep -qx "$path" "$BATS_TEST_TMPDIR/list" || { echo "no $path" && false; }
  done
  run grep -E '/etc/systemd/system/.*(kubelet|containerd)' "$BATS_TEST_TMPDIR/list"
  [ "$status" -ne 0 ]
  for module in overlay br_netfilter nf_conntrack nf_nat nf_tables nft_compat xt_MASQUERADE xt_conntrack xt_comment xt_mark xt_statistic \
    xt_addrtype ip_vs vxlan veth bridge ip_set; do
    grep -q "/$module\.ko" "$BATS_TEST_TMPDIR/list" || { echo "no module $module" && false; }
  done
  unsquashfs -cat "$built/root.squashfs" etc/containerd/config.toml >"$BATS_TEST_TMPDIR/config.toml"
  grep -q 'sandbox_image = "k8s.gcr.io/pause:3.2"' "$BATS_TEST_TMPDIR/config.toml"
  grep -q 'SystemdCgroup = true' "$BATS_TEST_TMPDIR/config.toml"
}

@test "the image's containerd takes the control plane's images, and our crictl tells kubeadm of them" {
  [ "$(id -u)" -eq 0 ] || skip 'containerd needs root'
  with_built
  archives=$("$recipe/../kubernetes/build.sh" --find)/images
  root=$BATS_TEST_TMPDIR/root
  unsquashfs -q -n -d "$root" "$built/root.squashfs" usr/bin/containerd usr/bin/ctr usr/bin/crictl >/dev/null
  PATH=$root/usr/bin:$PATH
  state=$BATS_TEST_TMPDIR/state
  mkdir "$state"
  : >"$state/log"
  printf 'version = 2\nroot = "%s/root"\nstate = "%s/state"\n[grpc]\n  address = "%s/socket"\n' "$state" "$state" "$state" >"$state/config.toml"
  # What it mounts goes with its own namespace.
  unshare --mount containerd --config "$state/config.toml" >"$state/log" 2>&1 3>&- &
  containerd=$!
  grep -q -m 1 'containerd successfully booted' < <(tail -n +1 --follow=name --pid="$containerd" "$state/log")
  crictl -r "unix://$state/socket" info
  run crictl -r "$state/socket" inspecti k8s.gcr.io/pause:3.2
  [ "$status" -ne 0 ]
  for archive in "$archives"/*.tar; do ctr --address "$state/socket" --namespace k8s.io images import --no-unpack "$archive" >/dev/null; done
  while IFS= read -r reference; do
    case $reference in */coredns:*) continue ;; esac
    crictl --runtime-endpoint "unix://$state/socket" inspecti "$reference" || { echo "no $reference" && false; }
  done < <("${archives%/images}/bin/kubeadm" config images list --kubernetes-version v1.20.2 2>/dev/null)
  [ -z "$(crictl -r "$state/socket" pods -q)" ]
  run crictl -r "$state/socket" pull localhost:1/nothing:1
  [ "$status" -ne 0 ]
  run crictl -r "$state/socket" ps
  [ "$status" -eq 1 ]
  kill "$containerd"
  wait "$containerd" || true
}
