# What this machine is in its cluster, as it knows by itself (docs/kubernetes.md): its record, what its image carries, what the
# server said last. Needs paths.sh, target.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # used by the parts that are read after this one

KUBE_ETC="$KIT_LIVE/etc/kubernetes"
KUBE_LIB="$KIT_LIVE/var/lib/kubelet"
KUBE_ETCD="$KIT_LIVE/var/lib/etcd"
# `name value` lines: version, cluster, name, role; and `ready`, the last image that this node was Ready in. It is there when the
# node is whole, and is written last.
KUBE_NODE="$KUBE_ETC/kit-node"
# The same lines and the action of kubeadm's work that is not done yet; and the action that the server has not been told the end of.
KUBE_WORK="$KUBE_ETC/kit-work"
KUBE_DONE="$KUBE_ETC/kit-done"
# What of the target concerns Kubernetes, for a start without the server.
KUBE_TARGET="$KUBE_ETC/kit-target"
KUBE_LOG="$KIT_RUN/kubernetes.log"
: "${KIT_KUBEADM:=/usr/bin/kubeadm}"

# can_be_node: does the image carry Kubernetes?
can_be_node() {
  [ -x "$KIT_KUBEADM" ]
}

# kube_version: of the image, `v1.33.1`.
kube_version() {
  [ -s "$KIT_RUN/kubernetes-version" ] || kubeadm version -o short >"$KIT_RUN/kubernetes-version" 2>/dev/null
  grep -Ex 'v[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]*' "$KIT_RUN/kubernetes-version"
}

# kube_line FILE NAME
kube_line() {
  sed -n "s/^$2 //p" "$1" 2>/dev/null | head -n 1
}

# put_private FILE: standard input, whole or not at all, after a cut too.
put_private() {
  (umask 077 && mkdir -p "${1%/*}" && cat >"$1.new" && sync "$1.new" && mv "$1.new" "$1" && sync -f "${1%/*}")
}

# set_node_line NAME VALUE
set_node_line() {
  [ "$(kube_line "$KUBE_NODE" "$1")" != "$2" ] || return 0
  { grep -v "^$1 " "$KUBE_NODE" && printf '%s %s\n' "$1" "$2"; } | put_private "$KUBE_NODE"
}

is_member() {
  [ -s "$KUBE_NODE" ] && [ -s "$KUBE_ETC/kubelet.conf" ]
}

# is_control_plane: does this node have a part of its own in the cluster's API?
is_control_plane() {
  is_member && [ "$(kube_line "$KUBE_NODE" role)" = control-plane ]
}

# note_kube_target: keeps what the target says, once it says something.
note_kube_target() {
  local name lines
  [ -n "$(target_value kubernetes)" ] || return 0
  lines="$(for name in kubernetes etcd-snapshot-every registry-mirror; do printf '%s %s\n' "$name" "$(target_value "$name")"; done)"
  [ "$lines" = "$(cat "$KUBE_TARGET" 2>/dev/null)" ] || printf '%s\n' "$lines" | put_private "$KUBE_TARGET"
}

# kube_part: none, worker or control-plane; nothing as long as the server has never said.
kube_part() {
  kube_line "$KUBE_TARGET" kubernetes | grep -Ex 'none|worker|control-plane'
}

# etcd_cluster: the cluster whose data lies here.
etcd_cluster() {
  [ ! -d "$KUBE_ETCD/member" ] || grep -Ex '[0-9a-f]{16}' "$KUBE_ETCD/kit-cluster" 2>/dev/null
}

# compare_versions LEFT RIGHT: `same`, `newer` or `older`: LEFT, seen from RIGHT.
compare_versions() {
  if [ "$1" = "$2" ]; then
    echo same
  elif [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; then
    echo newer
  else
    echo older
  fi
}

# decide_node PART MEMBER ROLE RELATION: what is due. PART: of kube_part; MEMBER: yes or no; ROLE: the one it joined as; RELATION: the
# image's Kubernetes, seen from the node's.
# stop: it is no node. idle: nobody has said what it is. run: a node's normal life, without the server. run-ask: the same, and ask. ask:
# nothing runs before the server has said how.
decide_node() {
  case "$1:$2:$3:$4" in
    none:*) echo stop ;;
    :no:*) echo idle ;;
    *:no:*) echo ask ;;
    *:yes:*:same) echo run ;;
    # A kubelet may be older than the API, never newer (Kubernetes' version skew policy); but the API of a control plane, which the
    # upgrade needs, runs by its kubelet.
    *:yes:control-plane:* | *:older) echo run-ask ;;
    *) echo ask ;;
  esac
}

next_step() {
  local member=no
  ! is_member || member=yes
  decide_node "$(kube_part)" "$member" "$(kube_line "$KUBE_NODE" role)" "$(compare_versions "$(kube_version)" "$(kube_line "$KUBE_NODE" version)")"
}

# cri_unit: of the container runtime that the image has.
cri_unit() {
  if [ -x "$KIT_LIVE/usr/bin/crio" ]; then echo crio.service; else echo containerd.service; fi
}

# wait_for SECONDS COMMAND…: until it succeeds. Status 1 when it did not.
wait_for() {
  local end
  end=$(($(seconds_now) + $1))
  shift
  until "$@"; do
    [ "$(seconds_now)" -lt "$end" ] || return 1
    sleep 2
  done
}
