#!/usr/bin/env bash
# digest.sh [base|image]: the sha256 of everything that decides what is built. `base` is the Debian tree alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=assets/image/kubernetes.sh
. "$KIT_RECIPE/kubernetes.sh"
# shellcheck source=assets/image/inputs.sh
. "$KIT_RECIPE/inputs.sh"

case ${1:-image} in
  base | image) recipe_digest "${1:-image}" "$KIT_PROJECT" ;;
  *) fail "Cannot print the digest of '$1'" "say 'base' or 'image'" ;;
esac
