# The operations that the simulator cuts: the real functions, with fetching that copies from a folder. Run by dash as
# `operations.sh OPERATION`; SIM_IMAGES has a folder per image version, SIM_BUNDLES one per digest.
# shellcheck shell=dash
set -u

for part in disk slots loader loader-uefi loader-bios manifest slot-write stage; do
  # shellcheck source=/dev/null
  . "$SIM_LIB/$part.sh"
done
export KIT_URL=http://10.77.0.1:8080 KIT_MAC=52-54-00-12-34-56
bundle_1='1111111111111111111111111111111111111111111111111111111111111111'
bundle_2='2222222222222222222222222222222222222222222222222222222222222222'

# use_image VERSION: what verify_manifest would set.
use_image() {
  SIM_VERSION="$1"
  read_manifest "$SIM_IMAGES/$1/manifest" && check_manifest_values
}

# In two halves, so that a cut can come between them.
# shellcheck disable=SC2317
fetch_root() {
  dd if="$SIM_IMAGES/$SIM_VERSION/root.squashfs" of="$1" bs=4096 count=8 conv=notrunc 2>/dev/null &&
    dd if="$SIM_IMAGES/$SIM_VERSION/root.squashfs" of="$1" bs=4096 skip=8 seek=8 conv=notrunc 2>/dev/null
}

# shellcheck disable=SC2317
fetch_part() {
  dd if="$SIM_IMAGES/$SIM_VERSION/$1" of="$2" bs=4096 count=1 conv=notrunc 2>/dev/null &&
    dd if="$SIM_IMAGES/$SIM_VERSION/$1" of="$2" bs=4096 skip=1 seek=1 conv=notrunc 2>/dev/null
}

# shellcheck disable=SC2317
fetch_bundle_into() {
  # shellcheck disable=SC2153 # the folder of all of them
  mkdir "$1/etc" && cp "$SIM_BUNDLES/$SIM_BUNDLE/etc/one" "$1/etc/one" && cp "$SIM_BUNDLES/$SIM_BUNDLE/etc/two" "$1/etc/two"
}

# install_image SLOT VERSION BUNDLE TRIES
install_image() {
  use_image "$2" && SIM_BUNDLE="$3" && write_slot "$1" "$3" 'kit.url=http://10.77.0.1:8080 console=ttyS0' && loader_offer "$1" "$4"
}

case "$1" in
  install)
    # As 43-slot does it.
    use_image 1 && SIM_BUNDLE="$bundle_1" && write_slot a "$bundle_1" 'kit.url=http://10.77.0.1:8080 console=ttyS0' &&
      install_loaders "$SIM_ROOT" vda && loader_offer a 3
    ;;
  bless-a) loader_bless a ;;
  bless-b) loader_bless b ;;
  update) install_image b 2 "$bundle_2" 3 ;;
  update-back) install_image a 3 "$bundle_1" 3 ;;
  condemn-b) loader_condemn b 'it did not get up' ;;
  condemn-a) loader_condemn a 'it did not get up' ;;
  switch-to-a) loader_offer a 0 ;;
  network) loader_network_once ;;
  bundle)
    # As change.sh does it.
    SIM_BUNDLE="$bundle_2"
    lay_bundle "$bundle_2" && set_slot_fields a bundle "$bundle_2"
    ;;
  restage)
    use_image 2
    # shellcheck disable=SC2034 # stage.sh's
    STAGE_DISK=vda WANTED_BUNDLE="$bundle_1" WANTED_ARGUMENTS='kit.url=http://10.77.0.1:8080' SIM_BUNDLE="$bundle_1"
    restage b && loader_offer b 3
    ;;
  powerwash)
    loader_forget a && loader_forget b && "$SIM_NEW_OVERLAY" && install_image a 2 "$bundle_1" 3
    ;;
esac
