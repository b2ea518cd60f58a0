# kubernetes.json: which version, from where, and what lies beside it.
# shellcheck shell=bash

# write_kubernetes_manifest <result folder> <source> <key>: asks the programs themselves which version they are.
write_kubernetes_manifest() {
  local result=$1 version
  version=$(version_of "$result/bin")
  is_kubernetes_version "$version" || fail "Cannot use this Kubernetes: its version is '$version'"
  {
    printf '{\n  "version": "%s",\n  "source": "%s",\n  "arch": "%s",\n  "key": "%s",\n' "$version" "$2" "$KIT_ARCH" "$3"
    [ -z "${source_package:-}" ] || printf '  "sourcePackage": "%s",\n' "$source_package"
    # Nothing of the version before is in it but the name.
    [ "$2" != debian-source ] || [ "$version" = "$(debian_source_version)" ] || printf '  "labelOf": "%s",\n' "$(debian_source_version)"
    printf '  "binaries": [\n'
    list_binaries "$result/bin" | join_values
    printf '  ],\n  "images": [\n'
    list_archives "$result" | join_values
    printf '  ]\n}\n'
  } >"$KIT_WORK/kubernetes.json"
  mv "$KIT_WORK/kubernetes.json" "$result/kubernetes.json"
}

list_binaries() {
  local file
  for file in "$1"/*; do
    printf '{ "name": "%s", "sha256": "%s" }\n' "${file##*/}" "$(sha256sum <"$file" | cut -d' ' -f1)"
  done
}

# images.list: reference, tab, file, for each.
list_archives() {
  local reference file
  [ -f "$KIT_WORK/images.list" ] || return 0
  while IFS=$'\t' read -r reference file; do
    printf '{ "reference": "%s", "file": "%s", "sha256": "%s" }\n' "$reference" "$file" "$(sha256sum <"$1/$file" | cut -d' ' -f1)"
  done <"$KIT_WORK/images.list"
}

join_values() {
  awk 'NR > 1 { print "    " line "," } { line = $0 } END { if (NR) print "    " line }'
}
