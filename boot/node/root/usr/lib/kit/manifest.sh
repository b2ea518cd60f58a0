# The signed manifest of an image: whether this machine may use it, and what it says. Shared by the initrd and the agent.
# shellcheck shell=dash
# shellcheck disable=SC2034 # the MANIFEST_ values are for those who asked

# verify_manifest FILE SIGNATURE KEY [EPOCH_FILE] [VERSION]: status 1 with the reason on standard error unless this machine may
# use the image. Sets MANIFEST_VERSION, _ARCH, _EPOCH, _SIGNED, _EXPIRES, _ROOT_HASH, _ROOT_SIZE and MANIFEST_FILES (a line
# `name bytes sha256` each). Nothing of the file is looked at before its signature has been verified.
verify_manifest() {
  forget_manifest
  check_signature "$1" "$2" "$3" && read_manifest "$1" && check_manifest_values && check_manifest_use "${4:-}" "${5:-}"
}

forget_manifest() {
  MANIFEST_VERSION='' MANIFEST_ARCH='' MANIFEST_EPOCH='' MANIFEST_SIGNED='' MANIFEST_EXPIRES='' MANIFEST_ROOT_HASH=''
  MANIFEST_ROOT_SIZE='' MANIFEST_FILES=''
}

# check_signature FILE SIGNATURE KEY
check_signature() {
  local said
  [ -s "$3" ] || { refuse_manifest "this machine has no key to verify it with ($3)" || return 1; }
  [ -s "$1" ] || { refuse_manifest 'it is empty' || return 1; }
  [ -s "$2" ] || { refuse_manifest 'it is not signed' || return 1; }
  command -v signify-openbsd >/dev/null || { refuse_manifest 'there is no signify-openbsd to verify it with' || return 1; }
  said="$(signify-openbsd -V -q -p "$3" -x "$2" -m "$1" 2>&1)" && return 0
  case "$said" in
    *'wrong key'*) refuse_manifest "its signature does not belong to this server's key" ;;
    *'signature verification failed'*) refuse_manifest 'it is damaged: it is not what was signed' ;;
    *) refuse_manifest "its signature is damaged (${said:-signify says nothing})" ;;
  esac
}

refuse_manifest() {
  printf 'Cannot use the image: %s\n' "$*" >&2
  return 1
}

# read_manifest FILE
read_manifest() {
  local name value rest
  forget_manifest
  [ "$(head -n 1 "$1")" = 'kateskit-image 1' ] || { refuse_manifest 'its manifest is of a kind this machine does not know' || return 1; }
  while read -r name value rest; do
    case "$name" in
      version) MANIFEST_VERSION="$value" ;;
      arch) MANIFEST_ARCH="$value" ;;
      epoch) MANIFEST_EPOCH="$value" ;;
      signed) MANIFEST_SIGNED="$value" ;;
      expires) MANIFEST_EXPIRES="$value" ;;
      root-hash) MANIFEST_ROOT_HASH="$value" ;;
      file)
        MANIFEST_FILES="$MANIFEST_FILES$value $rest
"
        ;;
    esac
  done <"$1"
  MANIFEST_ROOT_SIZE="$(manifest_size root.squashfs)"
}

# manifest_size NAME, manifest_sha256 NAME: of one of the image's files, or nothing.
manifest_size() {
  printf '%s' "$MANIFEST_FILES" | awk -v name="$1" '$1 == name { print $2; exit }'
}

manifest_sha256() {
  printf '%s' "$MANIFEST_FILES" | awk -v name="$1" '$1 == name { print $3; exit }'
}

# manifest_field FILE NAME, manifest_file FILE NAME: a value, `bytes sha256` of a file, of a manifest that was verified before:
# for a later step, which has no MANIFEST_ values.
manifest_field() {
  sed -n "s/^$2 //p" "$1" | head -n 1
}

manifest_file() {
  awk -v name="$2" '$1 == "file" && $2 == name { print $3, $4; exit }' "$1"
}

# check_manifest_values: each is of its kind, and so safe in a path, a table and a command line.
check_manifest_values() {
  local odd file
  is_like "$MANIFEST_VERSION" '[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}' version &&
    is_like "$MANIFEST_ARCH" '[a-z0-9]{1,16}' arch &&
    is_like "$MANIFEST_EPOCH" '0|[1-9][0-9]{0,8}' epoch &&
    is_like "$MANIFEST_SIGNED" '0|[1-9][0-9]{0,10}' signed &&
    is_like "$MANIFEST_EXPIRES" '0|[1-9][0-9]{0,10}' expires &&
    is_like "$MANIFEST_ROOT_HASH" '[0-9a-f]{64}' root-hash || return 1
  odd="$(printf '%s' "$MANIFEST_FILES" | grep -Evx '[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63})? (0|[1-9][0-9]{0,14}) [0-9a-f]{64}' | head -n 1)"
  [ -z "$odd" ] || { refuse_manifest "its manifest has a file that cannot be: $odd" || return 1; }
  odd="$(printf '%s' "$MANIFEST_FILES" | cut -d ' ' -f 1 | sort | uniq -d | head -n 1)"
  [ -z "$odd" ] || { refuse_manifest "its manifest names $odd twice" || return 1; }
  for file in root.squashfs root.verity vmlinuz initrd.img; do
    [ -n "$(manifest_size "$file")" ] || { refuse_manifest "its manifest names no $file" || return 1; }
  done
}

# is_like VALUE REGEX NAME
is_like() {
  printf '%s\n' "$1" | grep -Eqx -- "$2" && return 0
  refuse_manifest "its manifest has no $3 that can be: ${1:-none}"
}

# check_manifest_use EPOCH_FILE VERSION: is it for this machine, and now?
check_manifest_use() {
  local now arch ran=''
  arch="$(machine_arch)"
  now="$(date +%s)"
  [ -z "$2" ] || [ "$MANIFEST_VERSION" = "$2" ] ||
    { refuse_manifest "it is $MANIFEST_VERSION, where $2 was asked for" || return 1; }
  [ "$MANIFEST_ARCH" = "$arch" ] || { refuse_manifest "$MANIFEST_VERSION is for $MANIFEST_ARCH, this machine is $arch" || return 1; }
  [ "$now" -lt "$MANIFEST_EXPIRES" ] ||
    { refuse_manifest "$MANIFEST_VERSION expired on $(as_date "$MANIFEST_EXPIRES"), this machine's clock says $(as_date "$now")" || return 1; }
  [ -z "$1" ] || [ ! -e "$1" ] || ran="$(cat "$1")"
  case "$ran" in
    *[!0-9]*) ran='' ;;
  esac
  [ "$MANIFEST_EPOCH" -ge "${ran:-0}" ] ||
    refuse_manifest "$MANIFEST_VERSION has security epoch $MANIFEST_EPOCH, this machine has run epoch $ran"
}

# machine_arch: in Debian's words.
machine_arch() {
  case "${KIT_MACHINE:-$(uname -m)}" in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
  esac
}

as_date() {
  date -u -d "@$1" +%Y-%m-%d
}
