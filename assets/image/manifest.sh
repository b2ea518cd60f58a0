# manifest.json: what is in the image, in sizes, digests and package versions. The same inputs give the same bytes.
# shellcheck shell=bash

# write_manifest <root tree> <image folder> <version> <recipe digest>
write_manifest() {
  local root=$1 image=$2
  {
    printf '{\n  "version": "%s",\n  "arch": "%s",\n' "$3" "$KIT_ARCH"
    printf '  "recipeDigest": "%s",\n  "sourceDateEpoch": %s,\n' "$4" "$SOURCE_DATE_EPOCH"
    printf '  "epoch": %d,\n' "$(<"$KIT_RECIPE/epoch")"
    printf '  "kernel": "%s",\n' "$(ls "$root/usr/lib/modules")"
    printf '  "rootHash": "%s",\n' "$(<"$KIT_WORK/root-hash")"
    [ -z "$kubernetes_version" ] || printf '  "kubernetes": { "version": "%s", "cri": "%s", "ociRuntime": "%s" },\n' \
      "$kubernetes_version" "$(kubernetes_cri)" "$(kubernetes_oci_runtime)"
    printf '  "files": [\n'
    list_files "$image" | join_lines
    printf '  ],\n  "packages": [\n'
    list_packages "$root" | join_lines
    printf '  ]\n}\n'
  } >"$KIT_WORK/manifest.json"
  mv "$KIT_WORK/manifest.json" "$image/manifest.json"
}

list_files() {
  local name
  (cd "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort) | while IFS= read -r name; do
    printf '{ "name": "%s", "sizeBytes": %s, "sha256": "%s" }\n' \
      "$name" "$(stat -c %s "$1/$name")" "$(sha256sum <"$1/$name" | cut -d' ' -f1)"
  done
}

# Names and versions are made of [a-z0-9.+:~-] (Debian policy 5.6.1, 5.6.12): nothing in them needs escaping.
list_packages() {
  {
    dpkg-query --admindir="$1/var/lib/dpkg" -W -f '${Package} ${Version}\n'
    cat "$KIT_WORK/loaders.txt"
  } | LC_ALL=C sort | awk '{ printf "{ \"name\": \"%s\", \"version\": \"%s\" }\n", $1, $2 }'
}

# One JSON value a line in, the same indented and with commas between out.
join_lines() {
  awk 'NR > 1 { print "    " line "," } { line = $0 } END { if (NR) print "    " line }'
}
