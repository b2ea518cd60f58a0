#!/usr/bin/env bats
# drift_lines(): what was changed by hand, and nothing else.

load ../testing/agent.bash

setup() {
  [ "$(id -u)" -eq 0 ] || skip 'owners and whiteouts need root'
  make_node
  export KIT_BUNDLE=none
  UPPER="$KIT_RUN/writes/upper"
  mkdir -p "$UPPER" "$KIT_RUN/bundle/root/etc"
  for name in motd issue profile hosts; do echo image >"$IMAGE/etc/$name"; done
  echo bundle >"$KIT_RUN/bundle/root/etc/motd"
  cp -a "$IMAGE/." "$KIT_LIVE" && cp -a "$KIT_RUN/bundle/root/." "$KIT_LIVE"
}

teardown() {
  end_node
}

# put PATH: as overlayfs does: the live file is in the upper directory too.
put() {
  mkdir -p "$UPPER/$(dirname "$1")" "$KIT_LIVE/$(dirname "$1")"
  cat >"$KIT_LIVE/$1"
  cp -a "$KIT_LIVE/$1" "$UPPER/$1"
}

drift() {
  with_parts paths tree secret-files drift -- drift_lines
}

@test "drift_lines() names what differs from image and bundle, and only that" {
  echo changed | put etc/motd
  echo changed | put etc/issue
  echo mine | put etc/systemd/system/mine.service
  rm "$KIT_LIVE/etc/hosts" && mknod "$UPPER/etc/hosts" c 0 0
  # Touched only.
  echo image | put etc/profile
  # What machines do by themselves.
  for path in etc/machine-id etc/resolv.conf etc/ssh/ssh_host_ed25519_key var/log/journal/x var/lib/systemd/random-seed tmp/x run/x etc/shadow; do
    echo x | put "$path"
  done
  [ "$(drift)" = '/etc/hosts
/etc/issue
/etc/motd
/etc/systemd/system/mine.service' ]
}

@test "drift_lines() knows the bundle that was taken over while running" {
  mkdir -p "$KIT_RUN/trees/two/etc"
  echo two >"$KIT_RUN/trees/two/etc/motd"
  echo two | put etc/motd
  [ "$(drift)" = /etc/motd ]
  chmod --reference="$KIT_RUN/trees/two/etc/motd" "$KIT_LIVE/etc/motd"
  echo two >"$KIT_RUN/applied"
  [ -z "$(drift)" ]
}

@test "drift_lines() takes patterns for what they are, and stops at fifty" {
  echo x | put etc/sshXssh_host_key
  echo x | put 'etc/machine-id.d/a b'
  for number in $(seq 60); do echo x | put "opt/$number"; done
  [ "$(drift | wc -l)" = 50 ]
  drift | grep -qx '/etc/machine-id.d/a b'
  drift | grep -qx '/etc/sshXssh_host_key'
}

@test "drift_lines() leaves out what is kept on kit-persist" {
  mkdir -p "$KIT_RUN/bundle/root/etc/kit"
  printf '# ours\n/srv/data/\n/etc/app.conf\n' >"$KIT_RUN/bundle/root/etc/kit/persist"
  cp -a "$KIT_RUN/bundle/root/etc/kit" "$KIT_LIVE/etc/kit"
  for path in srv/data/x srv/data.old etc/app.conf; do echo x | put "$path"; done
  [ "$(drift)" = /srv/data.old ]
}

@test "drift_lines() says that it cannot tell where no layer takes the writes" {
  rm -r "$UPPER"
  run drift
  [ "$status" -eq 1 ]
}
