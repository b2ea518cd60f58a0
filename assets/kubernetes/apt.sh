# apt with lists, sources and archives of its own: /etc/apt is neither read nor changed, but for how this machine reaches
# the web. Signatures are checked: of the list of packages by apt, and through it the hash of each file.
# shellcheck shell=bash

debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg

# open_apt <folder> <source line…>: and reads the lists. What follows runs with it by `APT_CONFIG=<folder>/apt.conf`.
open_apt() {
  local folder=$1
  shift
  mkdir -p "$folder"/{lists/partial,cache/archives/partial}
  : >"$folder/status"
  printf '%s\n' "$@" >"$folder/sources.list"
  {
    # APT_CONFIG is read before the machine's own files, which would add to it.
    printf 'Dir::Etc::main "/dev/null";\nDir::Etc::parts "/dev/null";\n'
    printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "/dev/null";\n' "$folder/sources.list"
    printf 'Dir::Etc::preferences "/dev/null";\nDir::Etc::preferencesparts "/dev/null";\n'
    printf 'Dir::Etc::trusted "/dev/null";\nDir::Etc::trustedparts "/dev/null";\n'
    printf 'Dir::State::lists "%s";\nDir::State::status "%s";\n' "$folder/lists" "$folder/status"
    printf 'Dir::Cache "%s";\n' "$folder/cache"
    printf 'APT::Install-Recommends "false";\nAPT::Sandbox::User "root";\nAPT::Architecture "%s";\n' "$KIT_ARCH"
    printf 'Acquire::Languages "none";\nAcquire::Check-Valid-Until "false";\nAcquire::Retries "3";\n'
    apt-config dump | grep -E '^Acquire::https?::' || true
  } >"$folder/apt.conf"
  APT_CONFIG=$folder/apt.conf apt-get -q update -o APT::Update::Error-Mode=any >"$folder/apt.log" 2>&1 </dev/null || explain_apt "$folder" "$@"
}

# run_apt <folder> <arguments of apt-get…>: in the current folder.
run_apt() {
  local folder=$1
  shift
  APT_CONFIG=$folder/apt.conf apt-get -q -y "$@" >>"$folder/apt.log" 2>&1 </dev/null || explain_apt "$folder" "$*"
}

# explain_apt <folder> <what was tried…>
explain_apt() {
  local folder=$1 where
  shift
  where=$(sed -n 's/^deb[^ ]* \(\[[^]]*\] \)\{0,1\}\([^ ]*\).*/\2/p' "$folder/sources.list" | sort -u | paste -sd' ')
  grep -E '^(E|W|Err)' "$folder/apt.log" | tail -n 8 >&2 || true
  if grep -qE 'NO_PUBKEY|BADSIG|EXPKEYSIG|is not signed|not available: |invalid signature|Missing key' "$folder/apt.log"; then
    fail "Cannot trust the packages of $where: they are not signed by the key that is known" "${KIT_KEY_FIX:-update debian-archive-keyring: apt-get install debian-archive-keyring}"
  elif grep -qE 'Could not resolve|Failed to fetch|Could not connect|Unable to connect|Temporary failure|Connection (refused|timed out)|Network is unreachable|does not have a Release file|Unable to find' "$folder/apt.log"; then
    fail "Cannot fetch packages from $where" "${KIT_FETCH_FIX:-check the network, or name a mirror: KATESKIT_IMAGE_MIRROR=<url> (docs/image.md)}"
  elif grep -q 'No space left' "$folder/apt.log"; then
    fail 'Cannot fetch packages: the disk is full' 'free some space, or set XDG_CACHE_HOME to a folder on another disk'
  fi
  fail "Cannot get packages from $where: apt-get $*" 'see the lines above'
}

# debian_sources <deb|deb-src> <suite>: the archive, or its mirror by the setting image/mirror.
debian_sources() {
  local kind=$1 suite=$2 mirror
  mirror=$(setting mirror '')
  mirror=${mirror#file://}
  case $mirror in
    '')
      printf "$kind [signed-by=$debian_keys] %s main\n" "http://deb.debian.org/debian $suite" \
        "http://deb.debian.org/debian $suite-updates" "http://security.debian.org/debian-security $suite-security"
      ;;
    http://* | https://*) echo "$kind [signed-by=$debian_keys] $mirror $suite main" ;;
    /*)
      [ -f "$mirror/dists/$suite/InRelease" ] ||
        fail "Cannot build Kubernetes from the mirror folder $mirror: it has no dists/$suite/InRelease" 'name a whole mirror of Debian, or bring binaries: KATESKIT_KUBERNETES_SOURCE=directory'
      echo "$kind [signed-by=$debian_keys] copy:$mirror $suite main"
      ;;
    *) fail "Cannot build Kubernetes from the mirror '${mirror%%$'\n'*}'" 'image/mirror must be a URL or a folder for that, not deb lines' ;;
  esac
}
