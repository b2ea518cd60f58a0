# Helpers of the tests of kit-kubernetes: grants, and the service to wait for.
# shellcheck shell=bash

# shellcheck source=agent.bash
. "${BASH_SOURCE[0]%/*}/agent.bash"

# shellcheck disable=SC2034 # the tests'
CLUSTER=0123456789abcdef
TOKEN=abcdef.0123456789abcdef

# make_kube_node: make_node, and what it takes to become one of a cluster.
make_kube_node() {
  make_node
  NAME="$(uname -n | tr '[:upper:]' '[:lower:]')"
  export GRANT_WAIT_SECONDS=1 KIT_KUBEADM="$BIN/kubeadm" KIT_KUBELET_HEALTH="file://$NOTES/kubelet-health" KIT_BUNDLE=none
  for program in kubeadm kubectl; do cp "$BOOT_FOLDER/testing/kube-stub" "$BIN/$program"; done
  echo v1.20.2 >"$NOTES/kube-version"
  kubelet_says True v1.20.2
  printf ok >"$NOTES/kubelet-health"
  echo active >"$NOTES/unit.containerd.service"
  ETC="$KIT_LIVE/etc/kubernetes"
}

# kubelet_says STATUS VERSION: what the API says of the node.
kubelet_says() {
  printf '%s %s KubeletReady %s\n' "$1" "$(/bin/date -u +%Y-%m-%dT%H:%M:%SZ)" "$2" >"$NOTES/node"
}

# wish [LINE]…: what the agent has heard that the server wants.
wish() {
  (umask 077 && printf '%s\n' 'tag 0123456789abcdef' "$@" >"$KIT_RUN/target.new" && mv "$KIT_RUN/target.new" "$KIT_RUN/target")
}

# grant ACTION [LINE]…: what the server answers. GRANT is its folder, for those who change it and `seal_grant` again.
grant() {
  GRANT="$BATS_TEST_TMPDIR/grant"
  local action="$1"
  shift
  rm -rf "$GRANT" && mkdir -p "$GRANT"
  {
    printf 'action %s\ncluster %s\nname %s\nversion %s\nendpoint 10.0.0.1:6443\n' "$action" "$CLUSTER" "$NAME" "$(cat "$NOTES/kube-version")"
    [ $# = 0 ] || printf '%s\n' "$@"
  } >"$GRANT/action"
  printf '{"kind": "JoinConfiguration", "discovery": {"bootstrapToken": {"token": "%s"}}, "nodeRegistration": {"criSocket": "/run/containerd/containerd.sock"}}\n' \
    "$TOKEN" >"$GRANT/kubeadm.yaml"
  printf '{"kind": "Config", "users": [{"user": {"token": "%s"}}]}\n' "$TOKEN" >"$GRANT/token.conf"
  printf 'POD_CIDR=10.244.3.0/24\n' >"$GRANT/cni.env"
  seal_grant
}

seal_grant() {
  tar -C "$GRANT" -cf "$FOLDER/grant.new" . && mv "$FOLDER/grant.new" "$FOLDER/grant.tar"
}

# start_kube: as its unit would, in a process group of its own.
start_kube() {
  PATH="$BATS_TEST_TMPDIR/nap:$PATH" setsid dash "$KIT_LIB/kit-kubernetes" >>"$BATS_TEST_TMPDIR/log" 2>&1 3>&- &
  KUBE_PID=$!
}

# end_kube [SIGNAL]: with everything it has started.
end_kube() {
  [ -n "${KUBE_PID:-}" ] || return 0
  kill "-${1:-TERM}" -- "-$KUBE_PID" 2>/dev/null || true
  wait "$KUBE_PID" 2>/dev/null || true
  KUBE_PID=''
}

# asked_for_grants: how often.
asked_for_grants() {
  grep -c '^grant ' "$FOLDER/reports" 2>/dev/null || true
}

# checks TEXT: waits until the node's check says that.
checks() {
  seen "$KIT_RUN/node-check" "^$1"
}
