# Becoming a node: a clean place, the keys, kubeadm, and whether it worked out. Needs kubernetes.sh, kubernetes-grant.sh,
# kubernetes-health.sh, kubernetes-run.sh, kubernetes-etcd.sh. What fails returns 1 with the reason in KUBE_WHY.
# shellcheck shell=dash
# shellcheck disable=SC2034 # KUBE_WHY is for who asked

KUBEADM_SECONDS=3600
# kubeadm has given up or was ended; what it began may still come about.
SETTLE_SECONDS=300
# A new cluster's controllers, which sign, may come up long after its API. A grant whose request was let is used, and there is no other in a
# boot.
SIGN_SECONDS=1800

# run_kubeadm ARGUMENT…
run_kubeadm() {
  local status=0
  timeout "$KUBEADM_SECONDS" kubeadm "$@" "--ignore-preflight-errors=$(ignored_errors)" >>"$KUBE_LOG" 2>&1 || status=$?
  redact_log
  return "$status"
}

# ignored_errors: of kubeadm's checks before its work. DirAvailable: data that stays. CreateJob: wants a pod within 15 seconds, in a
# cluster that may have no place for one. The others, for a cluster without CoreDNS: it pulls that all the same, and wants to know which
# version there is. And what the overlay file /etc/kit/kubeadm-ignore names, one a line.
ignored_errors() {
  {
    printf '%s\n' DirAvailable--var-lib-etcd CreateJob
    ! lacks_core_dns || printf '%s\n' ImagePull CoreDNSUnsupportedPlugins CoreDNSMigration
    grep -Ex '[A-Za-z0-9._-]+' "$KIT_LIVE/etc/kit/kubeadm-ignore" 2>/dev/null | grep -vix all
  } | tr '\n' ',' | sed 's/,$//'
}

lacks_core_dns() {
  case ",$(grant_value skip-phases)," in *,addon/coredns,*) return 0 ;; esac
  grep -qx deployment/coredns "$KUBE_ETC/kit-absent" 2>/dev/null
}

# is_unfinished_etcd: its data was begun by a cluster that never was up: nobody has anything in it.
is_unfinished_etcd() {
  [ -e "$KUBE_ETCD/kit-making" ] && [ ! -e "$KUBE_ETCD/kit-cluster" ]
}

# clean_place: nothing of an earlier node is left, but etcd's data of a cluster that was up.
clean_place() {
  local place
  systemctl stop kubelet.service >>"$KUBE_LOG" 2>&1
  rm -f "$KIT_RUN/node-started" "$KUBE_NODE" "$KUBE_DONE"
  end_pods
  awk -v place="$KUBE_LIB/" 'index($5, place) == 1 { print $5 }' "$KIT_PROC/self/mountinfo" | sort -r | while IFS= read -r place; do
    umount -l "$(printf '%b' "$(printf '%s' "$place" | sed 's/\\/\\0/g')")" || true
  done
  # Only what lies in them: they are mount points.
  for place in "$KUBE_ETC" "$KUBE_LIB" "$KIT_LIVE/var/lib/cni"; do
    [ -d "$place" ] || continue
    find "$place" -mindepth 1 -maxdepth 1 ! -name kit-target ! -name kit-work -exec rm -rf {} + || true
  done
  mkdir -p "$KUBE_ETC/manifests" && chmod 0700 "$KUBE_ETC"
  ! is_unfinished_etcd || rm -rf "$KUBE_ETCD/member"
}

# end_pods: the kubelet is stopped; what it started runs on, and etcd would hold its data.
end_pods() {
  local id round
  for round in 1 2 3; do
    [ -n "$(pod_processes)" ] || return 0
    for id in $(pod_processes); do kill -9 "$id" 2>/dev/null || true; done
    sleep "$round"
  done
}

# lay_keys: of a control plane; and what it runs beside kubeadm's own.
lay_keys() {
  local file
  (
    umask 077
    cd "$KUBE_GRANT/files" && find pki manifests -type f 2>/dev/null | while IFS= read -r file; do
      mkdir -p "$KUBE_ETC/${file%/*}" && cp "$file" "$KUBE_ETC/$file" && chmod 0600 "$KUBE_ETC/$file" || exit 1
    done
  ) 2>>"$KUBE_LOG" || { KUBE_WHY='Cannot write the keys of the cluster to /etc/kubernetes: no room left' && return 1; }
}

# get_kubelet_certificate: this machine asks for it by itself, with the token of its grant and for the key that it has named. Kubelets take
# what lies there; one that asks makes a key that nobody knows (Kubernetes, pkg/kubelet/certificate).
get_kubelet_certificate() {
  local folder="$KUBE_GRANT/kubelet" place="$KUBE_LIB/pki" file
  file="kubelet-client-$(date -u +%Y-%m-%d-%H-%M-%S).pem"
  CERTIFICATE_REQUEST="kit-$(grant_value name | head -c 200)-$(kubelet_key | head -c 16)"
  (umask 077 && mkdir -p "$folder" && kubelet_request >"$folder/request.json") || { KUBE_WHY="Cannot ask for the kubelet's certificate: no room in memory" && return 1; }
  KUBE_WHY="Cannot get the kubelet's certificate: nobody signs it"
  wait_for "$SIGN_SECONDS" request_is_decided "$folder" || return 1
  [ -s "$folder/certificate" ] || { KUBE_WHY="Cannot get the kubelet's certificate: $(cat "$folder/denied")" && return 1; }
  cat "$folder/certificate" "$KUBELET_KEY" | put_private "$place/$file" && ln -s "$place/$file" "$place/kubelet-client-current.pem" && return 0
  KUBE_WHY="Cannot write the kubelet's certificate to $place: no room left"
  return 1
}

# kubelet_request: the object. Kubernetes up to 1.26 signs for just these usages, whatever the key.
kubelet_request() {
  printf '{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "%s"}, "spec": {"request": "%s", "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["digital signature", "key encipherment", "client auth"]}}\n' \
    "$CERTIFICATE_REQUEST" "$(openssl req -new -key "$KUBELET_KEY" -subj "/O=system:nodes/CN=system:node:$(grant_value name)" | base64 | tr -d '\n')"
}

# request_is_decided DIRECTORY: with `certificate` there, or `denied` and why. Sends the request until the API has it.
request_is_decided() {
  [ -e "$1/sent" ] || kube_of_token create -f "$1/request.json" >>"$KUBE_LOG" 2>&1 || kube_of_token get csr "$CERTIFICATE_REQUEST" >/dev/null 2>&1 || return 1
  : >"$1/sent"
  kube_of_token get csr "$CERTIFICATE_REQUEST" -o 'jsonpath={.status.conditions[?(@.type=="Denied")].message}' >"$1/denied" 2>>"$KUBE_LOG" || return 1
  [ ! -s "$1/denied" ] || return 0
  kube_of_token get csr "$CERTIFICATE_REQUEST" -o 'jsonpath={.status.certificate}' 2>>"$KUBE_LOG" | base64 -d >"$1/certificate"
  [ -s "$1/certificate" ]
}

# kube_of_token ARGUMENT…: kubectl with the token of the grant, which stands in a file: command lines are anybody's to read.
kube_of_token() {
  kubectl --kubeconfig "$KUBE_GRANT/files/token.conf" --request-timeout=15s "$@"
}

# begin_work ACTION: from here on the machine is no node until finish_work.
begin_work() {
  local name role=worker
  case "$1" in init | restore | join-control-plane) role=control-plane ;; esac
  rm -f "$KUBE_NODE"
  {
    printf 'action %s\nrole %s\n' "$1" "$role"
    for name in cluster name version; do printf '%s %s\n' "$name" "$(grant_value "$name")"; done
    sed -n 's/.*"criSocket": *"\([^"]*\)".*/cri \1/p' "$KUBE_GRANT/files/kubeadm.yaml" | head -n 1
  } | put_private "$KUBE_WORK" || { KUBE_WHY='Cannot write to /etc/kubernetes: no room left' && return 1; }
  clean_place
  [ ! -s "$KUBE_GRANT/files/cni.env" ] || put_private "$KUBE_ETC/kit-cni.env" <"$KUBE_GRANT/files/cni.env"
  start_runtime || { KUBE_WHY="$(log_tail)" && return 1; }
}

# finish_work: the machine is a node. The record is the commit; whether the server heard of it is another question.
finish_work() {
  local cluster action
  action="$(kube_line "$KUBE_WORK" action)"
  cluster="$(kube_line "$KUBE_WORK" cluster)"
  if [ -d "$KUBE_ETCD/member" ] && [ "$(kube_line "$KUBE_WORK" role)" = control-plane ]; then
    printf '%s\n' "$cluster" | put_private "$KUBE_ETCD/kit-cluster" && rm -f "$KUBE_ETCD/kit-making"
  fi
  name_runtime
  printf '%s\n' "$action" | put_private "$KUBE_DONE"
  grep -E '^(role|cluster|name|version) ' "$KUBE_WORK" | put_private "$KUBE_NODE" || { KUBE_WHY='Cannot write to /etc/kubernetes: no room left' && return 1; }
  rm -f "$KUBE_WORK" "$KUBELET_KEY" "$KIT_RUN/etcd-snapshot-next"
  : >"$KIT_RUN/node-started"
  echo "is a node: $(kube_line "$KUBE_NODE" name), Kubernetes $(kube_line "$KUBE_NODE" version)"
}

# name_runtime: kubeadm's last step of a join, which is lost when that gives up: `kubeadm upgrade` looks for it.
name_runtime() {
  local cri
  cri="$(kube_line "$KUBE_WORK" cri)"
  [ -n "$cri" ] || return 0
  kube_of_node annotate node "$(node_name)" "kubeadm.alpha.kubernetes.io/cri-socket=$cri" >>"$KUBE_LOG" 2>&1 || true
}

# make_cluster ACTION: init, also over data that is there already, and after a restore.
make_cluster() {
  local skip
  skip="$(grant_value skip-phases)"
  begin_work "$1" && lay_keys || return 1
  if [ "$1" = restore ]; then
    restore_etcd || return 1
  elif [ ! -d "$KUBE_ETCD/member" ]; then
    grant_value cluster | put_private "$KUBE_ETCD/kit-making"
  fi
  report_node working "$1" kubeadm
  run_kubeadm init --config "$KUBE_GRANT/files/kubeadm.yaml" ${skip:+"--skip-phases=$skip"} --skip-token-print ||
    echo "kubeadm ended with status $?" >>"$KUBE_LOG"
  # Its status alone does not tell: on slow machines it gives up on what comes about a moment later.
  settle cluster_is_made && finish_work
}

cluster_is_made() {
  node_is_registered && api_parts_are_healthy && kube_of_admin -n kube-system get configmap kubeadm-config >/dev/null 2>&1
}

# join_cluster ACTION
join_cluster() {
  begin_work "$1" || return 1
  if [ "$1" = join-control-plane ]; then
    # The server has taken the member that this was out of etcd: its data is of no use to the others.
    set_etcd_aside && lay_keys || return 1
  fi
  get_kubelet_certificate || return 1
  report_node working "$1" kubeadm
  # shellcheck disable=SC2046 # one word or none
  run_kubeadm join --config "$KUBE_GRANT/files/kubeadm.yaml" $(etcd_patches "$1") || echo "kubeadm ended with status $?" >>"$KUBE_LOG"
  if [ "$1" = join ]; then settle node_is_registered; else settle control_plane_is_joined; fi && finish_work
}

# etcd_patches ACTION: an argument for kubeadm 1.20, which asks for 100 MiB of disk for etcd: a kubelet that has just started does not know
# yet that it has any, refuses the pod, and never looks at it again (seen with 1.20.2 on busy machines). Later ones ask for none.
etcd_patches() {
  local folder="$KIT_RUN/kubeadm-patches"
  case "$1 $(kube_version)" in 'join-control-plane v1.20.'*) ;; *) return 0 ;; esac
  mkdir -p "$folder"
  echo '[{"op": "remove", "path": "/spec/containers/0/resources/requests/ephemeral-storage"}]' >"$folder/etcd+json.json"
  printf '%s\n' "--experimental-patches=$folder"
}

control_plane_is_joined() {
  node_is_registered && [ -s "$KUBE_ETC/admin.conf" ] && api_parts_are_healthy
}

# settle COMMAND…: is it true, or does it come about? Without a kubelet's credentials nothing does.
settle() {
  if [ -s "$KUBE_ETC/kubelet.conf" ] && wait_for "$SETTLE_SECONDS" "$@"; then return 0; fi
  KUBE_WHY="$(log_tail)"
  return 1
}

# resume_work: what an end in the middle left. A join whose kubelet has its certificate may be complete, and there is no other grant for
# it in this boot; anything else begins anew, with one.
resume_work() {
  [ -e "$KUBE_WORK" ] || return 0
  if is_member; then
    rm -f "$KUBE_WORK"
    return 0
  fi
  [ "$(kube_line "$KUBE_WORK" version)" = "$(kube_version)" ] && [ -s "$KUBE_ETC/kubelet.conf" ] && [ -s "$KUBE_LIB/pki/kubelet-client-current.pem" ] || return 0
  case "$(kube_line "$KUBE_WORK" action)" in
    join) set -- node_is_registered ;;
    join-control-plane) set -- control_plane_is_joined ;;
    *) return 0 ;;
  esac
  echo 'finishes a join that was interrupted'
  start_runtime && systemctl start kubelet.service && wait_for "$SETTLE_SECONDS" "$@" && finish_work
}
