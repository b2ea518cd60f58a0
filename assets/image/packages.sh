# Reads packages.txt: which packages are asked for, which are removed again, and which are explained.
# shellcheck shell=bash

# debs_folder: the archives of the last build of this kind; each kind forgets what it used no more.
debs_folder() {
  if has_kubernetes; then echo "$KIT_CACHE/debs-kubernetes"; else echo "$KIT_CACHE/debs"; fi
}

# packages_in <section…>: the names in these sections, in the file's order.
packages_in() {
  local section
  for section in "$@"; do
    awk -v want="[$section]" '
      /^[[:space:]]*(#|$)/ { next }
      /^\[/ { inside = ($0 == want); next }
      inside { print $1 }
    ' "$KIT_RECIPE/packages.txt"
  done
}
