#!/usr/bin/env bash
# digest.sh [base|image]: the sha256 of everything that decides what is built. `base` is the Debian tree alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# One line per file: path, executable or not, content. Tests and pages do not change what is built.
list_inputs() {
  local file kind
  cd "$project_dir"
  find "$@" \( -type f -o -type l \) ! -name '*.bats' ! -name '*.md' ! -name '*.test.*' -print0 | LC_ALL=C sort -z |
    while IFS= read -r -d '' file; do
      if [ -L "$file" ]; then
        printf '%s link %s\n' "$file" "$(readlink "$file")"
      else
        kind=plain
        [ ! -x "$file" ] || kind=executable
        printf '%s %s %s\n' "$file" "$kind" "$(sha256sum <"$file")"
      fi
    done
}

kernel=$(image_kernel)
{
  echo "$image_arch $kernel"
  case ${1:-image} in
    base) list_inputs assets/image/{base.sh,base-hook.sh,packages.sh,packages.txt,source-date-epoch} ;;
    image) list_inputs assets/image boot/initrd boot/node ;;
    *) fail "Cannot print the digest of '$1'" "say 'base' or 'image'" ;;
  esac
} | sha256sum | cut -d' ' -f1
