# A node's grant: asking for it, what is believed of it, wiping it; and telling the server how it went. Needs api.sh, json.sh,
# kubernetes.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034,SC2153 # ASKED_WHY is for who asked; KIT_BOOT is the environment's, or the agent's

KUBE_GRANT="$KIT_RUN/grant"
KUBELET_KEY="$KIT_RUN/kubelet.key"
: "${GRANT_WAIT_SECONDS:=50}"
GRANT_LIMIT_BYTES=1048576
MESSAGE_BYTES=900

# wipe_grant: it is of no use twice, and holds keys.
wipe_grant() {
  rm -rf "$KUBE_GRANT"
}

# grant_value NAME: of its `action`.
grant_value() {
  kube_line "$KUBE_GRANT/files/action" "$1"
}

# kubelet_key: makes the key that this machine's kubelet will have, one for a boot, in memory, and prints what it is known by: the sha256 of
# its public half (SubjectPublicKeyInfo, DER). The server lets no other have a certificate, so a token that got lost is of use to nobody.
kubelet_key() {
  [ -s "$KUBELET_KEY" ] ||
    (umask 077 && openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$KUBELET_KEY.new" && mv "$KUBELET_KEY.new" "$KUBELET_KEY") || return 1
  openssl pkey -in "$KUBELET_KEY" -pubout -outform DER | sha256sum | cut -d ' ' -f 1
}

grant_body() {
  local node=none cluster address
  ! is_member || node=member
  cluster="$(etcd_cluster)"
  address="$(own_address)"
  printf '{"boot":%s,"kubernetes":%s,"node":"%s"' "$(json_string "$KIT_BOOT")" "$(json_string "$(kube_version)")" "$node"
  if [ "$node" = none ]; then
    printf ',"kubeletKey":"%s"' "$(kubelet_key)"
  else
    printf ',"nodeVersion":%s' "$(json_string "$(kube_line "$KUBE_NODE" version)")"
  fi
  [ -z "$cluster" ] || printf ',"etcd":"%s"' "$cluster"
  printf ',"address":%s}' "$(json_string "$address")"
}

# ask_grant SECONDS: asks, for so long. Sets ASKED to grant, wait, none, refused or away, and ASKED_WHY for people. A grant lies in
# KUBE_GRANT/files then.
ask_grant() {
  local status
  ASKED=away ASKED_WHY="no answer from $KIT_URL"
  wipe_grant
  (umask 077 && mkdir -p "$KUBE_GRANT/files") || return 0
  status="$(umask 077 && grant_body | ask_server -s -o "$KUBE_GRANT/answer" -w '%{http_code}' --max-filesize "$GRANT_LIMIT_BYTES" \
    --max-time $(($1 + POLL_MARGIN_SECONDS)) -H 'Content-Type: application/json' --data-binary @- "$(machine_url)/grant?wait=$1")" || status=000
  note_refusal "$status" "$KUBE_GRANT/answer"
  case "$status" in
    200) take_grant ;;
    202) ASKED=wait ASKED_WHY="$(sed -n 's/^wait //p' "$KUBE_GRANT/answer" | head -n 1 | LC_ALL=C tr -cd ' -~' | head -c 300)" ;;
    204) ASKED=none ASKED_WHY='the server says that this machine is no node' ;;
    4??) ASKED=refused ASKED_WHY="$(refusal_text "$KUBE_GRANT/answer" "$status")" ;;
  esac
  [ "$ASKED" = grant ] || wipe_grant
}

# refusal_text FILE STATUS: the server's own sentence.
refusal_text() {
  sed -n 's/.*"message": *"\([^"\\]*\)".*/\1/p' "$1" 2>/dev/null | head -n 1 | LC_ALL=C tr -cd ' -~' | grep . ||
    echo "the server refuses a grant (HTTP status $2)"
}

# take_grant: the answer, if it can be believed.
take_grant() {
  local problem
  if problem="$(unpack_grant 2>&1)" && problem="$(check_grant 2>&1)"; then
    ASKED=grant ASKED_WHY=''
  else
    ASKED=refused ASKED_WHY="$(printf '%s\n' "$problem" | tail -n 1)"
    report_node failed "$(grant_value action | grep -Ex '[a-z-]{1,20}' || echo start)" grant "$ASKED_WHY"
  fi
}

# unpack_grant: only files by the names that a grant has, and nothing but files.
unpack_grant() {
  local archive="$KUBE_GRANT/answer" odd
  odd="$(tar -tf "$archive" 2>/dev/null)" || { echo 'Cannot use the grant: it is no archive' && return 1; }
  odd="$(printf '%s\n' "$odd" | sed 's|^\./||; s|/$||' | grep -Evx 'action|kubeadm\.yaml|token\.conf|cni\.env|pki|pki/etcd|pki/(etcd/)?[a-z][a-z-]{0,40}\.(crt|key|pub)|manifests|manifests/kube-vip\.yaml|\.?' | head -n 1)"
  [ -z "$odd" ] || { echo "Cannot use the grant: it holds $(printf '%s' "$odd" | LC_ALL=C tr -cd ' -~' | head -c 100)" && return 1; }
  ! tar -tvf "$archive" 2>/dev/null | grep -qv '^[-d]' || { echo 'Cannot use the grant: it holds something else than files' && return 1; }
  (umask 077 && tar -xof "$archive" -C "$KUBE_GRANT/files" 2>/dev/null) || { echo 'Cannot unpack the grant: no room in memory' && return 1; }
  find "$KUBE_GRANT/files" -type f -exec chmod 0600 {} + && find "$KUBE_GRANT/files" -type d -exec chmod 0700 {} +
  rm -f "$archive"
}

# check_grant: is it for this machine as it is? Status 1 with the reason.
check_grant() {
  local action name version
  action="$(grant_value action)"
  name="$(grant_value name)"
  version="$(grant_value version)"
  ! LC_ALL=C grep -q '[^ -~]' "$KUBE_GRANT/files/action" || { echo 'Cannot use the grant: its action is not plain text' && return 1; }
  grant_value cluster | grep -Eqx '[0-9a-f]{16}' || { echo 'Cannot use the grant: it names no cluster' && return 1; }
  [ "$name" = "$(node_name)" ] || { echo "Cannot use the grant: it is for the node $name, and this is $(node_name)" && return 1; }
  [ "$version" = "$(kube_version)" ] || [ "$action" = start ] ||
    { echo "Cannot use the grant: it is for Kubernetes $version, and the image has $(kube_version)" && return 1; }
  case "$(grant_value skip-phases)" in
    *[!a-z0-9/,-]*) echo 'Cannot use the grant: its skip-phases are no phases' && return 1 ;;
  esac
  check_action "$action"
}

# check_action ACTION: does it fit what lies here?
check_action() {
  local cluster
  cluster="$(grant_value cluster)"
  case "$1" in
    init | restore | join | join-control-plane)
      [ -s "$KUBE_GRANT/files/kubeadm.yaml" ] || { echo 'Cannot use the grant: it has no kubeadm.yaml' && return 1; }
      ! is_used_grant "$1" || { echo 'Cannot use the grant: it was used before' && return 1; }
      ;;
    start | upgrade-first | upgrade-node)
      is_member || { echo "Cannot use the grant: it says $1, and this machine is no node yet" && return 1; }
      [ "$(kube_line "$KUBE_NODE" cluster)" = "$cluster" ] ||
        { echo "Cannot use the grant: it is for cluster $cluster, and this is a node of $(kube_line "$KUBE_NODE" cluster); kateskit powerwash makes it new" && return 1; }
      ;;
    *) echo 'Cannot use the grant: its action is not known here' && return 1 ;;
  esac
  case "$1" in
    init)
      [ ! -d "$KUBE_ETCD/member" ] || [ "$(etcd_cluster)" = "$cluster" ] || is_unfinished_etcd ||
        { echo "Cannot make cluster $cluster: data of etcd of ${KUBE_ETCD##"$KIT_LIVE"} belongs to $(etcd_cluster | grep . || echo 'nobody knows whom'); kateskit powerwash --persistence removes it" && return 1; }
      ;;
    restore)
      grant_value snapshot | grep -Eqx '[0-9a-f]{64} [1-9][0-9]{0,14}' || { echo 'Cannot use the grant: it names no snapshot' && return 1; }
      ;;
  esac
}

# is_used_grant ACTION: one with a token is good once; notes it.
is_used_grant() {
  local digest
  case "$1" in join*) ;; *) return 1 ;; esac
  digest="$(sha256sum <"$KUBE_GRANT/files/kubeadm.yaml" | cut -d ' ' -f 1)"
  ! grep -qx "$digest" "$KIT_RUN/grants-used" 2>/dev/null || return 0
  printf '%s\n' "$digest" >>"$KIT_RUN/grants-used"
  return 1
}

# node_name: as Kubernetes takes it from the hostname.
node_name() {
  uname -n | tr '[:upper:]' '[:lower:]'
}

# redact: standard input without bootstrap tokens, private keys, certificate keys and tokens of service accounts.
redact() {
  sed -E '/-----BEGIN [A-Z ]*PRIVATE KEY-----/,/-----END [A-Z ]*PRIVATE KEY-----/c <private key>
s/[a-z0-9]{6}\.[a-z0-9]{16}/<token>/g
s/eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]*/<token>/g
s/(key-data|certificate-key|certificateKey)("?[:= ] *"?)[A-Za-z0-9+\/=]+/\1\2<key>/g'
}

# redact_log: nothing in KUBE_LOG from here on.
redact_log() {
  [ -e "$KUBE_LOG" ] || return 0
  (umask 077 && redact <"$KUBE_LOG" >"$KUBE_LOG.new" && mv "$KUBE_LOG.new" "$KUBE_LOG")
}

# log_tail: what went wrong, from the last lines of KUBE_LOG.
log_tail() {
  redact <"$KUBE_LOG" | grep -Ev '^[[:space:]]*$|stack trace of this error|\[WARNING |If you know what you are doing' | tail -n 8 | tr -s '\t\n ' ' ' | tail -c "$MESSAGE_BYTES"
}

# report_node STATE ACTION [STEP] [MESSAGE]: status 1 when the server did not take it; 2 when it never will.
report_node() {
  local body status
  body="{\"boot\":$(json_string "$KIT_BOOT"),\"state\":\"$1\",\"action\":\"$2\""
  [ -z "${3:-}" ] || body="$body,\"step\":\"$3\""
  [ -z "${4:-}" ] || body="$body,\"message\":$(json_string "$(printf '%s' "$4" | redact | head -c "$MESSAGE_BYTES")")"
  status="$(post node "$body}")"
  case "$status" in
    204) ;;
    4??) return 2 ;;
    *) return 1 ;;
  esac
}

# report_done: the end that the server has not heard of yet. Status as of report_node.
report_done() {
  local action status=0
  action="$(cat "$KUBE_DONE" 2>/dev/null)"
  [ -n "$action" ] || return 0
  report_node 'done' "$action" || status=$?
  [ "$status" = 1 ] || rm -f "$KUBE_DONE"
  return "$status"
}
