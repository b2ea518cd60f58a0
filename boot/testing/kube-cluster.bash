# Inside the namespaces of kubernetes-cluster.bats (mounts, network, processes): the machine's own /etc and /var/lib, its network card, its
# server; then TEXT. Everything here ends with the namespaces.
# shellcheck shell=bash

set -eE
trap 'echo "failed: $BASH_COMMAND"; tail -n 12 "$BATS_TEST_TMPDIR/log" "$FOLDER/reports" "$NOTES/snapshot.log" "$NOTES/kubelet.log" "$KIT_RUN/kubernetes.log" | cut -c 1-300' ERR
mount --make-rprivate /
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs "$BATS_TEST_TMPDIR/layers"
for place in /etc /var/lib; do
  layer="$BATS_TEST_TMPDIR/layers$place"
  mkdir -p "$layer/upper" "$layer/work"
  mount -t overlay -o "lowerdir=$place,upperdir=$layer/upper,workdir=$layer/work" overlay "$place"
done
rm -rf /etc/kubernetes /var/lib/kubelet /var/lib/etcd
mkdir -p /etc/kubernetes /var/lib/kubelet /var/lib/etcd
ip link set lo up
ip link add name lan0 type veth peer name lan1
ip link set lan0 address "${KIT_MAC//-/:}" up
ip link set lan1 up
ip address add 10.77.0.1/24 dev lan0
ip route add default dev lan0

# shellcheck source=kube.bash
. "$BOOT_FOLDER/testing/kube.bash"
export KIT_SYS=/sys KIT_PROC=/proc KIT_LIVE='' KIT_KUBELET_HEALTH=http://127.0.0.1:10248/healthz
start_agent_server 0 0 "$BATS_FILE_TMPDIR/ca"
[ -e "$KIT_RUN/identity" ] || dash "$KIT_LIB/kit-identity"
# shellcheck disable=SC2034 # the tests'
ETC=/etc/kubernetes

# control_plane_grant ACTION [LINE]…: with the cluster's keys, as the server makes it.
control_plane_grant() {
  local version registration
  version="$(kubeadm version -o short)"
  registration='"nodeRegistration": {"name": "'$NAME'", "criSocket": "/run/containerd/containerd.sock", "ignorePreflightErrors": ["SystemVerification", "FileExisting-conntrack", "Mem", "NumCPU", "Swap", "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "FileContent--proc-sys-net-ipv4-ip_forward"]}'
  echo "$version" >"$NOTES/kube-version"
  grant "$1" 'skip-phases bootstrap-token,addon/coredns,addon/kube-proxy' "${@:2}"
  printf '{"apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "InitConfiguration", "localAPIEndpoint": {"advertiseAddress": "10.77.0.1"}, %s}\n---\n' \
    "$registration" >"$GRANT/kubeadm.yaml"
  printf '{"apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "ClusterConfiguration", "kubernetesVersion": "%s", "controlPlaneEndpoint": "10.77.0.1:6443"}\n' \
    "$version" >>"$GRANT/kubeadm.yaml"
  cp -r "$BATS_TEST_TMPDIR/keys" "$GRANT/pki"
  seal_grant
}

# admin ARGUMENT…: kubectl as the cluster's admin.
admin() {
  kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"
}

# restart_machine: what was in memory is gone, and so is everything that ran.
restart_machine() {
  end_kube KILL
  systemctl stop kubelet.service
  find "$KIT_RUN" -mindepth 1 -maxdepth 1 ! -name identity ! -name target -exec rm -rf {} +
}

# patiently FUNCTION ARGUMENT…: what takes a control plane to come up.
patiently() {
  local left=15
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || return 1
    ! grep '"state":"failed"' "$FOLDER/reports" || return 1
  done
}

printf '{"apiVersion": "kubeadm.k8s.io/v1beta2", "kind": "ClusterConfiguration", "kubernetesVersion": "%s", "certificatesDir": "%s"}\n' \
  "$(kubeadm version -o short)" "$BATS_TEST_TMPDIR/keys" >"$BATS_TEST_TMPDIR/keys.json"
for phase in ca front-proxy-ca etcd-ca; do kubeadm init phase certs "$phase" --config "$BATS_TEST_TMPDIR/keys.json" >/dev/null 2>&1; done
openssl genrsa -out "$BATS_TEST_TMPDIR/keys/sa.key" 2048 2>/dev/null
openssl rsa -in "$BATS_TEST_TMPDIR/keys/sa.key" -pubout -out "$BATS_TEST_TMPDIR/keys/sa.pub" 2>/dev/null

eval "${TEXT:?}"
