# Reads packages.txt: which packages are asked for, which are removed again, and which are explained.
# shellcheck shell=bash

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
