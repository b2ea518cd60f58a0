# How the node is: its kubelet, the API's own parts on it, what the API says of it; and what that means for the machine's own checks
# (docs/disk.md, "On trial"). Needs kubernetes.sh, conf.sh.
# shellcheck shell=dash

: "${KIT_KUBELET_HEALTH:=http://127.0.0.1:10248/healthz}" "${KIT_ETCD_HEALTH:=http://127.0.0.1:2381/health}"
HEALTH_SECONDS=5
# A machine that is told to wait for so long is not held back from being good: nothing has failed on it.
UNJOINED_SECONDS_DEFAULT=600

kubelet_is_healthy() {
  [ "$(curl -q -s --noproxy '*' --max-time "$HEALTH_SECONDS" "$KIT_KUBELET_HEALTH")" = ok ]
}

# kube_of_node ARGUMENT…: kubectl as the kubelet.
kube_of_node() {
  kubectl --kubeconfig "$KUBE_ETC/kubelet.conf" --request-timeout=15s "$@"
}

# kube_of_admin ARGUMENT…: kubectl as the cluster's admin, on a control plane.
kube_of_admin() {
  kubectl --kubeconfig "$KUBE_ETC/admin.conf" --request-timeout=30s "$@"
}

# node_facts: what the API says of this node: `ready <version>`, `not-ready <why>`, `stale`, `missing`, `refused <why>`, or `away <why>`
# when it does not answer. stale: what it says is from before this kubelet's start, and may be long over: after a restart, in data of etcd
# that was kept or restored.
node_facts() {
  local text status=0
  text="$(kube_of_node get node "$(node_name)" -o \
    'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime} {.reason} {end}{.status.nodeInfo.kubeletVersion}' 2>&1)" || status=$?
  text="$(printf '%s' "$text" | tail -n 1 | head -c 300)"
  if [ "$status" = 0 ]; then
    # shellcheck disable=SC2086 # its words
    set -- $text
    case "$text" in
      *' '*' '*' '*) ;;
      *) echo stale && return 0 ;;
    esac
    if ! is_of_this_kubelet "$2"; then
      echo stale
    elif [ "$1" = True ]; then
      echo "ready $4"
    else
      echo "not-ready $1 $3"
    fi
    return 0
  fi
  case "$text" in
    *NotFound*) echo missing ;;
    *Forbidden* | *forbidden* | *Unauthorized* | *x509* | *'must be logged in'*) echo "refused $text" ;;
    *) echo "away $text" ;;
  esac
}

# is_of_this_kubelet TIME: was that said since the kubelet started? A kubelet tells how it is when it starts, when that changes, and every
# five minutes. TIME is of this machine's clock, in whole seconds.
is_of_this_kubelet() {
  local said started
  started="$(systemctl show kubelet.service --property=ExecMainStartTimestamp --value --timestamp=unix 2>/dev/null)"
  said="$(printf '%s' "$1" | sed 's/T/ /; s/Z$//')"
  said="$(date -u -d "$said" +%s 2>/dev/null)" || return 1
  [ "$said" -ge "$(printf '%s' "${started#@}" | grep -Ex '[0-9]{1,12}' || echo 0)" ]
}

node_is_registered() {
  case "$(node_facts)" in ready* | not-ready*) return 0 ;; *) return 1 ;; esac
}

# node_is_ready [VERSION]: with the kubelet of that version.
node_is_ready() {
  local facts
  facts="$(node_facts)"
  case "$facts" in
    ready\ *) [ -z "${1:-}" ] || [ "${facts#ready }" = "$1" ] ;;
    *) return 1 ;;
  esac
}

# local_api PATH: of this machine's own API server; its certificate has the name `kubernetes`.
local_api() {
  local port
  port="$(sed -n 's/^ *- --secure-port=\([0-9]*\)$/\1/p' "$KUBE_ETC/manifests/kube-apiserver.yaml" 2>/dev/null)"
  curl -q -sf --noproxy '*' --max-time "$HEALTH_SECONDS" --cacert "$KUBE_ETC/pki/ca.crt" --connect-to "kubernetes:${port:-6443}:127.0.0.1:${port:-6443}" \
    -o /dev/null "https://kubernetes:${port:-6443}$1"
}

# api_parts_are_healthy: API server, controller manager, scheduler and etcd of this machine, as kubeadm's own probes ask them.
api_parts_are_healthy() {
  local port
  local_api /livez || return 1
  for port in 10257 10259; do
    # Self-signed, on the loopback only.
    curl -q -skf --noproxy '*' --max-time "$HEALTH_SECONDS" -o /dev/null "https://127.0.0.1:$port/healthz" || return 1
  done
  etcd_is_healthy
}

# etcd_is_healthy: or is not here.
etcd_is_healthy() {
  [ -e "$KUBE_ETC/manifests/etcd.yaml" ] || return 0
  curl -q -sf --noproxy '*' --max-time "$HEALTH_SECONDS" "$KIT_ETCD_HEALTH" | grep -q '"true"'
}

# own_parts_run: nothing on this machine is the reason when the API cannot be reached. On a control plane that takes its API server,
# whatever that thinks of etcd; or an etcd that runs and misses the others.
own_parts_run() {
  [ -e "$KUBE_ETC/manifests/kube-apiserver.yaml" ] || return 0
  local_api '/livez?exclude=etcd' || etcd_misses_others
}

etcd_misses_others() {
  grep -q -- '--initial-cluster=.*,' "$KUBE_ETC/manifests/etcd.yaml" 2>/dev/null &&
    [ "$(curl -q -s --noproxy '*' --max-time "$HEALTH_SECONDS" -o /dev/null -w '%{http_code}' "$KIT_ETCD_HEALTH")" = 503 ]
}

# decide_check PART MEMBER ASKED RELATION KUBELET FACTS OWN BEFORE WAITED: `passed`, `waiting` or `excused`, and why. ASKED: how the last
# question for a grant ended, or `none`; `failed` after work that failed. KUBELET, OWN: yes or no. FACTS: the first word of node_facts.
# BEFORE: was the node Ready under this image before? WAITED: seconds since it was told to wait, of those allowed: `over` or `no`.
# excused: it has not passed, and a trial does not end for it: the image has no part in it.
decide_check() {
  case "$1:$2" in
    none:*)
      echo 'passed it is no node'
      return 0
      ;;
    *:no)
      case "$3:$9" in
        failed:*) echo 'waiting it could not become a node' ;;
        *:over) echo 'passed it is no node yet, and nothing failed' ;;
        *) echo 'waiting it is no node yet' ;;
      esac
      return 0
      ;;
  esac
  case "$4:$3:$5:$6:$7:$8" in
    same:failed:*) echo 'waiting the upgrade failed' ;;
    same:*:no:*) echo 'waiting the kubelet is not healthy' ;;
    same:*:yes:ready:*) echo 'passed the node is Ready' ;;
    same:*:yes:away:yes:yes) echo 'passed the node was Ready in this image; the API does not answer' ;;
    same:*:yes:away:yes:no) echo 'excused the API does not answer' ;;
    same:*) echo 'waiting the node is not Ready' ;;
    *:wait:*) echo 'excused the upgrade of the node waits' ;;
    *:away:*) echo 'excused the server does not answer, and the node is to be upgraded' ;;
    *) echo 'waiting the node is not upgraded' ;;
  esac
}

# follow_check: KIT_RUN/node-check, until it has passed once in this boot.
follow_check() {
  local member=no kubelet=no facts=none own=no before=no waited=no relation=other verdict
  case "$(cat "$KIT_RUN/node-check" 2>/dev/null)" in passed*) return 0 ;; esac
  if is_member; then
    member=yes
    relation="$(compare_versions "$(kube_version)" "$(kube_line "$KUBE_NODE" version)")"
    # The server says that there is nothing to upgrade.
    [ -z "${settled:-}" ] || relation=same
    if kubelet_is_healthy; then
      kubelet=yes
      facts="$(node_facts)"
      if own_parts_run; then own=yes; fi
    fi
    [ "$(kube_line "$KUBE_NODE" ready)" != "$KIT_IMAGE" ] || before=yes
    # An old kubelet that was not replaced yet.
    case "$facts" in "ready $(kube_version)" | [!r]* | ref*) ;; *) facts=not-ready ;; esac
  elif [ "$(noted_seconds node-waits)" -gt 0 ]; then
    [ $(($(seconds_now) - $(noted_seconds node-waits))) -lt "$(conf_number UNJOINED_SECONDS "$UNJOINED_SECONDS_DEFAULT")" ] || waited=over
  fi
  verdict="$(decide_check "$(kube_part)" "$member" "${KUBE_ASKED:-none}" "$relation" "$kubelet" "${facts%% *}" "$own" "$before" "$waited")"
  note_check "$verdict"
}

# note_check VERDICT
note_check() {
  local text="$1"
  [ -z "${KUBE_WHY:-}" ] || text="$text: $KUBE_WHY"
  case "$1" in
    excused*) note_seconds node-excused ;;
    'passed the node is Ready') set_node_line ready "$KIT_IMAGE" ;;
  esac
  [ "$text" != "$(cat "$KIT_RUN/node-check" 2>/dev/null)" ] || return 0
  printf '%s\n' "$text" >"$KIT_RUN/.node-check.new" && mv "$KIT_RUN/.node-check.new" "$KIT_RUN/node-check"
  echo "$text"
}
