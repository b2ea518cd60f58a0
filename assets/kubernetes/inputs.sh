# What decides which Kubernetes it is: the key under which the cache keeps it.
# shellcheck shell=bash

# kubernetes_key <source> <label>: `<version as far as it is known>-<digest>`.
kubernetes_key() {
  local source_name=$1 label=$2 version digest repository key folder
  case $source_name in
    debian-source)
      [ -n "$label" ] || check_wanted "$(debian_source_version)"
      version=${label:-$(debian_source_version)}
      ;;
    packages)
      version=$(wanted_version) || exit 1
      repository=$(package_repository "$version") || exit 1
      key=$(repository_key) || exit 1
      ;;
    directory)
      version=directory
      folder=$(kubernetes_directory) || exit 1
      ;;
  esac
  digest=$({
    echo "$KIT_ARCH $source_name $version"
    case $source_name in
      debian-source) describe_recipe versions apt debian-source compile oci images manifest ;;
      packages)
        describe_recipe versions apt packages manifest
        echo "$repository"
        sha256sum <"$key"
        ;;
      directory)
        describe_recipe versions directory manifest
        describe_directory "$folder"
        ;;
    esac
  } | sha256sum)
  printf '%s-%s\n' "$version" "${digest:0:16}"
}

# describe_recipe <part…>: the content of these scripts, and of the files they work with.
describe_recipe() {
  local part
  for part in "$@"; do
    printf '%s %s\n' "$part" "$(sha256sum <"$KIT_KUBERNETES/$part.sh")"
  done
  if [[ " $* " == *' images '* ]]; then sha256sum <"$KIT_KUBERNETES/pause.c"; fi
}
