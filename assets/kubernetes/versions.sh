# Versions of Kubernetes: which is wanted, and which the programs say they are.
# shellcheck shell=bash

# As Kubernetes says it: v1.33.4, v1.33.0-rc.1.
is_kubernetes_version() {
  [[ $1 =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] && [ ${#1} -le 32 ]
}

# minor_of <v1.33.4>: 33
minor_of() {
  local rest=${1#*.}
  printf '%s\n' "${rest%%.*}"
}

# minor_name <v1.33.4 or v1.33>: v1.33
minor_name() {
  printf '%s\n' "$1" | cut -d. -f1,2
}

# wanted_version: the setting kubernetes/version, a minor (v1.33) or a release of it (v1.33.4).
wanted_version() {
  local version
  version=$(setting_in kubernetes version '')
  version=v${version#v}
  [ "$version" != v ] ||
    fail 'Cannot choose a Kubernetes: the setting kubernetes/version is empty' 'name a minor: KATESKIT_KUBERNETES_VERSION=v1.33'
  [[ $version =~ ^v[0-9]+\.[0-9]+(\.[0-9]+)?$ ]] ||
    fail "Cannot use the Kubernetes '$version' (setting kubernetes/version)" 'name a minor such as v1.33, or a release of it such as v1.33.4'
  echo "$version"
}

# check_wanted <version>: what kubernetes/version asks for, where it asks for something.
check_wanted() {
  local wanted
  wanted=$(setting_in kubernetes version '')
  wanted=v${wanted#v}
  [ "$wanted" = v ] || [ "$wanted" = "$1" ] || [ "$wanted" = "$(minor_name "$1")" ] ||
    fail "Cannot take Kubernetes $1: the setting kubernetes/version asks for $wanted" 'change one of them'
}

# version_of <folder>: of the kubeadm in it.
version_of() {
  "$1/kubeadm" version -o short 2>/dev/null || fail "Cannot run $1/kubeadm" 'bring a kubeadm for this architecture'
}

# check_programs <folder> <version>: they are one version, by their own word.
check_programs() {
  local said
  said=$(version_of "$1") || exit 1
  [ "$said" = "$2" ] || fail "Cannot use this Kubernetes: kubeadm says it is $said, not $2"
  said=$("$1/kubelet" --version 2>/dev/null) || fail 'Cannot run the kubelet' 'bring one for this architecture'
  [ "$said" = "Kubernetes $2" ] || fail "Cannot use this Kubernetes: kubeadm is $2, the kubelet says it is '${said#Kubernetes }'" 'bring programs of one version'
  said=$("$1/kubectl" version --client 2>/dev/null | grep -oE 'v[0-9]+\.[0-9]+\.[0-9]+[-0-9A-Za-z.]*' | head -n 1) || true
  [ "$said" = "$2" ] || fail "Cannot use this Kubernetes: kubeadm is $2, kubectl says it is '$said'" 'bring programs of one version'
}
