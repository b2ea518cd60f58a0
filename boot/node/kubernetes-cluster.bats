#!/usr/bin/env bats
# A control plane by kubeadm itself: made, ended in the middle, started without the server, made new over its data, out of a snapshot, and
# upgraded. etcd, API server, controllers, kubeadm and kubectl are real and run as processes; the kubelet is boot/testing/kubelet.ts.

load ../testing/kube.bash

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'namespaces need root'
  find_kubernetes || skip 'no Kubernetes was built here: assets/kubernetes/build.sh'
  make_kube_node
  stop_server
  rm "$BIN/kubeadm" "$BIN/kubectl" "$BIN/date" "$KIT_RUN/identity" -r
  cp "$BOOT_FOLDER/testing/kube-systemctl" "$BIN/systemctl"
  # What kubeadm asks of a container runtime.
  printf '#!/bin/sh\nexit 0\n' >"$BIN/crictl" && chmod +x "$BIN/crictl"
  export PATH="$BIN:$KUBERNETES:$PATH" KIT_KUBEADM="$KUBERNETES/kubeadm" NAME BOOT_FOLDER FOLDER BIN MAC
  mkdir -p "$BATS_TEST_TMPDIR/layers"
}

# find_kubernetes: the newest that was built here; its folder in KUBERNETES.
find_kubernetes() {
  local program
  KUBERNETES="${KATESKIT_KUBERNETES_BIN:-$(find "${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/kubernetes" -path '*/v*/bin/kube-scheduler' -printf '%T@ %h\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)}"
  for program in kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-scheduler; do
    [ -x "$KUBERNETES/$program" ] || return 1
  done
  command -v etcd etcdctl >/dev/null
}

# within_machine TEXT
within_machine() {
  TEXT="$1" unshare -mnpf --mount-proc --kill-child bash "$BOOT_FOLDER/testing/kube-cluster.bash" 3>&-
}

@test "a control plane is made, survives ends in the middle, restarts, a powerwash and the loss of its data, and is upgraded" {
  within_machine '
    control_plane_grant init
    wish "kubernetes control-plane" "etcd-snapshot-every 3600"
    start_kube
    # The API is there and kubeadm has not finished.
    patiently curl -sk --retry 30 --retry-delay 1 --retry-all-errors -o /dev/null https://10.77.0.1:6443/livez
    end_kube KILL
    [ ! -e "$ETC/kit-node" ] && [ ! -e /var/lib/etcd/kit-cluster ] && [ -e /var/lib/etcd/kit-making ]
    start_kube
    patiently heard "^node .*\"state\":\"done\",\"action\":\"init\""
    patiently checks "passed the node is Ready"
    [ "$(cat /var/lib/etcd/kit-cluster)" = "$CLUSTER" ] && [ ! -e /var/lib/etcd/kit-making ]
    [ "$(stat -c %a "$ETC" "$ETC/pki/ca.key" | xargs)" = "700 600" ]
    ! grep -r "PRIVATE KEY" "$KIT_RUN/grant" "$KIT_RUN/kubernetes.log" "$FOLDER/reports" 2>/dev/null || false
    admin -n default create configmap before --from-literal=a=b
    # The first one was taken at once, before that.
    patiently seen "$NOTES/snapshot.log" "the server has a snapshot"
    rm "$FOLDER/snapshot" "$NOTES/snapshot.log" "$KIT_RUN/etcd-snapshot-next"
    patiently seen "$NOTES/snapshot.log" "the server has a snapshot"
    becomes "[ ! -e $ETC/kit-snapshot ]"
    cp "$FOLDER/snapshot" "$FOLDER/etcd-snapshot"
    ETCDCTL_API=3 etcdctl snapshot status "$FOLDER/etcd-snapshot"
    admin -n default create configmap after --from-literal=a=b

    echo "=== starts without the server"
    restart_machine
    stop_server
    start_kube
    patiently checks "passed the node is Ready"
    admin -n default get configmap after
    start_agent_server "${KIT_URL##*:}" "${KIT_TLS##*:}"
    restart_machine

    echo "=== a powerwash keeps the data of etcd"
    rm -rf "$ETC" /var/lib/kubelet
    mkdir -p "$ETC" /var/lib/kubelet
    control_plane_grant init
    rm -f "$FOLDER/reports"
    start_kube
    patiently checks "passed the node is Ready"
    grep -q "\"etcd\":\"$CLUSTER\"" "$FOLDER/reports"
    admin -n default get configmap after

    echo "=== out of a snapshot, twice: the first attempt is ended"
    restart_machine
    rm -rf "$ETC" /var/lib/kubelet /var/lib/etcd
    mkdir -p "$ETC" /var/lib/kubelet /var/lib/etcd
    control_plane_grant restore "snapshot $(sha256_of "$FOLDER/etcd-snapshot") $(stat -c %s "$FOLDER/etcd-snapshot")"
    rm -f "$FOLDER/reports"
    start_kube
    patiently heard "\"step\":\"kubeadm\""
    end_kube KILL
    [ "$(cat /var/lib/etcd/kit-cluster)" = "$CLUSTER" ]
    control_plane_grant init
    start_kube
    patiently checks "passed the node is Ready"
    admin -n default get configmap before
    ! admin -n default get configmap after || false

    echo "=== an upgrade, ended in the middle"
    restart_machine
    sed -i "s/^version .*/version v1.20.1/" "$ETC/kit-node"
    control_plane_grant upgrade-first
    rm -f "$FOLDER/reports"
    start_kube
    patiently seen "$KIT_RUN/kubernetes.log" "upgrade/staticpods"
    end_kube KILL
    start_kube
    patiently heard "^node .*\"state\":\"done\",\"action\":\"upgrade-first\""
    patiently checks "passed the node is Ready"
    grep -qx "version $(kubeadm version -o short)" "$ETC/kit-node"
    [ -z "$(ls "$ETC/tmp" 2>/dev/null)" ]
    # This cluster does without, and its upgrade brings neither.
    [ "$(admin -n kube-system get deployments,daemonsets -o name | wc -l)" = 0 ]
    grep -q "\"nodeVersion\":\"v1.20.1\"" "$FOLDER/reports"

    echo "=== certificates that are nearly over are renewed, and the API goes on with the new ones"
    serial="$(openssl x509 -in "$ETC/pki/apiserver.crt" -noout -serial)"
    dash -c "for part in paths json disk identity api target conf kubernetes kubernetes-grant kubernetes-health kubernetes-run; do . \$KIT_LIB/\$part.sh; done
      certificates_are_due() { true; }; renew_certificates"
    [ "$(openssl x509 -in "$ETC/pki/apiserver.crt" -noout -serial)" != "$serial" ]
    restart_machine
  '
}
