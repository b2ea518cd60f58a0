#!/usr/bin/env bats
# Signed manifests: which are refused, and in which words.

load slots.bash

setup_file() {
  make_applets
  command -v signify-openbsd >/dev/null || skip 'signify-openbsd is not here'
  signify-openbsd -G -n -p "$BATS_FILE_TMPDIR/key.pub" -s "$BATS_FILE_TMPDIR/key.sec"
  signify-openbsd -G -n -p "$BATS_FILE_TMPDIR/other.pub" -s "$BATS_FILE_TMPDIR/other.sec"
}

H="$(printf '0123456789abcdef%.0s' {1..4})"
GOOD="kateskit-image 1
version 2025.11.1+x
arch amd64
epoch 2
signed 1700000000
expires 9999999999
root-hash $H
file root.squashfs 204800 $H
file root.verity 8192 $H
file vmlinuz 10 $H
file initrd.img 20 $H"

# manifest TEXT: signed in the machine's folder.
manifest() {
  printf '%s\n' "$1" >"$MACHINE/manifest"
  signify-openbsd -S -s "$BATS_FILE_TMPDIR/key.sec" -m "$MACHINE/manifest" -x "$MACHINE/manifest.sig"
  cp "$BATS_FILE_TMPDIR"/*.pub "$MACHINE"
  # Both shells find it, whatever their PATH is.
  ln -s "$(command -v signify-openbsd)" "$MACHINE/bin/signify-openbsd"
}

verify='cd "$MACHINE"; KIT_MACHINE=x86_64; verify_manifest manifest manifest.sig key.pub'

@test "verify_manifest() sets what the manifest says when it is good" {
  prepare() { manifest "$GOOD
unknown line of a later server" && echo 2 >"$MACHINE/epoch"; }
  on_machine uefi "$verify epoch 2025.11.1+x; echo \$MANIFEST_VERSION \$MANIFEST_ARCH \$MANIFEST_EPOCH \$MANIFEST_EXPIRES \$MANIFEST_ROOT_HASH \$MANIFEST_ROOT_SIZE
    manifest_size vmlinuz; manifest_sha256 initrd.img; manifest_file manifest root.verity; manifest_field manifest version"
  [ "$output" = "2025.11.1+x amd64 2 9999999999 $H 204800
10
$H
8192 $H
2025.11.1+x" ]
}

@test "verify_manifest() tells apart what is wrong with the signature" {
  while IFS='|' read -r damage wanted; do
    prepare() { manifest "$GOOD" && (cd "$MACHINE" && eval "$damage"); }
    on_machine uefi "$verify 2>&1 && echo accepted; echo \"[\$MANIFEST_VERSION]\""
    [ "$output" = "Cannot use the image: $wanted
[]" ] || { echo "$damage gave $output" && false; }
  done <<'TABLE'
rm manifest.sig|it is not signed
: >manifest.sig|it is not signed
: >manifest|it is empty
rm key.pub|this machine has no key to verify it with (key.pub)
cp other.pub key.pub|its signature does not belong to this server's key
sed -i s/2025/2026/ manifest|it is damaged: it is not what was signed
echo >>manifest|it is damaged: it is not what was signed
echo nonsense >manifest.sig|its signature is damaged (signify-openbsd: invalid comment in manifest.sig; must start with 'untrusted comment: ')
TABLE
}

@test "verify_manifest() refuses what is not for this machine, or not for now, each in its own words" {
  today="$(date -u +%Y-%m-%d)"
  while IFS='|' read -r change more wanted; do
    prepare() { manifest "$(sed "$change" <<<"$GOOD")" && echo 3 >"$MACHINE/epoch"; }
    on_machine uefi "$verify $more 2>&1"
    [ "$status" -eq 1 ]
    wanted="${wanted//TODAY/$today}"
    [ "$output" = "Cannot use the image: ${wanted//HASH/$H}" ] || { echo "$change gave $output" && false; }
  done <<'TABLE'
s/^arch .*/arch arm64/||2025.11.1+x is for arm64, this machine is amd64
s/^expires .*/expires 1000000000/||2025.11.1+x expired on 2001-09-09, this machine's clock says TODAY
|epoch|2025.11.1+x has security epoch 2, this machine has run epoch 3
|'' 2025.12.1|it is 2025.11.1+x, where 2025.12.1 was asked for
s/^kateskit-image 1/kateskit-image 2/||its manifest is of a kind this machine does not know
s/^version .*/version ..\/x/||its manifest has no version that can be: ../x
/^epoch/d||its manifest has no epoch that can be: none
s/^epoch .*/epoch 1e3/||its manifest has no epoch that can be: 1e3
s/^expires .*/expires $(touch pwned)/||its manifest has no expires that can be: $(touch
s/^root-hash .*/root-hash 12ab/||its manifest has no root-hash that can be: 12ab
/^file vmlinuz/d||its manifest names no vmlinuz
s/^file vmlinuz 10/file vmlinuz -10/||its manifest has a file that cannot be: vmlinuz -10 HASH
s/^file vmlinuz /file ..\/vmlinuz /||its manifest has a file that cannot be: ../vmlinuz 10 HASH
s/^file vmlinuz /file initrd.img /||its manifest names initrd.img twice
TABLE
}
