# Level one: the Debian tree as a tar, by mmdebstrap from one package source, with the loaders in /.kit-build.
# shellcheck shell=bash

# make_base <work folder> <tar to make>
make_base() {
  local work=$1 base=$2 log=$1/mmdebstrap.log include sources_text status=0 follower
  local -a sources=() sections=()
  mapfile -t sections < <(kubernetes_sections)
  include=$(packages_in image "image $(setting kernel generic)" "${sections[@]}" | paste -sd,)
  sources_text=$(package_sources)
  [ -z "$sources_text" ] || mapfile -t sources <<<"$sources_text"
  exec 8> >(follow_mmdebstrap "$log")
  follower=$!
  # initramfs-tools- ("not this one") keeps Debian from making an initrd nobody boots.
  # Archives stay in the cache (KIT_DEBS): the next build of the same versions downloads nothing.
  KIT_DEBS=$(debs_folder)
  KIT_REMOVE=$({ kubernetes_removed && packages_in 'removed after set-up'; } | paste -sd' ')
  KIT_LOADERS=$(packages_in loaders)
  export KIT_DEBS KIT_REMOVE KIT_LOADERS
  # It passes descriptors on by their numbers through sh, and dash knows only 0 to 9: trixie's mmdebstrap 1.5.7 comes to
  # 10 when ours are open too.
  TMPDIR=$work isolated mmdebstrap --variant=essential --mode=root \
    --skip=check/empty,download/empty,essential/unlink \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='Acquire::Retries "3"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/bash-completion/*' --dpkgopt='path-exclude=/usr/share/zsh/*' \
    --dpkgopt='path-exclude=/usr/lib/udev/hwdb.d/*' \
    --include="$include,initramfs-tools-" \
    --setup-hook="'$KIT_RECIPE/base-hook.sh' debs-in \"\$1\"" \
    --customize-hook="'$KIT_RECIPE/base-hook.sh' loaders \"\$1\"" \
    --customize-hook="'$KIT_RECIPE/base-hook.sh' debs-out \"\$1\"" \
    --customize-hook="'$KIT_RECIPE/base-hook.sh' remove \"\$1\"" \
    trixie "$work/base.tar" "${sources[@]}" 2>&8 3>&- 8>&- || status=$?
  exec 8>&-
  wait "$follower" || true # the log is complete now
  [ "$status" = 0 ] || explain_mmdebstrap "$log"
  progress 92 'storing the Debian tree'
  zstd -q -3 -T0 --rm "$work/base.tar" -o "$work/base.tar.zst"
  # A name in bases/ is believed: its bytes are to be on the disk before it is.
  sync "$work/base.tar.zst"
  mv -- "$work/base.tar.zst" "$base"
}

# One apt source a line; nothing for the official archive, which mmdebstrap knows by itself.
package_sources() {
  local mirror
  mirror=$(setting mirror '')
  mirror=${mirror#file://}
  case $mirror in
    '') ;;
    /*)
      [ -d "$mirror" ] || fail "Cannot use the mirror folder $mirror (setting image/mirror): there is no such folder"
      # copy: apt takes the file as it would a download, so nothing has to be mounted into the tree.
      if [ -d "$mirror/dists/trixie" ]; then
        # A mirror of the real archive keeps its signature, and it is checked.
        [ -f "$mirror/dists/trixie/InRelease" ] && echo "deb copy:$mirror trixie main" ||
          echo "deb [trusted=yes] copy:$mirror trixie main"
      elif [ -f "$mirror/Packages" ] || [ -f "$mirror/Packages.gz" ] || [ -f "$mirror/Packages.xz" ]; then
        # Made by mirror.sh on this machine: nobody signs it, whoever can write the folder is trusted.
        echo "deb [trusted=yes] copy:$mirror ./"
      else
        fail "Cannot use the mirror folder $mirror: neither dists/trixie nor Packages in it" "assets/image/mirror.sh $mirror"
      fi
      ;;
    *) printf '%s\n' "$mirror" ;;
  esac
}

# mmdebstrap's own phases as percent, from 54 s measured with archives to download.
follow_mmdebstrap() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$1"
    case $line in
      *'running apt-get update'*) progress 2 'reading the package lists' ;;
      *'downloading packages with apt'*) progress 12 'downloading the essential packages' ;;
      *'extracting archives'*) progress 20 'unpacking the essential packages' ;;
      *'installing essential packages'*) progress 26 'setting up the essential packages' ;;
      *'downloading'*'packages'*) progress 34 'downloading packages' ;;
      *'installing remaining packages'*) progress 40 'installing packages' ;;
      *customize-hook*base-hook.sh*loaders*) progress 76 'fetching the network boot loaders' ;;
      *customize-hook*base-hook.sh*remove*) progress 80 'removing what only set-up needed' ;;
      *'creating tarball'*) progress 84 'writing the Debian tree' ;;
    esac
  done
}

explain_mmdebstrap() {
  grep -vE '^(I:|$)' "$1" | tail -n 15 >&2 || true
  if grep -qE 'Could not resolve|Failed to fetch|Could not connect|Unable to connect|Temporary failure|Connection (refused|timed out)|Network is unreachable' "$1"; then
    fail "Cannot fetch Debian packages from $(setting mirror 'the official archive')" \
      'check the network, or name a mirror or a local mirror folder: KATESKIT_IMAGE_MIRROR=/path (docs/image.md, offline)'
  elif grep -q 'No space left' "$1"; then
    fail 'Cannot build the image: the disk is full' 'free some space, or set XDG_CACHE_HOME to a folder on another disk'
  elif grep -qE 'Unable to locate package|has no installation candidate' "$1"; then
    fail "Cannot find every package in $(setting mirror 'the official archive')" 'see the lines above; a local mirror is remade by assets/image/mirror.sh'
  fi
  fail 'Cannot build the Debian tree: mmdebstrap failed' 'see the lines above'
}
