# What the parts of the Kubernetes build share: settings, places, and what is said where something cannot be.
# shellcheck shell=bash

KIT_KUBERNETES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=assets/image/lib.sh
. "$KIT_KUBERNETES/../image/lib.sh"
KIT_KUBERNETES_CACHE=$KIT_CACHE/kubernetes
export KIT_KUBERNETES KIT_KUBERNETES_CACHE

# Programs a node needs in its image, and programs of the control plane, which run as containers.
KIT_NODE_PROGRAMS='kubeadm kubelet kubectl'
KIT_CONTROL_PLANE_PROGRAMS='kube-apiserver kube-controller-manager kube-scheduler kube-proxy'
export KIT_NODE_PROGRAMS KIT_CONTROL_PLANE_PROGRAMS

check_source() {
  case $1 in
    packages | directory | debian-source) ;;
    none | auto | '') fail "Cannot build Kubernetes: the setting kubernetes/source is '$1', and only npm start and kateskit choose one" 'KATESKIT_KUBERNETES_SOURCE=debian-source, packages or directory' ;;
    *) fail "Cannot use the Kubernetes source '$1' (setting kubernetes/source)" "say 'packages', 'directory', 'debian-source' or 'none'" ;;
  esac
}

# check_label <source> <label>: another name for the version that is built, which only a build can give.
check_label() {
  [ -n "$2" ] || return 0
  [ "$1" = debian-source ] || fail "Cannot label Kubernetes from $1: only debian-source is linked here" 'leave --version-label out'
  is_kubernetes_version "$2" || fail "Cannot label Kubernetes '$2'" 'say a version such as v1.19.16'
}

# check_kubernetes_host <source>
check_kubernetes_host() {
  local tool missing=() needed=(apt-get dpkg-deb flock) free room=500
  [ "$(id -u)" = 0 ] || fail 'Cannot build Kubernetes: not root' 'sudo npm start'
  [ "$(dpkg --print-architecture 2>/dev/null)" = "$KIT_ARCH" ] ||
    fail "Cannot get Kubernetes for $KIT_ARCH on this machine: $(uname -m)" 'do it on an amd64 Debian or Ubuntu and copy the folder'
  if [ "$1" = debian-source ]; then
    needed+=(dpkg-source make gcc rsync zstd unshare setpriv)
    room=8000
  fi
  for tool in "${needed[@]}"; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} = 0 ] ||
    fail "Cannot build Kubernetes: missing ${missing[*]}" 'apt-get install dpkg-dev make gcc libc6-dev rsync zstd util-linux'
  mkdir -p -- "$KIT_KUBERNETES_CACHE"
  free=$(df --output=avail -BM -- "$KIT_KUBERNETES_CACHE" | tail -n 1 | tr -dc 0-9)
  [ "$free" -ge "$room" ] ||
    fail "Cannot build Kubernetes: $free MB free in $KIT_KUBERNETES_CACHE, $room MB needed" 'free some space, or set XDG_CACHE_HOME to a folder on another disk'
}

# manifest_version <folder>: v1.20.2
manifest_version() {
  sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' "$1/kubernetes.json" | head -n 1
}
