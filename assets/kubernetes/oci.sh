# Container images as OCI image archives: one layer, and the same bytes for the same files.
# shellcheck shell=bash

# write_oci <tree> <archive> <reference> <entry point or nothing>: the tree becomes the image's only layer.
write_oci() {
  local tree=$1 archive=$2 reference=$3 entry=$4 folder diff_id layer config manifest
  folder=$(mktemp -d "$KIT_WORK/oci.XXXXXX")
  mkdir -p "$folder/blobs/sha256"
  tar --create --file="$folder/layer" --directory="$tree" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" --mode='u=rwX,go=rX' .
  diff_id=$(digest_of "$folder/layer")
  # Unpacked by machines that are slow to (zstd): a third of gzip's time, and smaller.
  zstd -q -12 -T2 --rm "$folder/layer" -o "$folder/layer.zst"
  layer=$(keep_blob "$folder" layer.zst)
  printf '{"architecture":"%s","os":"linux","created":"%s","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$KIT_ARCH" "$(oci_date)" "${entry:+,\"Entrypoint\":[\"$entry\"]}" "$diff_id" >"$folder/config"
  config=$(keep_blob "$folder" config)
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$(describe_blob "$folder" application/vnd.oci.image.config.v1+json "$config")" \
    "$(describe_blob "$folder" application/vnd.oci.image.layer.v1.tar+zstd "$layer")" >"$folder/manifest"
  manifest=$(keep_blob "$folder" manifest)
  # Both annotations: containerd takes the name from its own, everybody else from OCI's.
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' \
    "$(describe_blob "$folder" application/vnd.oci.image.manifest.v1+json "$manifest" "$reference")" >"$folder/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$folder/oci-layout"
  tar --create --file="$archive" --directory="$folder" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" --mode='u=rwX,go=rX' blobs index.json oci-layout
  rm -r "$folder"
}

digest_of() {
  sha256sum <"$1" | cut -d' ' -f1
}

# keep_blob <layout> <file in it>: moves it to its place, and prints its digest.
keep_blob() {
  local digest
  digest=$(digest_of "$1/$2")
  mv "$1/$2" "$1/blobs/sha256/$digest"
  echo "$digest"
}

# describe_blob <layout> <media type> <digest> [<reference>]
describe_blob() {
  local size more=
  size=$(stat -c %s "$1/blobs/sha256/$3")
  if [ $# -gt 3 ]; then
    more=$(printf ',"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}' "$KIT_ARCH" "$4" "$4")
  fi
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' "$2" "$3" "$size" "$more"
}

oci_date() {
  date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ
}
