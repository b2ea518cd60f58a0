# Bringing a node to the Kubernetes of its image. Each part can run again. What fails returns 1 with the reason in KUBE_WHY.
# Needs kubernetes-make.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # KUBE_WHY is for who asked

PARTS_SECONDS=1800
READY_SECONDS=900

# note_absent_addons: what kubeadm would bring although this cluster does without. Noted once: an attempt that was ended may have
# brought it already.
note_absent_addons() {
  local addon answer
  [ ! -e "$KUBE_ETC/kit-absent" ] || return 0
  for addon in deployment/coredns daemonset/kube-proxy; do
    answer="$(kube_of_admin -n kube-system get "$addon" -o name 2>&1)" && continue
    case "$answer" in
      *NotFound*) printf '%s\n' "$addon" ;;
      *)
        printf '%s\n' "$answer" >>"$KUBE_LOG"
        return 1
        ;;
    esac
  done >"$KIT_RUN/absent-addons"
  put_private "$KUBE_ETC/kit-absent" <"$KIT_RUN/absent-addons"
}

remove_absent_addons() {
  local addon
  while IFS= read -r addon; do
    kube_of_admin -n kube-system delete "$addon" --ignore-not-found >>"$KUBE_LOG" 2>&1 || return 1
  done <"$KUBE_ETC/kit-absent"
  rm -f "$KUBE_ETC/kit-absent"
}

# restart_kubelet: what the old one said last is of an earlier second than the new one's start.
restart_kubelet() {
  systemctl stop kubelet.service >>"$KUBE_LOG" 2>&1 && sleep 1 && systemctl start kubelet.service >>"$KUBE_LOG" 2>&1
}

# upgrade_node ACTION: upgrade-first or upgrade-node.
upgrade_node() {
  local version
  version="$(grant_value version)"
  report_node working "$1" kubeadm
  if is_control_plane; then
    # The version that was is what kubeadm talks to.
    start_node || return 1
    KUBE_WHY='Cannot upgrade the node: its own part of the API does not come up with the new kubelet'
    wait_for "$PARTS_SECONDS" api_parts_are_healthy && wait_for "$READY_SECONDS" node_is_ready || return 1
  else
    start_runtime || { KUBE_WHY="$(log_tail)" && return 1; }
  fi
  if [ "$1" = upgrade-first ]; then
    note_absent_addons && run_kubeadm upgrade apply -y "$version" && remove_absent_addons
  else
    run_kubeadm upgrade node
  fi || { KUBE_WHY="$(log_tail)" && return 1; }
  report_node working "$1" kubelet
  restart_kubelet || { KUBE_WHY='Cannot restart kubelet.service: see its journal' && return 1; }
  : >"$KIT_RUN/node-started"
  if is_control_plane; then
    wait_for "$PARTS_SECONDS" api_parts_are_healthy || { KUBE_WHY='the API of this machine is not healthy after the upgrade' && return 1; }
  fi
  wait_for "$READY_SECONDS" node_is_ready "$version" || { KUBE_WHY="the node is not Ready after the upgrade: $(node_facts)" && return 1; }
  # Copies of etcd and of the manifests, a new one with each upgrade.
  rm -rf "$KUBE_ETC"/tmp/kubeadm-backup-* "$KUBE_ETC"/tmp/kubeadm-upgraded-*
  printf '%s\n' "$1" | put_private "$KUBE_DONE"
  set_node_line version "$version"
}
