# A node's normal life: its files, its services, its certificates. Needs kubernetes.sh, kubernetes-health.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # KUBE_WHY is for who asked

CRI_SECONDS=300
MIRROR_MARK='# Written by kit-kubernetes: this server first, then where the image really is.'
: "${KIT_STATIC_PODS:=kube-apiserver kube-controller-manager kube-scheduler etcd}"

# lay_cni: the network plugin's files out of their templates; `@NAME@` is the value of NAME in cni.env. Nothing to do where there is
# no template.
lay_cni() {
  local template target="$KIT_LIVE/etc/cni/net.d" name
  for template in "$KIT_LIVE"/etc/kit/cni/*.in; do
    [ -f "$template" ] || continue
    name="${template##*/}"
    mkdir -p "$target" && fill_in <"$template" >"$target/.kit-new" || return 1
    if cmp -s "$target/.kit-new" "$target/${name%.in}"; then rm -f "$target/.kit-new"; else mv "$target/.kit-new" "$target/${name%.in}"; fi
  done
}

# fill_in: standard input with the values of cni.env.
fill_in() {
  local name value script=''
  if [ -s "$KUBE_ETC/kit-cni.env" ]; then
    while IFS='=' read -r name value; do
      case "$name$value" in '' | *[!A-Za-z0-9_./:,-]*) continue ;; esac
      script="$script;s|@$name@|$value|g"
    done <"$KUBE_ETC/kit-cni.env"
  fi
  sed "${script#;}"
}

# lay_mirror: container images come through the server's registry first, from whatever registry they are; containerd goes on to that
# registry itself when ours has none or does not answer (containerd, docs/hosts.md: `_default`). A file of somebody else's stays.
lay_mirror() {
  local file="$KIT_LIVE/etc/containerd/certs.d/_default/hosts.toml" fresh="$KIT_RUN/hosts.toml"
  if [ -e "$file" ] && ! grep -qxF "$MIRROR_MARK" "$file"; then return 0; fi
  if [ "$(kube_line "$KUBE_TARGET" registry-mirror)" != yes ]; then
    rm -f "$file"
    return 0
  fi
  printf '%s\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n  ca = "%s"\n' "$MIRROR_MARK" "$KIT_TLS" "$KIT_IDENTITY/ca.pem" >"$fresh"
  ! cmp -s "$fresh" "$file" || return 0
  mkdir -p "${file%/*}" && cp "$fresh" "$file.new" && mv "$file.new" "$file"
}

# start_runtime: the container runtime, until it answers. Status 1 with the reason in KUBE_LOG.
start_runtime() {
  local unit
  unit="$(cri_unit)"
  lay_cni || echo "Cannot write the network plugin's files: no room in memory" >>"$KUBE_LOG"
  lay_mirror
  systemctl start "$unit" >>"$KUBE_LOG" 2>&1 && wait_for "$CRI_SECONDS" systemctl is-active --quiet "$unit" && return 0
  echo "Cannot start $unit: see its journal" >>"$KUBE_LOG"
  return 1
}

# start_node: what a node needs to live, once in a boot: from then on systemd keeps it running.
start_node() {
  [ ! -e "$KIT_RUN/node-started" ] || return 0
  renew_certificates
  start_runtime || { KUBE_WHY="$(log_tail)" && return 1; }
  systemctl start kubelet.service >>"$KUBE_LOG" 2>&1 || { KUBE_WHY='Cannot start kubelet.service: see its journal' && return 1; }
  : >"$KIT_RUN/node-started"
  echo "the node runs: $(node_name), Kubernetes $(kube_line "$KUBE_NODE" version)"
}

# stop_node: this machine is to be no node. What it was is forgotten: with another part it joins anew.
stop_node() {
  rm -f "$KIT_RUN/node-started"
  [ -e "$KUBE_NODE" ] || [ -e "$KUBE_WORK" ] || return 0
  echo 'this machine is to be no node: stops the kubelet'
  systemctl stop kubelet.service || return 0
  rm -f "$KUBE_NODE" "$KUBE_WORK" "$KUBE_DONE"
}

# certificates_are_due: has one of the control plane's less than a third of its life left?
certificates_are_due() {
  local file
  for file in "$KUBE_ETC"/pki/apiserver*.crt "$KUBE_ETC"/pki/front-proxy-client.crt "$KUBE_ETC"/pki/etcd/server.crt \
    "$KUBE_ETC"/pki/etcd/peer.crt "$KUBE_ETC"/pki/etcd/healthcheck-client.crt; do
    [ -s "$file" ] || continue
    ! is_due "$file" || return 0
  done
  return 1
}

# is_due FILE: is more than two thirds of its life over?
is_due() {
  local from until
  from="$(openssl x509 -in "$1" -noout -startdate | sed 's/^[^=]*=//')" && until="$(openssl x509 -in "$1" -noout -enddate | sed 's/^[^=]*=//')" || return 1
  from="$(date -u -d "$from" +%s)" && until="$(date -u -d "$until" +%s)" || return 1
  [ $(($(date +%s) - from)) -gt $(((until - from) * 2 / 3)) ]
}

# renew_certificates: kubeadm's are for a year, and are renewed by upgrades only; a control plane that is not upgraded would stop.
# kubelets renew theirs by themselves.
renew_certificates() {
  local command='certs'
  is_control_plane && certificates_are_due || return 0
  case "$(kube_version)" in v1.1[0-9].*) command='alpha certs' ;; esac
  echo 'renews the certificates of the control plane'
  # shellcheck disable=SC2086 # two words
  if ! timeout 600 kubeadm $command renew all >>"$KUBE_LOG" 2>&1; then
    report kubernetes failed '' "Cannot renew the certificates of the control plane: $(log_tail)"
    return 1
  fi
  restart_static_pods
  report kubernetes 'done' '' 'the certificates of the control plane are renewed'
}

# restart_static_pods: the kubelet starts again what ends.
restart_static_pods() {
  local name id
  for name in $KIT_STATIC_PODS; do
    for id in $(pod_processes "$name"); do kill "$id" 2>/dev/null || true; done
  done
}

# pod_processes [NAME]: the ids of processes in pods, of that program only. By their control groups: every runtime has the kubelet's.
pod_processes() {
  local folder
  for folder in "$KIT_PROC"/[0-9]*; do
    grep -q kubepods "$folder/cgroup" 2>/dev/null || continue
    [ -z "${1:-}" ] || [ "$(head -c 15 "$folder/comm" 2>/dev/null)" = "$(printf '%s' "$1" | head -c 15)" ] || continue
    printf '%s\n' "${folder##*/}"
  done
}

# apply_manifests: what the overlay has in /etc/kit/cluster is put into the cluster by its control planes, when it changed.
apply_manifests() {
  local file digest folder="$KIT_RUN/cluster-manifests"
  [ -s "$KUBE_ETC/admin.conf" ] && is_control_plane || return 0
  rm -rf "$folder" && mkdir -p "$folder"
  for file in "$KIT_LIVE"/etc/kit/cluster/*.yaml; do
    [ -f "$file" ] && fill_in <"$file" >"$folder/${file##*/}"
  done
  [ -n "$(ls "$folder")" ] || return 0
  digest="$(cat "$folder"/*.yaml | sha256sum | cut -d ' ' -f 1)"
  [ "$digest" != "$(cat "$KUBE_ETC/kit-applied" 2>/dev/null)" ] || return 0
  [ "$(seconds_now)" -ge "${apply_after:-0}" ] || return 0
  if kube_of_admin apply -f "$folder" >"$KIT_RUN/apply.log" 2>&1; then
    printf '%s\n' "$digest" | put_private "$KUBE_ETC/kit-applied"
    apply_told=''
    report kubernetes 'done' '' "the manifests of /etc/kit/cluster are in the cluster"
  else
    apply_after=$(($(seconds_now) + 60))
    [ -n "${apply_told:-}" ] || report kubernetes failed '' "Cannot apply the manifests of /etc/kit/cluster: $(tail -n 1 "$KIT_RUN/apply.log" | redact)"
    apply_told=yes
  fi
}
