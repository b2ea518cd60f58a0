# What every part of the image build shares: settings, messages, progress, and children that end with us.
# shellcheck shell=bash

KIT_RECIPE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KIT_PROJECT=$(cd "$KIT_RECIPE/../.." && pwd)
KIT_CONFIG=$KIT_PROJECT/config
KIT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit
# Debian's word for what is built. Other architectures wait for their kernel and loader lists.
KIT_ARCH=amd64
export KIT_RECIPE KIT_PROJECT KIT_CONFIG KIT_CACHE KIT_ARCH

# A mirror's Valid-Until and the clock of the machine play no part in what is built; this date does.
SOURCE_DATE_EPOCH=$(<"$KIT_RECIPE/source-date-epoch")
export SOURCE_DATE_EPOCH LC_ALL=C.UTF-8 TZ=UTC
umask 022

# Each part of the build is given this much of the bar; `progress` maps its 0–100 into it.
progress_from=0
progress_to=100
# A build that is a part of another one has this much of that one's bar.
read -r span_from span_to <<<"${KIT_PROGRESS_SPAN:-0 100}"
have_progress=no
if { true >&3; } 2>/dev/null; then have_progress=yes; fi

# "progress <percent> <text>" on file descriptor 3 when someone listens there; the text for people goes to stderr.
progress() {
  local percent=$((progress_from + $1 * (progress_to - progress_from) / 100))
  percent=$((span_from + percent * (span_to - span_from) / 100))
  shift
  if [ "$have_progress" = yes ]; then
    printf 'progress %d %s\n' "$percent" "$*" >&3 || true
  else
    printf '%3d %%  %s\n' "$percent" "$*" >&2
  fi
}

progress_range() {
  progress_from=$1
  progress_to=$2
}

# fail <message> [<what mends it>]
fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '  fix: %s\n' "$2" >&2
  exit 1
}

# setting <name> <default>: of image/….
setting() {
  setting_in image "$@"
}

# setting_in <folder> <name> <default>: the same three places as every server setting, in the same order.
setting_in() {
  local variable file
  variable=KATESKIT_$(printf '%s_%s' "$1" "$2" | tr a-z- A-Z_)
  file=${variable}_FILE
  if [ -n "${!variable:-}" ]; then
    printf '%s\n' "${!variable}"
  elif [ -n "${!file:-}" ]; then
    cat -- "${!file}" || fail "Cannot read the setting $1/$2: ${!file}"
  elif [ -f "$KIT_CONFIG/$1/$2" ]; then
    cat -- "$KIT_CONFIG/$1/$2"
  else
    printf '%s\n' "$3"
  fi
}

# The words of a list file (first column), without comments.
list_column() {
  awk '!/^[[:space:]]*(#|$)/ { print $1 }' "$1"
}

image_kernel() {
  local kernel
  kernel=$(setting kernel generic)
  case $kernel in
    generic) echo linux-image-amd64 ;;
    cloud) echo linux-image-cloud-amd64 ;;
    *) fail "Cannot use the kernel '$kernel' (setting image/kernel)" "say 'generic' (any hardware) or 'cloud' (virtual machines only)" ;;
  esac
}

# Where the image's Kubernetes comes from (assets/kubernetes): `none` for an image without.
kubernetes_source() {
  setting_in kubernetes source none
}

# The lists in kernel-modules/ are written for the generic kernel, where a name that is not there is a mistake. The cloud
# kernel has some of them.
lists_are_exact() {
  [ "$(image_kernel)" = linux-image-amd64 ]
}

# forget_old <folder> <how many to keep> <this one too>: every edit makes an image of 100 MB; the newest stay, and whatever
# is younger than a day, which a running server may be handing out to machines that started by it.
forget_old() {
  local name
  find "$1" -mindepth 1 -maxdepth 1 ! -name "$3" -printf '%T@ %f\n' | sort -rn | tail -n "+$2" |
    while read -r _ name; do
      [ -z "$(find "$1/$name" -maxdepth 0 -mmin +1440)" ] || rm -rf -- "${1:?}/$name"
    done
}

# isolated <command…>: runs it in its own process and mount namespaces, so that killing it (or us) ends everything it
# started and drops everything it mounted. The shell waits with `wait`, which a signal interrupts at once.
isolated() {
  local status=0
  nice setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$@" 9>&- &
  isolated_pid=$!
  wait "$isolated_pid" || status=$?
  isolated_pid=
  return "$status"
}

isolated_pid=
stop_isolated() {
  [ -n "$isolated_pid" ] || return 0
  kill -KILL "$isolated_pid" 2>/dev/null || true
  wait "$isolated_pid" 2>/dev/null || true
}
