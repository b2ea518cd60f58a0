# The source `debian-source`: Debian bookworm's source package of Kubernetes, built with bookworm's Go.
# shellcheck shell=bash

# The upstream version of that source package. It is frozen but for security fixes, which keep it.
debian_source_version() {
  echo v1.20.2
}

# make_from_debian_source <result folder> <label or nothing>
make_from_debian_source() {
  local result=$1 version from=$KIT_WORK/bookworm
  version=${2:-$(debian_source_version)}
  progress_range 0 8
  progress 0 "fetching Debian's source of Kubernetes"
  mapfile -t sources < <(
    debian_sources deb bookworm
    debian_sources deb-src bookworm
  )
  open_apt "$from" "${sources[@]}"
  mkdir "$KIT_WORK/fetched"
  (cd "$KIT_WORK/fetched" && run_apt "$from" source --download-only kubernetes)
  progress 40 "fetching Debian's Go"
  (cd "$KIT_WORK/fetched" && run_apt "$from" download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev)
  progress 60 'unpacking'
  unpack_source "$KIT_WORK/fetched" "$KIT_WORK/build"
  progress_range 8 85
  compile_kubernetes "$version"
  mv "$KIT_WORK/build/programs"/* "$result/bin/"
  check_programs "$result/bin" "$version"
  source_package=$(cd "$KIT_WORK/fetched" && echo kubernetes_*.dsc)
  source_package=${source_package%.dsc}
  progress_range 85 98
  make_images "$result" "$version"
}

# unpack_source <fetched files> <build folder>: src/, and go/ with the toolchain: this machine's own Go plays no part.
unpack_source() {
  local from=$1 to=$2 archive reflect
  mkdir -p "$to/go" "$to/tmp"
  case $(echo "$from"/kubernetes_*.dsc) in
    *"+really$(debian_source_version | tr -d v)-"*) ;;
    *) fail "Cannot build $(cd "$from" && echo kubernetes_*.dsc): it is another Kubernetes than $(debian_source_version)" 'mend debian_source_version in assets/kubernetes/debian-source.sh' ;;
  esac
  # apt has compared its hash with the signed list: the developer's signature in it adds nothing, and wants another keyring.
  dpkg-source --no-check -x "$from"/kubernetes_*.dsc "$to/src" >"$KIT_WORK/unpack.log" 2>&1 ||
    fail 'Cannot unpack the source of Kubernetes: dpkg-source failed' "$(tail -n 1 "$KIT_WORK/unpack.log")"
  for archive in "$from"/*.deb; do
    dpkg-deb -x "$archive" "$to/go"
  done
  # The one in the source panics at run time with Go 1.18 and later (seen with 1.19.8); Debian's own does not.
  reflect=$to/src/vendor/github.com/modern-go/reflect2
  rm -f "$reflect"/*.go "$reflect"/*.s
  cp "$to/go/usr/share/gocode/src/github.com/modern-go/reflect2"/*.{go,s} "$reflect/"
}

# compile_kubernetes <version to link in>: makes build/programs. What Go has compiled stays in the cache: linking the same source
# under another label takes a minute or two.
compile_kubernetes() {
  local version=$1 log=$KIT_WORK/compile.log follower status=0 store=$KIT_CACHE/kubernetes-go
  mkdir -p "$store"
  progress 0 'compiling Kubernetes'
  exec 8> >(follow_compiler "$log")
  follower=$!
  isolated "$KIT_KUBERNETES/compile.sh" "$KIT_WORK/build" "$store" "$version" "$KIT_NODE_PROGRAMS $KIT_CONTROL_PLANE_PROGRAMS" >&8 2>&1 3>&- 8>&- || status=$?
  exec 8>&-
  wait "$follower" || true
  [ "$status" = 0 ] || {
    tail -n 15 "$log" >&2
    if grep -q 'No space left' "$log"; then fail 'Cannot compile Kubernetes: the disk is full' 'free some space, or set XDG_CACHE_HOME to a folder on another disk'; fi
    fail 'Cannot compile Kubernetes' 'see the lines above'
  }
}

# Go names each package as it compiles it (-v): so many of them from nothing.
packages_to_compile=2700

follow_compiler() {
  local line count=0 percent
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$1"
    case $line in
      *'Building go targets'* | '   '* | '+++'*) continue ;;
    esac
    count=$((count + 1))
    percent=$((count * 100 / packages_to_compile))
    [ $((count % 25)) != 0 ] || progress $((percent > 99 ? 99 : percent)) 'compiling Kubernetes'
  done
}
