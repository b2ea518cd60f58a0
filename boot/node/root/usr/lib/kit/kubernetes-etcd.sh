# Etcd's data on a control plane: snapshots to the server, and out of one. Needs kubernetes.sh, kubernetes-grant.sh.
# shellcheck shell=dash
# shellcheck disable=SC2034 # KUBE_WHY is for who asked

SNAPSHOT_SECONDS=1800
# Beside the copy of the data: the kubelet evicts pods from a disk that is nearly full.
SPARE_KIB=262144
SNAPSHOT_RETRY_SECONDS=600

# etcd_client ARGUMENT…
etcd_client() {
  ETCDCTL_API=3 timeout "$SNAPSHOT_SECONDS" etcdctl --endpoints "${KIT_ETCD:-https://127.0.0.1:2379}" --cacert "$KUBE_ETC/pki/etcd/ca.crt" \
    --cert "$KUBE_ETC/pki/etcd/healthcheck-client.crt" --key "$KUBE_ETC/pki/etcd/healthcheck-client.key" "$@"
}

# set_etcd_aside: data that is not to be used; the newest such copy is kept.
set_etcd_aside() {
  local old="$KUBE_ETCD/member.old"
  KUBE_WHY='Cannot set the data of etcd aside'
  [ -d "$KUBE_ETCD/member" ] || return 0
  if is_unfinished_etcd; then
    rm -rf "$KUBE_ETCD/member" || return 1
  else
    rm -rf "$old" && mv "$KUBE_ETCD/member" "$old" || return 1
  fi
  rm -f "$KUBE_ETCD/kit-cluster" "$KUBE_ETCD/kit-making" && sync -f "$KUBE_ETCD"
}

# restore_etcd: the data out of the snapshot that the grant names: whole or not at all.
restore_etcd() {
  local place="$KUBE_ETCD/.kit-restore" snapshot digest address name
  name="$(grant_value name)"
  snapshot="$(grant_value snapshot)"
  address="$(sed -n 's/.*"advertiseAddress": *"\([0-9.]*\)".*/\1/p' "$KUBE_GRANT/files/kubeadm.yaml" | head -n 1)"
  [ -n "$address" ] || address="$(own_address)"
  report_node working restore snapshot
  rm -rf "$place"
  (umask 077 && mkdir -p "$place") || return 1
  ask_server -sSf --max-time "$SNAPSHOT_SECONDS" --max-filesize "${snapshot#* }" -o "$place/snapshot" "$(machine_url)/etcd-snapshot?boot=$KIT_BOOT" 2>>"$KUBE_LOG" ||
    { KUBE_WHY="Cannot download the snapshot of etcd: $(log_tail)" && rm -rf "$place" && return 1; }
  digest="$(sha256sum <"$place/snapshot" | cut -d ' ' -f 1)"
  [ "$digest" = "${snapshot% *}" ] || { KUBE_WHY='Cannot use the snapshot of etcd: its sha256 is not the one that the grant names' && rm -rf "$place" && return 1; }
  restore_snapshot "$place/snapshot" --data-dir "$place/data" --name "$name" --initial-cluster "$name=https://$address:2380" \
    --initial-advertise-peer-urls "https://$address:2380" >>"$KUBE_LOG" 2>&1 ||
    { KUBE_WHY="Cannot restore the snapshot of etcd: $(log_tail)" && rm -rf "$place" && return 1; }
  put_restored "$place/data/member" || { KUBE_WHY='Cannot put the restored data of etcd into its place' && return 1; }
  rm -rf "$place"
}

# put_restored DIRECTORY: as etcd's data; what a cut leaves half named is unfinished data, which is made again.
put_restored() {
  sync -f "$1" && set_etcd_aside && grant_value cluster | put_private "$KUBE_ETCD/kit-making" && mv "$1" "$KUBE_ETCD/member" &&
    grant_value cluster | put_private "$KUBE_ETCD/kit-cluster" && rm -f "$KUBE_ETCD/kit-making"
}

# restore_snapshot FILE ARGUMENT…: etcd 3.6 has it in etcdutl only, 3.4 in etcdctl only.
restore_snapshot() {
  if command -v etcdutl >/dev/null; then
    etcdutl snapshot restore "$@"
  else
    ETCDCTL_API=3 etcdctl snapshot restore "$@"
  fi
}

# send_snapshot: takes one and sends it. Status 1 with the reason on standard error. What it needs on the disk it leaves again.
send_snapshot() {
  local folder="$KUBE_ETC/kit-snapshot" file size free digest status
  file="$folder/snapshot"
  rm -rf "$folder"
  (umask 077 && mkdir -p "$folder") || return 1
  size="$(du -sk "$KUBE_ETCD/member/snap" 2>/dev/null | cut -f 1)"
  free="$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
  if [ "$free" -lt $((${size:-0} + SPARE_KIB)) ]; then
    echo "Cannot take a snapshot of etcd: $free KiB are free on kit-containers, $((${size:-0} + SPARE_KIB)) are needed" >&2
    return 1
  fi
  # Its secrets are nobody else's to read.
  (umask 077 && etcd_client snapshot save "$file") >"$KIT_RUN/etcd-snapshot.log" 2>&1 ||
    { echo "Cannot take a snapshot of etcd: $(tail -n 1 "$KIT_RUN/etcd-snapshot.log" | head -c 300)" >&2 && return 1; }
  digest="$(openssl dgst -sha256 -binary "$file" | base64)"
  status="$(ask_server -s -o "$folder/answer" -w '%{http_code}' --max-time "$SNAPSHOT_SECONDS" -H 'Content-Type: application/octet-stream' \
    -H "Digest: sha-256=$digest" -T "$file" "$(machine_url)/etcd-snapshot?boot=$KIT_BOOT")" || status=000
  case "$status" in
    204) return 0 ;;
    000) echo 'Cannot send the snapshot of etcd: no answer' >&2 ;;
    *) echo "Cannot send the snapshot of etcd: $(refusal_text "$folder/answer" "$status")" >&2 ;;
  esac
  return 1
}

# follow_snapshots: starts kit-etcd-snapshot.service when it is time. The first one right after the cluster is made; after a start, soon.
follow_snapshots() {
  local now
  snapshots_are_wanted || return 0
  is_control_plane && [ -d "$KUBE_ETCD/member" ] || return 0
  now="$(seconds_now)"
  [ -e "$KIT_RUN/etcd-snapshot-next" ] || echo "$now" >"$KIT_RUN/etcd-snapshot-next"
  [ "$now" -ge "$(noted_seconds etcd-snapshot-next)" ] || return 0
  next_snapshot "$SNAPSHOT_RETRY_SECONDS"
  systemctl start --no-block kit-etcd-snapshot.service || true
}

# snapshots_are_wanted: does the server want them?
snapshots_are_wanted() {
  kube_line "$KUBE_TARGET" etcd-snapshot-every | grep -Eqx '[1-9][0-9]{0,8}'
}

# next_snapshot SECONDS: up to a tenth later: those of several control planes shall not come at once.
next_snapshot() {
  echo $(($(seconds_now) + $1 + $(od -An -N2 -t u2 /dev/urandom) % ($1 / 10 + 1))) >"$KIT_RUN/.etcd-snapshot-next" &&
    mv "$KIT_RUN/.etcd-snapshot-next" "$KIT_RUN/etcd-snapshot-next"
}
