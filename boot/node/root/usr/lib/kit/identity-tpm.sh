# The machine's key in its TPM 2.0 (docs/security.md, "The TPM"). A part of identity.sh. What the programs say goes to standard
# error, the reason first.
# shellcheck shell=dash

# The kernel's resource manager, never the bare device: others may use the TPM too. Tests name another.
: "${KIT_DEV:=/dev}" "${KIT_TCTI:=device:/dev/tpmrm0}"

# An RSA key takes some TPMs a minute; one that never answers must not hold up the machine for ever.
TPM_SECONDS=300
# TCG EK Credential Profile, 2.2.1.4: the certificate of the RSA 2048 endorsement key.
EK_CERTIFICATE_INDEX=0x01c00002
# What tpm2-openssl makes of the owner hierarchy by itself, when it loads a key (src/tpm2-provider-x509… "primary template").
PARENT_ATTRIBUTES='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda'
# noda: it has no password, so that nobody's wrong guesses at other keys can lock it.
KEY_ATTRIBUTES='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda'

has_tpm() {
  [ -e "$KIT_DEV/tpmrm0" ]
}

tpm() {
  TPM2TOOLS_TCTI="$KIT_TCTI" TSS2_LOG=all+NONE timeout "$TPM_SECONDS" tpm2 "$@"
}

# with_tpm PROGRAM ARGUMENT…: openssl or curl, which then know keys in the TPM.
with_tpm() {
  OPENSSL_CONF="$KIT_IDENTITY/openssl.cnf" TPM2OPENSSL_TCTI="$KIT_TCTI" TSS2_LOG=all+NONE timeout "$TPM_SECONDS" "$@"
}

# with_key PROGRAM ARGUMENT…: the same if the machine's key is there.
with_key() {
  if [ -e "$KIT_IDENTITY/openssl.cnf" ]; then with_tpm "$@"; else "$@"; fi
}

# make_tpm_key: key.pem, key.public, key.private, ek.public, and ek.certificate where the TPM has one.
make_tpm_key() {
  local work="$KIT_IDENTITY/tpm" status=0
  make_tpm_folder "$work" || return 1
  (
    umask 077
    tpm createek -Q -c "$work/ek.ctx" -G rsa -u "$KIT_IDENTITY/ek.public" || exit 1
    read_ek_certificate "$work/nv" "$KIT_IDENTITY/ek.certificate"
    make_parent "$work/parent.ctx" &&
      tpm create -Q -C "$work/parent.ctx" -G rsa2048 -g sha256 -a "$KEY_ATTRIBUTES" \
        -u "$KIT_IDENTITY/key.public" -r "$KIT_IDENTITY/key.private" &&
      write_tpm_key "$work" && write_tpm_conf && key_works
  ) || status=1
  # tpm2-tools make their files with 0660, whatever the umask.
  chmod 0600 "$KIT_IDENTITY"/*.public "$KIT_IDENTITY"/*.private 2>/dev/null || true
  rm -rf "$work"
  return "$status"
}

make_tpm_folder() {
  rm -rf "$1" && mkdir -m 0700 "$1"
}

make_parent() {
  tpm createprimary -Q -C o -G ecc -g sha256 -a "$PARENT_ATTRIBUTES" -c "$1"
}

# read_ek_certificate FILE TARGET: DER; TARGET is not there when the TPM has none. The place may be longer than what is in it:
# the length is that of the outer SEQUENCE (X.690 §8.1.3), in two bytes for all that a certificate can be.
read_ek_certificate() {
  local length
  rm -f "$2"
  tpm nvread -Q -o "$1" "$EK_CERTIFICATE_INDEX" 2>/dev/null || return 0
  # shellcheck disable=SC2046 # four numbers
  set -- "$1" "$2" $(od -An -N4 -t u1 "$1")
  if [ "${3:-}" != 48 ] || [ "${4:-}" != 130 ]; then return 0; fi
  length=$(($5 * 256 + $6 + 4))
  head -c "$length" "$1" >"$2"
}

# write_tpm_key FOLDER: key.pem of key.public and key.private, as tpm2-openssl reads it (draft-bottomley-tpm2-keys, §3). Not by
# tpm2_encodeobject: that of tpm2-tools 5.4 says that the key has a password.
write_tpm_key() {
  local der="$1/key.der"
  cat >"$1/key.cnf" <<CONF || return 1
asn1 = SEQUENCE:key
[key]
type = OID:2.23.133.10.1.3
emptyAuth = EXPLICIT:0,BOOLEAN:TRUE
parent = INTEGER:0x40000001
public = FORMAT:HEX,OCTETSTRING:$(hex_of "$KIT_IDENTITY/key.public")
private = FORMAT:HEX,OCTETSTRING:$(hex_of "$KIT_IDENTITY/key.private")
CONF
  openssl asn1parse -genconf "$1/key.cnf" -noout -out "$der" || return 1
  {
    echo '-----BEGIN TSS2 PRIVATE KEY-----'
    openssl base64 -in "$der"
    echo '-----END TSS2 PRIVATE KEY-----'
  } >"$KIT_IDENTITY/key.pem"
}

hex_of() {
  od -An -v -t x1 "$1" | tr -d ' \n'
}

# is_tpm_key: key.pem is wrapped by a TPM.
is_tpm_key() {
  grep -q '^-----BEGIN TSS2 PRIVATE KEY-----$' "$KIT_IDENTITY/key.pem"
}

# write_tpm_conf: for everything but the machine's private key openssl itself comes first: a TPM hashes a hundred times slower.
# That the private key is asked for in the TPM all the same takes tpm2-openssl 1.2 (1.1.1 lets openssl sign without a key).
# No PSS: a TPM may make its salt as long as fits (TPM 2.0 Library, part 1, B.7), and TLS wants it as long as the hash
# (RFC 8446 §4.2.3). That leaves TLS 1.2 (tpm_curl).
write_tpm_conf() {
  cat >"$KIT_IDENTITY/openssl.cnf" <<'CONF'
openssl_conf = kit
[kit]
providers = providers
ssl_conf = tls
[providers]
default = active
tpm2 = active
[active]
activate = 1
[tls]
system_default = signatures
[signatures]
SignatureAlgorithms = RSA+SHA256:RSA+SHA384:RSA+SHA512:ECDSA+SHA256:ECDSA+SHA384
CONF
}

# tpm_claim: the member `tpm` of the request, or nothing for a key in a file.
tpm_claim() {
  [ -e "$KIT_IDENTITY/openssl.cnf" ] || return 0
  printf ',"tpm":{"ek":"%s","key":"%s"' "$(base64_of "$KIT_IDENTITY/ek.public")" "$(base64_of "$KIT_IDENTITY/key.public")"
  [ ! -s "$KIT_IDENTITY/ek.certificate" ] || printf ',"ekCertificate":"%s"' "$(base64_of "$KIT_IDENTITY/ek.certificate")"
  printf '}'
}

base64_of() {
  openssl base64 -A -in "$1"
}

# tpm_secret CREDENTIAL SECRET: what only this TPM with this key gets out of the file CREDENTIAL (TPM2_ActivateCredential).
# The endorsement key is used by its policy: the secret of the endorsement hierarchy, which is empty (EK Credential Profile, B.3.3).
tpm_secret() {
  local work="$KIT_IDENTITY/tpm" status=0
  make_tpm_folder "$work" || return 1
  (
    umask 077
    make_parent "$work/parent.ctx" &&
      tpm load -Q -C "$work/parent.ctx" -u "$KIT_IDENTITY/key.public" -r "$KIT_IDENTITY/key.private" -c "$work/key.ctx" &&
      tpm createek -Q -c "$work/ek.ctx" -G rsa -u "$work/ek.public" &&
      tpm startauthsession -Q --policy-session -S "$work/session.ctx" &&
      tpm policysecret -Q -S "$work/session.ctx" -c e || exit 1
    tpm activatecredential -Q -c "$work/key.ctx" -C "$work/ek.ctx" -i "$1" -o "$2" -P "session:$work/session.ctx" || status=1
    tpm flushcontext "$work/session.ctx" || true
    exit "$status"
  ) || status=1
  rm -rf "$work"
  return "$status"
}
