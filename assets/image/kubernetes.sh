# Kubernetes in the image: whether, which, and what of it is laid into the root tree. Where it comes from: assets/kubernetes.
# shellcheck shell=bash

# The original, also where a build works on a copy of the image's recipe.
kubernetes_recipe=$KIT_PROJECT/assets/kubernetes

# `auto` is for who can ask the network, which is no part of what decides about an image: server/setup/kubernetes-source.ts.
has_kubernetes() {
  case $(kubernetes_source) in
    none | auto | '') return 1 ;;
  esac
}

# The container runtime and what starts processes for it.
kubernetes_cri() {
  local cri
  cri=$(setting_in kubernetes cri containerd)
  case $cri in
    containerd | cri-o) echo "$cri" ;;
    *) fail "Cannot use the container runtime '$cri' (setting kubernetes/cri)" "say 'containerd' or 'cri-o'" ;;
  esac
}

kubernetes_oci_runtime() {
  local runtime
  runtime=$(setting_in kubernetes oci-runtime runc)
  case $runtime in
    runc | crun) echo "$runtime" ;;
    *) fail "Cannot use the OCI runtime '$runtime' (setting kubernetes/oci-runtime)" "say 'runc' or 'crun'" ;;
  esac
}

# check_kubernetes: what can be known to be wrong before anything is built.
check_kubernetes() {
  local cri
  has_kubernetes || return 0
  "$kubernetes_recipe/build.sh" --key >/dev/null || exit 1 # has said why
  kubernetes_oci_runtime >/dev/null || exit 1
  cri=$(kubernetes_cri) || exit 1
  [ "$cri" != cri-o ] || [[ $(setting mirror '') == 'deb '* ]] ||
    fail 'Cannot put CRI-O into the image: Debian trixie has no package of it' \
      'name a repository that has it among the deb lines of image/mirror (docs/image.md), or take containerd: KATESKIT_KUBERNETES_CRI=containerd'
}

# The sections of packages.txt beyond those of every image.
kubernetes_sections() {
  has_kubernetes || return 0
  printf '%s\n' 'image kubernetes' "image $(kubernetes_cri)" "image $(kubernetes_oci_runtime)"
}

# kubernetes_removed: packages that only others' dependencies bring. Debian's containerd wants runc in any case.
kubernetes_removed() {
  if has_kubernetes && [ "$(kubernetes_oci_runtime)" = crun ]; then echo runc; fi
}

# kubernetes_identity: what of it decides which image it is; nothing without. Of what was made when it is made, else of how.
kubernetes_identity() {
  local key made
  has_kubernetes || return 0
  key=$("$kubernetes_recipe/build.sh" --key) || exit 1
  made=$KIT_CACHE/kubernetes/$key/kubernetes.json
  if [ -f "$made" ]; then key=$(sha256sum <"$made"); fi
  printf 'kubernetes %s %s %s\n' "$(kubernetes_cri)" "$(kubernetes_oci_runtime)" "$key"
}

# ensure_kubernetes: sets $kubernetes_folder and $kubernetes_version; nothing without.
ensure_kubernetes() {
  kubernetes_folder=
  kubernetes_version=
  has_kubernetes || return 0
  kubernetes_folder=$("$kubernetes_recipe/build.sh") || exit 1
  kubernetes_version=$(sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' "$kubernetes_folder/kubernetes.json" | head -n 1)
}

# lay_kubernetes <root>
lay_kubernetes() {
  local root=$1 name
  [ -n "$kubernetes_folder" ] || return 0
  for name in kubeadm kubelet kubectl; do
    install -m 755 "$kubernetes_folder/bin/$name" "$root/usr/bin/$name"
  done
  lay_crictl "$root"
  lay_files "$KIT_RECIPE/kubernetes/root" "$root"
  drop_kubernetes_extras "$root"
  # The kubelet's, kubeadm's and the network plugins' places; /opt/cni/bin is where plugins install themselves.
  install -d -m 755 "$root"/{etc/kubernetes/manifests,etc/cni/net.d,var/lib/kubelet,var/lib/cni,opt/cni,usr/libexec/kubernetes}
  install -d -m 700 "$root/var/lib/etcd"
  ln -s ../../usr/lib/cni "$root/opt/cni/bin"
  case $(kubernetes_cri) in
    containerd) write_containerd_config "$root" ;;
    cri-o) write_crio_config "$root" ;;
  esac
}

# The one that was brought; for kubeadms before 1.31, which call it, ours where none was.
lay_crictl() {
  local minor=${kubernetes_version#*.}
  if [ -f "$kubernetes_folder/bin/crictl" ]; then
    install -m 755 "$kubernetes_folder/bin/crictl" "$1/usr/bin/crictl"
  elif [ "${minor%%.*}" -lt 31 ] && [ "$(kubernetes_cri)" = containerd ]; then
    install -m 755 "$KIT_RECIPE/kubernetes/crictl" "$1/usr/bin/crictl"
  fi
}

# drop_kubernetes_extras <root>: kubernetes/dropped.txt; a path that is not there comes with another choice.
drop_kubernetes_extras() {
  local path
  while IFS= read -r path; do rm -f "${1:?}/$path"; done < <(list_column "$KIT_RECIPE/kubernetes/dropped.txt")
}

# pause_image: the one this kubeadm gives the kubelet, which the runtime must agree with.
pause_image() {
  "$kubernetes_folder/bin/kubeadm" config images list --kubernetes-version "$kubernetes_version" 2>/dev/null | grep '/pause:' ||
    fail "Cannot ask $kubernetes_folder/bin/kubeadm which pause image it wants"
}

write_containerd_config() {
  local pause
  pause=$(pause_image) || exit 1
  install -d -m 755 "$1/etc/containerd/certs.d"
  cat >"$1/etc/containerd/config.toml" <<EOF
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$pause"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "/usr/$(if [ "$(kubernetes_oci_runtime)" = runc ]; then echo sbin/runc; else echo bin/crun; fi)"
      SystemdCgroup = true

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
EOF
  chmod 644 "$1/etc/containerd/config.toml"
}

# Untested: no repository with CRI-O was at hand.
write_crio_config() {
  local pause runtime
  pause=$(pause_image) || exit 1
  runtime=$(kubernetes_oci_runtime)
  install -d -m 755 "$1/etc/crio/crio.conf.d"
  cat >"$1/etc/crio/crio.conf.d/10-kateskit.conf" <<EOF
[crio.image]
pause_image = "$pause"

[crio.runtime]
cgroup_manager = "systemd"
default_runtime = "$runtime"

[crio.runtime.runtimes.$runtime]
runtime_path = "/usr/$(if [ "$runtime" = runc ]; then echo sbin/runc; else echo bin/crun; fi)"

[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/usr/lib/cni/"]
EOF
  chmod 644 "$1/etc/crio/crio.conf.d/10-kateskit.conf"
}
