# What the kernel command line says (docs/ports-and-endpoints.md, docs/disk.md), read without ever evaluating it.
# shellcheck shell=dash

# read_parameters FILE: sets and exports KIT_URL, KIT_MAC, … from a kernel command line; of two values the last counts,
# as the kernel has it. Keys that are not listed here are somebody else's.
read_parameters() {
  local word
  KIT_PLAN=live KIT_URL='' KIT_TLS='' KIT_CA='' KIT_MAC='' KIT_BOOT='' KIT_IMAGE='' KIT_BUNDLE='' KIT_HOSTNAME='' KIT_TIME=''
  KIT_SLOT='' KIT_ROOT_HASH='' KIT_ROOT_SHA256='' KIT_ROOT_SIZE=''
  while IFS= read -r word; do
    case "$word" in
      kit.plan=*) KIT_PLAN="${word#*=}" ;;
      kit.url=*) KIT_URL="${word#*=}" ;;
      kit.tls=*) KIT_TLS="${word#*=}" ;;
      kit.ca=*) KIT_CA="${word#*=}" ;;
      kit.mac=*) KIT_MAC="${word#*=}" ;;
      kit.boot=*) KIT_BOOT="${word#*=}" ;;
      kit.image=*) KIT_IMAGE="${word#*=}" ;;
      kit.slot=*) KIT_SLOT="${word#*=}" ;;
      kit.root-hash=*) KIT_ROOT_HASH="${word#*=}" ;;
      kit.root-sha256=*) KIT_ROOT_SHA256="${word#*=}" ;;
      kit.root-size=*) KIT_ROOT_SIZE="${word#*=}" ;;
      kit.bundle=*) KIT_BUNDLE="${word#*=}" ;;
      kit.time=*) KIT_TIME="${word#*=}" ;;
      systemd.hostname=*) KIT_HOSTNAME="${word#*=}" ;;
    esac
  done <<WORDS
$(tr -s '[:space:]' '\n' <"$1")
WORDS
  export KIT_PLAN KIT_URL KIT_TLS KIT_CA KIT_MAC KIT_BOOT KIT_IMAGE KIT_BUNDLE KIT_HOSTNAME KIT_TIME
  export KIT_SLOT KIT_ROOT_HASH KIT_ROOT_SHA256 KIT_ROOT_SIZE
}

# check_parameters: every problem at once, one a line, on standard output; status 1 when there is one.
# After it, each value is safe in a path, a URL and an environment file.
check_parameters() {
  local host='([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])' sha256='[0-9a-f]{64}' size='[1-9][0-9]{0,14}'
  local id='[A-Za-z0-9_-]{1,128}' bad=0
  check_value kit.plan "$KIT_PLAN" 'live|install|powerwash|powerwash-all|disk' || bad=1
  check_value kit.url "$KIT_URL" "http://$host(:[0-9]{1,5})?" || bad=1
  check_value kit.tls "$KIT_TLS" "https://$host(:[0-9]{1,5})?" || bad=1
  check_value kit.ca "$KIT_CA" "$sha256" || bad=1
  check_value kit.mac "$KIT_MAC" '[0-9a-f]{2}(-[0-9a-f]{2}){5}' || bad=1
  check_value kit.image "$KIT_IMAGE" '[A-Za-z0-9][A-Za-z0-9.+~_-]{0,127}' || bad=1
  case "$KIT_PLAN" in
    disk)
      check_value kit.slot "$KIT_SLOT" '[ab]' || bad=1
      check_value kit.root-hash "$KIT_ROOT_HASH" "$sha256" || bad=1
      check_value kit.root-size "$KIT_ROOT_SIZE" "$size" || bad=1
      ;;
    live)
      check_value kit.root-sha256 "$KIT_ROOT_SHA256" "$sha256" || bad=1
      check_value kit.root-size "$KIT_ROOT_SIZE" "$size" || bad=1
      ;;
  esac
  if [ "$KIT_PLAN" != disk ]; then
    check_value kit.boot "$KIT_BOOT" "$id" || bad=1
    check_value kit.bundle "$KIT_BUNDLE" "$sha256" || bad=1
  else
    # It needs neither, but they would end up in an environment file all the same.
    [ -z "$KIT_BOOT" ] || check_value kit.boot "$KIT_BOOT" "$id" || bad=1
    [ -z "$KIT_BUNDLE" ] || check_value kit.bundle "$KIT_BUNDLE" "$sha256" || bad=1
  fi
  check_value kit.time "${KIT_TIME:-0}" '0|[1-9][0-9]{0,10}' || bad=1
  check_value systemd.hostname "${KIT_HOSTNAME:-kit}" '[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?' || bad=1
  return "$bad"
}

# check_value KEY VALUE REGEX
check_value() {
  if [ -z "$2" ]; then
    echo "Cannot boot: the kernel command line has no $1"
    return 1
  fi
  printf '%s\n' "$2" | grep -Eqx -- "$3" && return 0
  echo "Cannot boot: $1 on the kernel command line is $2"
  return 1
}
