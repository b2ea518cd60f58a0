# The source `packages`: the community's Debian repository, which has one repository for each minor, or a mirror of it.
# shellcheck shell=bash

community_repository='https://pkgs.k8s.io/core:/stable:/{minor}/deb/'
# Of the key that has signed the repositories of all minors (Release.key beside each of them).
community_fingerprint=DE15B14486CD377B9E876E1A234654DA9A296436

# package_repository <version>: the apt source's address; `{minor}` in the setting stands for v1.33.
package_repository() {
  local repository
  repository=$(setting_in kubernetes repository "$community_repository")
  repository=${repository//'{minor}'/$(minor_name "$1")}
  case $repository in
    http://* | https://*) ;;
    /* | file://*)
      repository=${repository#file://}
      [ -d "$repository" ] || fail "Cannot use the Kubernetes repository $repository (setting kubernetes/repository): there is no such folder" 'name a URL or a folder'
      repository=copy:$repository
      ;;
    *) fail "Cannot use the Kubernetes repository '$repository' (setting kubernetes/repository)" 'name a URL or a folder' ;;
  esac
  printf '%s/\n' "${repository%/}"
}

# repository_key: the file of the setting; /dev/null where the community's own key is to be fetched, and known again.
repository_key() {
  local key
  key=$(setting_in kubernetes repository-key '')
  if [ -n "$key" ]; then
    [ -s "$key" ] || fail "Cannot use the key $key (setting kubernetes/repository-key): there is no such file" 'name the file of the public key, as the repository publishes it (Release.key)'
    echo "$key"
    return
  fi
  [ "$(setting_in kubernetes repository "$community_repository")" = "$community_repository" ] ||
    fail "Cannot trust the Kubernetes repository $(setting_in kubernetes repository ''): nothing says whose signature counts" \
      'name the file of its public key: KATESKIT_KUBERNETES_REPOSITORY_KEY=/path/Release.key'
  echo /dev/null
}

# make_from_packages <result folder>
make_from_packages() {
  local result=$1 from=$KIT_WORK/packages wanted repository version name names
  wanted=$(wanted_version)
  repository=$(package_repository "$wanted")
  export KIT_FETCH_FIX='check the network, name a mirror (KATESKIT_KUBERNETES_REPOSITORY=<url or folder>), or take Kubernetes from elsewhere: KATESKIT_KUBERNETES_SOURCE=directory (binaries you bring) or debian-source (built here, v1.20.2)'
  export KIT_KEY_FIX='compare the key in kubernetes/repository-key with the one the repository publishes as Release.key'
  progress 0 "reading $repository"
  mkdir -p "$from"
  take_key "$repository" "$from"
  open_apt "$from" "deb [signed-by=$(echo "$from"/key.*)] $repository /"
  version=$(choose_package "$from" kubeadm "$wanted") || exit 1
  names="kubeadm kubelet kubectl"
  # From 1.31 on kubeadm asks the runtime itself.
  [ "$(minor_of "v$version")" -ge 31 ] || names="$names cri-tools"
  progress 20 "fetching Kubernetes ${version%%-*}"
  mkdir "$KIT_WORK/fetched"
  for name in $names; do
    [ "$name" = cri-tools ] || name=$name=$(choose_package "$from" "$name" "v${version%%-*}") || exit 1
    (cd "$KIT_WORK/fetched" && run_apt "$from" download "$name")
  done
  progress 90 'unpacking'
  for name in "$KIT_WORK/fetched"/*.deb; do
    dpkg-deb --fsys-tarfile "$name" | tar -x -C "$result/bin" --strip-components=3 --wildcards './usr/bin/*'
  done
  check_programs "$result/bin" "v${version%%-*}"
  # shellcheck disable=SC2034 # manifest.sh
  source_package=kubeadm_$version
}

# take_key <repository> <folder>: key.gpg, or key.asc when it is text, as apt tells them apart.
take_key() {
  local key file=$2/Release.key
  key=$(repository_key)
  if [ "$key" = /dev/null ]; then
    command -v gpg >/dev/null || fail 'Cannot check the key of the Kubernetes repository: missing gpg' 'apt-get install gpg'
    curl --fail --silent --show-error --location --retry 2 --max-time 60 --output "$file" "${1}Release.key" ||
      fail "Cannot fetch packages from $1" "$KIT_FETCH_FIX"
    GNUPGHOME=$2 gpg --batch --quiet --show-keys --with-colons "$file" 2>/dev/null | grep -q "^fpr:*$community_fingerprint:" ||
      fail "Cannot trust the packages of $1: its key is not $community_fingerprint" 'if the community has announced another key, name its file: KATESKIT_KUBERNETES_REPOSITORY_KEY=/path/Release.key'
    key=$file
  fi
  if grep -q 'BEGIN PGP PUBLIC KEY' "$key"; then cp "$key" "$2/key.asc"; else cp "$key" "$2/key.gpg"; fi
}

# choose_package <apt folder> <package> <v1.33 or v1.33.4>: the newest Debian version of it there.
choose_package() {
  local found
  # "package | version | repository", newest first.
  found=$(APT_CONFIG=$1/apt.conf apt-cache madison "$2" | awk -v want="${3#v}" '
    { version = $3 }
    index(version, want ".") == 1 || index(version, want "-") == 1 || version == want { print version; exit }')
  [ -n "$found" ] || fail "Cannot find $2 $3 in the Kubernetes repository" "it has $(APT_CONFIG=$1/apt.conf apt-cache madison kubeadm | awk '{ print "v" $3 }' | head -n 5 | paste -sd' '); see kubernetes/version and kubernetes/repository"
  echo "$found"
}
