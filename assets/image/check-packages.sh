#!/usr/bin/env bash
# check-packages.sh IMAGE [PACKAGES.TXT]: fails for a package in the image that nobody explains, and for an explanation
# that is no longer true: one that names a package that is not there, or a parent that does not depend on it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

image=$1
list=${2:-$KIT_RECIPE/packages.txt}
[ -f "$image/manifest.json" ] || fail "Cannot check the packages of $image: no manifest.json in it" 'assets/image/build.sh'

# Names alone; the manifest has one package a line (manifest.sh).
installed=$(sed -n 's/.*{ "name": "\([^"]*\)", "version": .*/\1/p' "$image/manifest.json")
# "name dependency" a line, alternatives and virtual names included. Beside the image in tests, inside it otherwise.
status() {
  if [ -f "$image/status" ]; then cat "$image/status"; else unsquashfs -cat "$image/root.squashfs" var/lib/dpkg/status; fi
}
depends=$(status | awk '
  /^Package: / { name = $2 }
  /^(Pre-)?Depends: / {
    sub(/^[^:]*: /, ""); gsub(/\([^)]*\)|:any|:native/, ""); count = split($0, parts, /[,|]/)
    for (i = 1; i <= count; i++) { gsub(/ /, "", parts[i]); if (parts[i] != "") print name, parts[i] }
  }
  /^Provides: / {
    sub(/^[^:]*: /, ""); gsub(/\([^)]*\)/, ""); count = split($0, parts, /,/)
    for (i = 1; i <= count; i++) { gsub(/ /, "", parts[i]); print "provides", parts[i], name }
  }')

# What this image was made with, as packages.txt calls it in its sections.
choices=$(sed -n 's/^ *"kubernetes": { "version": "[^"]*", "cri": "\([^"]*\)", "ociRuntime": "\([^"]*\)" }.*/kubernetes \1 \2/p' "$image/manifest.json")

# is_of_image <section>: not one of those for what this image does not have.
is_of_image() {
  local choice
  case $1 in
    *' kubernetes]' | *' containerd]' | *' cri-o]' | *' runc]' | *' crun]') ;;
    *) return 0 ;;
  esac
  for choice in $choices; do
    [[ $1 != *" $choice]" ]] || return 0
  done
  return 1
}

problems=0
problem() {
  printf '%s\n' "$1"
  problems=$((problems + 1))
}

# A parent depends on the package by its name or by a name it provides.
depends_on() {
  awk -v child="$2" -v parent="$1" '
    function glob(pattern) { gsub(/[.+]/, "\\\\&", pattern); gsub(/\*/, ".*", pattern); return "^" pattern "$" }
    $1 == "provides" { if ($3 ~ glob(child)) names[$2] = 1; next }
    $1 ~ glob(parent) { wanted[$2] = 1 }
    END { for (name in wanted) if (name ~ glob(child) || name in names) exit 0; exit 1 }
  ' <<<"$depends"
}

matches() {
  local name
  for name in $installed; do
    # shellcheck disable=SC2053 # the right side is a pattern on purpose
    [[ $name != $1 ]] || return 0
  done
  return 1
}

patterns=()
section=
while read -r name rest; do
  case $name in
    '' | '#'*) continue ;;
    '['*)
      section="$name${rest:+ $rest}"
      continue
      ;;
  esac
  [ -n "$rest" ] || problem "$name: no reason in $section"
  is_of_image "$section" || continue
  case $section in
    '[removed after set-up]')
      ! matches "$name" || problem "$name: said to be removed after set-up, and still there"
      continue
      ;;
    '[image generic]' | '[image cloud]') matches "$name" || continue ;; # the other kernel
    *) matches "$name" || problem "$name: explained in $section, but not in the image" ;;
  esac
  if [[ $section == '[pulled in'* ]]; then
    depends_on "${rest%% *}" "$name" || problem "$name: said to be pulled in by ${rest%% *}, which does not depend on it"
  fi
  patterns+=("$name")
done <"$list"

for name in $installed; do
  for pattern in "${patterns[@]}"; do
    # shellcheck disable=SC2053 # a pattern on purpose here too
    [[ $name != $pattern ]] || continue 2
  done
  problem "$name: in the image, and nobody explains why (assets/image/packages.txt)"
done
[ "$problems" = 0 ] || fail "Cannot accept the image's packages: $problems problems"
