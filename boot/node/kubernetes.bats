#!/usr/bin/env bats
# How a machine becomes a node and stays one: grants that are believed and those that are not, kubeadm that fails, is late or is ended in
# the middle, the machine's own check, and what reaches the server of it. kubeadm, kubectl and systemctl are stand-ins here; kubeadm
# itself runs in kubernetes-cluster.bats.

load ../testing/kube.bash
bats_require_minimum_version 1.5.0

PARTS='paths json disk identity api target conf kubernetes kubernetes-grant kubernetes-health kubernetes-run kubernetes-etcd kubernetes-make kubernetes-upgrade'

setup() {
  make_kube_node
  nap
}

teardown() {
  end_kube
  end_node
}

# parts TEXT: TEXT with all parts, under dash and under busybox; they must agree.
parts() {
  local text="" part
  for part in $PARTS; do text="$text. \"\$KIT_LIB/$part.sh\"
"; done
  run dash -c "$text$1"
  local dash_status="$status" dash_output="$output"
  run "$(command -v busybox)" sh -c "$text$1"
  [ "$status:$output" = "$dash_status:$dash_output" ] || { echo "dash: $dash_status $dash_output, busybox: $status $output" && return 99; }
}

@test "decide_node() needs no server for a node's normal life, and never runs a worker's kubelet before the API is as new" {
  parts 'while read -r part member role relation wanted; do
    [ "$part" != - ] || part=""
    found="$(decide_node "$part" "$member" "$role" "$relation")"
    [ "$found" = "$wanted" ] || echo "$part $member $role $relation: $found, not $wanted"
  done <<TABLE
none no worker same stop
none yes worker same stop
- no worker same idle
- yes worker same run
worker no worker newer ask
control-plane no worker same ask
worker yes worker same run
worker yes worker newer ask
worker yes worker older run-ask
control-plane yes control-plane newer run-ask
control-plane yes control-plane older run-ask
worker yes control-plane same run
TABLE
  compare_versions v1.20.2 v1.20.2; compare_versions v1.20.10 v1.20.9; compare_versions v1.9.0 v1.20.0'
  [ "$status" -eq 0 ]
  [ "$output" = 'same
newer
older' ] || { echo "$output" && return 1; }
}

@test "decide_check() rolls nothing back while the API or the server is away, and passes no kubelet that was never Ready" {
  parts 'while read -r part member asked relation kubelet facts own before waited wanted; do
    [ "$part" != - ] || part=""
    found="$(decide_check "$part" "$member" "$asked" "$relation" "$kubelet" "$facts" "$own" "$before" "$waited")"
    [ "${found%% *}" = "$wanted" ] || echo "$part $member $asked $relation $kubelet $facts $own $before $waited: $found, not $wanted"
  done <<TABLE
none no none other no none no no no passed
worker no wait other no none no no no waiting
worker no wait other no none no no over passed
worker no failed other no none no no over waiting
- no none other no none no no over passed
worker yes none same yes ready yes no no passed
worker yes none same yes not-ready yes yes no waiting
worker yes none same yes missing yes yes no waiting
worker yes none same yes refused yes yes no waiting
worker yes none same no none yes yes no waiting
worker yes none same yes away yes yes no passed
worker yes none same yes away yes no no excused
control-plane yes none same yes away no yes no waiting
control-plane yes failed same yes ready yes yes no waiting
worker yes wait newer no none no yes no excused
worker yes away newer no none no yes no excused
worker yes refused newer yes ready yes yes no waiting
worker yes failed newer yes ready yes yes no waiting
TABLE'
  [ "$status:$output" = 0: ] || { echo "$output" && return 1; }
}

@test "redact() takes out tokens and keys, and nothing else" {
  printf '%s\n' 'kubeadm join 10.0.0.1:6443 --token abcdef.0123456789abcdef' 'client-key-data: TFMwdExTMUNS' '-----BEGIN EC PRIVATE KEY-----' 'c2VjcmV0' '-----END EC PRIVATE KEY-----' \
    'after' '--certificate-key 00112233aabb' 'Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6Ij.eyJpc3M.c2ln' 'v1.20.2 at 10.244.3.0/24 k8s.gcr.io/pause:3.2' >"$BATS_TEST_TMPDIR/text"
  parts "redact <$BATS_TEST_TMPDIR/text"
  [ "$output" = 'kubeadm join 10.0.0.1:6443 --token <token>
client-key-data: <key>
<private key>
after
--certificate-key <key>
Bearer <token>
v1.20.2 at 10.244.3.0/24 k8s.gcr.io/pause:3.2' ] || { echo "$output" && return 1; }
}

@test "a machine becomes a node by a grant, tells how it went, and leaves nothing of the grant anywhere" {
  mkdir -p "$KIT_LIVE/etc/kit/cni"
  echo '{"subnet": "@POD_CIDR@"}' >"$KIT_LIVE/etc/kit/cni/10-bridge.conflist.in"
  grant join
  wish 'kubernetes worker' 'registry-mirror yes'
  start_kube
  heard '^node .*"state":"done","action":"join"'
  checks 'passed the node is Ready'
  own="$KIT_LIVE/var/lib/kubelet/pki/kubelet-client-current.pem"
  [ -L "$own" ]
  key="$(openssl pkey -in "$own" -pubout -outform DER | sha256sum | cut -d ' ' -f 1)"
  [ "$(openssl req -in "$own" -noout -pubkey)" = "$(openssl pkey -in "$own" -pubout)" ]
  openssl req -in "$own" -noout -subject | tr -d ' ' | grep -qx "subject=O=system:nodes,CN=system:node:$NAME"
  grep -q "\"kubernetes\":\"v1.20.2\",\"node\":\"none\",\"kubeletKey\":\"$key\",\"address\":" <(grep '^grant ' "$FOLDER/reports")
  [ "$(stat -Lc %a "$own")" = 600 ]
  [ ! -e "$KIT_RUN/kubelet.key" ]
  heard '^node .*"state":"working","action":"join","step":"kubeadm"'
  grep -q "$TOKEN" "$NOTES/kubeadm.yaml"
  ! grep -rq "$TOKEN" "$KIT_RUN" "$ETC" "$NOTES/commands" "$BATS_TEST_TMPDIR/log" || return 1
  becomes '[ ! -e "$KIT_RUN/grant" ]'
  grep -q "^kubeadm join --config $KIT_RUN/grant/files/kubeadm.yaml --ignore-preflight-errors=" "$NOTES/commands"
  [ "$(cat "$KIT_LIVE/etc/cni/net.d/10-bridge.conflist")" = '{"subnet": "10.244.3.0/24"}' ]
  grep -qF "[host.\"$KIT_TLS\"]" "$KIT_LIVE/etc/containerd/certs.d/_default/hosts.toml"
  [ "$(stat -c %a "$ETC")" = 700 ]
  grep -qx "ready $KIT_IMAGE" "$ETC/kit-node"
  # kubeadm asks for it in upgrades.
  grep -q 'annotate node .*cri-socket=/run/containerd/containerd.sock' "$NOTES/commands"
}

@test "a machine that is denied its kubelet's certificate says why, and runs no kubeadm" {
  echo 'Denied: it is for another key' >"$NOTES/denied"
  grant join
  wish 'kubernetes worker'
  start_kube
  heard '^node .*"state":"failed","action":"join","message":"Cannot get the kubelet.s certificate: Denied: it is for another key"'
  ! grep -q '^kubeadm' "$NOTES/commands" || return 1
  [ ! -e "$KIT_LIVE/var/lib/kubelet/pki/kubelet-client-current.pem" ]
}

@test "a node starts without the server, and asks it for nothing" {
  grant join
  wish 'kubernetes worker'
  start_kube
  checks passed
  end_kube
  stop_server
  rm -f "$KIT_RUN/target" "$KIT_RUN/node-started" "$KIT_RUN/node-check" "$NOTES/commands"
  start_kube
  checks 'passed the node is Ready'
  seen "$NOTES/commands" '^systemctl start kubelet.service$'
  ! grep -q '^kubeadm' "$NOTES/commands"
  [ "$(asked_for_grants)" = 1 ]
}

@test "a machine waits for its turn, and asks on" {
  echo 'the control plane is not up' >"$FOLDER/grant-wait"
  wish 'kubernetes worker'
  start_kube
  becomes '[ "$(asked_for_grants)" -ge 1 ]'
  grant join
  rm "$FOLDER/grant-wait"
  checks 'passed the node is Ready'
}

@test "a machine that is no node starts no kubelet; one that is to be none any more stops it and forgets" {
  wish 'kubernetes none'
  start_kube
  checks 'passed it is no node'
  ! grep -q kubelet "$NOTES/commands" 2>/dev/null
  grant join
  wish 'kubernetes worker'
  becomes '[ -s "$ETC/kit-node" ]'
  wish 'kubernetes none'
  becomes '[ ! -e "$ETC/kit-node" ]'
  grep -qx 'systemctl stop kubelet.service' "$NOTES/commands"
}

@test "a refusal is said to people, and the machine stays as it is" {
  echo 'the cluster was adopted: joining workers is all' >"$FOLDER/grant-refused"
  wish 'kubernetes control-plane'
  start_kube
  seen "$KIT_RUN/kubernetes-says" 'the cluster was adopted'
  checks 'waiting it is no node yet: the cluster was adopted'
  ! grep -q '^kubeadm' "$NOTES/commands"
}

@test "kubeadm that fails is reported with its last lines and no secret, and tried again" {
  printf '%s\n' 'I1121 running pre-flight checks' "error execution phase preflight: token $TOKEN is no good" 'To see the stack trace of this error execute with --v=5 or higher' >"$NOTES/kubeadm-says"
  grant join
  wish 'kubernetes worker'
  start_kube
  heard '^node .*"state":"failed","action":"join","message":".*preflight: token <token> is no good'
  checks 'waiting it could not become a node'
  ! grep -q "$TOKEN" "$FOLDER/reports" "$KIT_RUN/kubernetes-says" "$KIT_RUN/kubernetes.log" "$KIT_RUN/node-check" "$BATS_TEST_TMPDIR/log" || return 1
  # Another token: the old one is of no use.
  rm "$NOTES/kubeadm-says"
  TOKEN=fedcba.0123456789abcdef grant join
  checks 'passed the node is Ready'
}

@test "kubeadm that gives up after all was done is believed by the facts" {
  echo 'timed out waiting for the condition' >"$NOTES/kubeadm-late"
  grant join
  wish 'kubernetes worker'
  start_kube
  heard '^node .*"state":"done","action":"join"'
  checks 'passed the node is Ready'
}

@test "a grant that is not for this machine, was changed, or was used before is refused" {
  wish 'kubernetes worker'
  while IFS='|' read -r change wanted; do
    grant join
    rm -f "$KIT_RUN/grants-used"
    eval "$change"
    [ ! -d "$GRANT" ] || seal_grant
    run -0 with_parts $PARTS -- 'KIT_BOOT=boot-1; ask_grant 0; echo "$ASKED $ASKED_WHY"; ls "$KUBE_GRANT" 2>&1 | head -n 1'
    [[ "${lines[0]}" = "refused $wanted"* && "${lines[1]}" = *'No such file'* ]] || { echo "$change: $output" && return 1; }
  done <<'TABLE'
sed -i "s/^name .*/name other/" "$GRANT/action"|Cannot use the grant: it is for the node other
sed -i "s/^version .*/version v1.19.9/" "$GRANT/action"|Cannot use the grant: it is for Kubernetes v1.19.9
sed -i "s/^action .*/action reset/" "$GRANT/action"|Cannot use the grant: its action is not known here
sed -i "s/^cluster .*/cluster x/" "$GRANT/action"|Cannot use the grant: it names no cluster
sed -i "s/^action .*/action upgrade-first/" "$GRANT/action"|Cannot use the grant: it says upgrade-first, and this machine is no node yet
echo 'skip-phases $(reboot)' >>"$GRANT/action"|Cannot use the grant: its skip-phases are no phases
printf "note \033[2J\n" >>"$GRANT/action"|Cannot use the grant: its action is not plain text
rm "$GRANT/kubeadm.yaml"|Cannot use the grant: it has no kubeadm.yaml
sed -i "s/^action .*/action restore/" "$GRANT/action"|Cannot use the grant: it names no snapshot
touch "$GRANT/extra"|Cannot use the grant: it holds extra
mkdir "$GRANT/pki" && ln -s /etc/shadow "$GRANT/pki/ca.key"|Cannot use the grant: it holds something else than files
tar -cPf "$FOLDER/grant.tar" "$GRANT/../grant/action" && rm -r "$GRANT"|Cannot use the grant: it holds /
echo no archive >"$FOLDER/grant.tar" && rm -r "$GRANT"|Cannot use the grant: it is no archive
TABLE
  grant join
  with_parts $PARTS -- 'KIT_BOOT=boot-1; ask_grant 0; echo "$ASKED"; ask_grant 0; echo "$ASKED $ASKED_WHY"' >"$BATS_TEST_TMPDIR/twice"
  [ "$(cat "$BATS_TEST_TMPDIR/twice")" = 'grant
refused Cannot use the grant: it was used before' ]
}

@test "a grant to make a cluster is refused where other data of etcd lies" {
  grant init
  mkdir -p "$KIT_LIVE/var/lib/etcd/member"
  for id in fedcba9876543210 ''; do
    echo "$id" >"$KIT_LIVE/var/lib/etcd/kit-cluster"
    run -0 with_parts $PARTS -- 'KIT_BOOT=boot-1; ask_grant 0; echo "$ASKED $ASKED_WHY"'
    [[ "$output" = "refused Cannot make cluster $CLUSTER: data of etcd of /var/lib/etcd belongs to "* ]] || { echo "$output" && return 1; }
  done
  echo "$CLUSTER" >"$KIT_LIVE/var/lib/etcd/kit-cluster"
  run -0 with_parts $PARTS -- 'KIT_BOOT=boot-1; ask_grant 0; echo "$ASKED"'
  [ "$output" = grant ]
}

@test "an end at any step of a join is followed by a node" {
  local step
  wish 'kubernetes worker'
  for step in 'hang-at ^kubeadm join' 'hang-after ^kubeadm join' 'hang-at get node' 'hang-at annotate'; do
    rm -rf "$ETC" "$KIT_LIVE/var/lib/kubelet" "$NOTES"/hung "$KIT_RUN"/node-* "$KIT_RUN/grants-used" "$NOTES/commands" "$FOLDER/reports"
    grant join
    printf '%s\n' "${step#* }" >"$NOTES/${step%% *}"
    start_kube
    becomes '[ -e "$NOTES/hung" ]'
    end_kube KILL
    rm "$NOTES/${step%% *}"
    [ ! -e "$ETC/kit-node" ]
    # The grant that was there is of no use any more.
    rm -f "$KIT_RUN/grants-used"
    TOKEN=fedcba.0123456789abcdef grant join
    start_kube
    checks 'passed the node is Ready' || { echo "after $step" && return 1; }
    heard '^node .*"state":"done","action":"join"'
    ! grep -rq '0123456789abcdef' "$KIT_RUN"/grant "$ETC/kit-work" 2>/dev/null || return 1
    # A kubelet that has its certificate needs no other.
    case "$step" in
      hang-at\ ^*) [ "$(grep -c '^kubeadm join' "$NOTES/commands")" = 2 ] ;;
      *) [ "$(grep -c '^kubeadm join' "$NOTES/commands")" = 1 ] ;;
    esac || { echo "after $step" && cat "$NOTES/commands" && return 1; }
    end_kube
  done
}

@test "the server hears that a node is done, also when it was away" {
  echo 503 >"$FOLDER/node-refused"
  grant join
  wish 'kubernetes worker'
  start_kube
  checks passed
  [ "$(cat "$ETC/kit-done")" = join ]
  rm "$FOLDER/node-refused" "$FOLDER/reports"
  heard '^node .*"state":"done","action":"join"'
  becomes '[ ! -e "$ETC/kit-done" ]'
}

@test "a worker with a newer image upgrades by a grant before its kubelet runs" {
  grant join
  wish 'kubernetes worker'
  start_kube
  checks passed
  end_kube
  rm -f "$KIT_RUN/kubernetes-version" "$KIT_RUN/node-started" "$KIT_RUN/node-check" "$NOTES/commands"
  echo v1.21.0 >"$NOTES/kube-version"
  kubelet_says True v1.21.0
  echo 'workers with v1.21.0 wait for the control planes' >"$FOLDER/grant-wait"
  start_kube
  checks 'excused the upgrade of the node waits: workers with'
  [ -s "$KIT_RUN/node-excused" ]
  ! grep -q 'kubelet.service' "$NOTES/commands"
  grep -q '"node":"member","nodeVersion":"v1.20.2"' "$FOLDER/reports"
  grant upgrade-node
  rm "$FOLDER/grant-wait"
  heard '^node .*"state":"done","action":"upgrade-node"'
  checks 'passed the node is Ready'
  [ "$(sed -n '/^kubeadm upgrade node/p; /^systemctl st.* kubelet/p' "$NOTES/commands" | cut -d ' ' -f 1-3)" = 'kubeadm upgrade node
systemctl stop kubelet.service
systemctl start kubelet.service' ]
  grep -qx 'version v1.21.0' "$ETC/kit-node"
}

@test "what the API says of a kubelet that is no more is believed by nobody" {
  parts 'systemctl() { [ "$1" != show ] || echo "$since"; }
  kube_of_node() { echo "$line"; }
  while read -r since line; do [ "$since" != - ] || since=""; node_facts; done <<TABLE
@1795300866 True 2026-11-21T22:41:05Z KubeletReady v1.20.2
@1795300866 True 2026-11-21T22:41:06Z KubeletReady v1.20.2
@1795300866 False 2026-11-21T22:41:06Z KubeletNotReady v1.20.2
@1795300866 Unknown 2026-11-21T22:41:05Z NodeStatusUnknown v1.20.2
@1795300866 True null KubeletReady v1.20.2
@1795300866 v1.20.2
- True 2026-11-21T22:41:06Z KubeletReady v1.20.2
TABLE'
  [ "$output" = 'stale
ready v1.20.2
not-ready False KubeletNotReady
stale
stale
stale
ready v1.20.2' ] || { echo "$output" && return 1; }
}

@test "a node that was Ready before its kubelet started is neither made nor good until that kubelet has spoken" {
  echo "@$(($(/bin/date +%s) + 3600))" >"$NOTES/kubelet-started"
  grant join
  wish 'kubernetes worker'
  start_kube
  becomes '[ "$(grep -c " get node " "$NOTES/commands")" -ge 3 ]'
  ! grep -q '"state":"done"' "$FOLDER/reports" || return 1
  ! grep -q '^passed' "$KIT_RUN/node-check" || return 1
  rm "$NOTES/kubelet-started"
  heard '^node .*"state":"done","action":"join"'
  checks 'passed the node is Ready'
}

@test "an upgrade that fails is reported, and the check does not pass" {
  grant join
  wish 'kubernetes worker'
  start_kube
  checks passed
  end_kube
  rm -f "$KIT_RUN/kubernetes-version" "$KIT_RUN/node-started" "$KIT_RUN/node-check"
  echo v1.21.0 >"$NOTES/kube-version"
  echo '[upgrade/apply] FATAL: failed to download' >"$NOTES/kubeadm-says"
  grant upgrade-node
  start_kube
  heard '^node .*"state":"failed","action":"upgrade-node","message":".*FATAL: failed to download'
  checks 'waiting the node is not upgraded'
  grep -qx 'version v1.20.2' "$ETC/kit-node"
}

@test "the mirror's file goes with the setting, and one of somebody else's stays" {
  file="$KIT_LIVE/etc/containerd/certs.d/_default/hosts.toml"
  wish 'kubernetes worker' 'registry-mirror yes'
  run -0 with_parts $PARTS -- 'note_kube_target; lay_mirror'
  grep -q 'capabilities = \["pull", "resolve"\]' "$file"
  wish 'kubernetes worker' 'registry-mirror no'
  run -0 with_parts $PARTS -- 'note_kube_target; lay_mirror'
  [ ! -e "$file" ]
  echo 'server = "https://other"' >"$file"
  wish 'kubernetes worker' 'registry-mirror yes'
  run -0 with_parts $PARTS -- 'note_kube_target; lay_mirror'
  [ "$(cat "$file")" = 'server = "https://other"' ]
}

# make_certificate FILE FROM UNTIL: in days from now.
make_certificate() {
  local folder="$BATS_TEST_TMPDIR/ca"
  rm -rf "$folder" && mkdir "$folder" && : >"$folder/index"
  printf '[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n[req]\ndistinguished_name=d\n[d]\n' \
    "$folder" "$folder" >"$folder/conf"
  openssl req -new -config "$folder/conf" -newkey rsa:2048 -nodes -subj /CN=x -keyout "$folder/key" -out "$folder/request" 2>/dev/null
  openssl ca -batch -selfsign -config "$folder/conf" -keyfile "$folder/key" -in "$folder/request" -out "$1" -notext \
    -startdate "$(/bin/date -u -d "$2 days" +%Y%m%d%H%M%SZ)" -enddate "$(/bin/date -u -d "$3 days" +%Y%m%d%H%M%SZ)" 2>/dev/null
}

@test "certificates of a control plane are renewed in the last third of their life" {
  mkdir -p "$ETC/pki"
  echo x >"$ETC/kubelet.conf"
  printf 'role control-plane\nversion v1.20.2\n' >"$ETC/kit-node"
  while read -r from until wanted; do
    : >"$NOTES/commands"
    make_certificate "$ETC/pki/apiserver.crt" "$from" "$until"
    with_parts $PARTS -- 'renew_certificates' >/dev/null
    [ "$(grep -c '^kubeadm certs renew all' "$NOTES/commands" || true)" = "$wanted" ] || { echo "$from $until" && return 1; }
  done <<'TABLE'
-200 165 0
-250 115 1
-400 -35 1
TABLE
  echo v1.19.8 >"$NOTES/kube-version"
  rm "$KIT_RUN/kubernetes-version"
  with_parts $PARTS -- 'renew_certificates' >/dev/null
  grep -qx 'kubeadm alpha certs renew all' "$NOTES/commands"
}
