# The machine's key in its TPM 2.0 (docs/security.md, "The TPM"). A part of identity.sh.
# shellcheck shell=dash

# The kernel's resource manager, never the bare device: others may use the TPM too. Tests name another.
: "${KIT_DEV:=/dev}" "${KIT_TCTI:=device:/dev/tpmrm0}"

has_tpm() {
  [ -e "$KIT_DEV/tpmrm0" ]
}
