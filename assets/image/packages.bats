#!/usr/bin/env bats
# packages.txt explains every package of the image, and the check that says so can fail.

setup() {
  recipe=$BATS_TEST_DIRNAME
  image=$BATS_TEST_TMPDIR
}

# small_image <package line…>: a manifest and a status of these; "name" or "name: dependency, …".
small_image() {
  {
    echo '{ "version": "1", "files": [], "packages": ['
    for line in "$@"; do printf '    { "name": "%s", "version": "1" },\n' "${line%%:*}"; done
  } >"$image/manifest.json"
  for line in "$@"; do
    printf 'Package: %s\n' "${line%%:*}"
    case $line in *:*) printf 'Depends:%s\n' "${line#*:}" ;; esac
    echo
  done >"$image/status"
}

@test "the list says no name twice" {
  [ -z "$(awk '!/^(#|\[|$)/ { print $1 }' "$recipe/packages.txt" | sort | uniq -d)" ]
}

@test "every package of the built image is explained" {
  built=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
  [ -f "$built/manifest.json" ] || skip "no image of this recipe is built (assets/image/build.sh)"
  run "$recipe/check-packages.sh" "$built"
  echo "$output"
  [ "$status" = 0 ]
}

@test "every package of the built image with Kubernetes is explained" {
  export KATESKIT_KUBERNETES_SOURCE=debian-source
  for runtime in runc crun; do
    export KATESKIT_KUBERNETES_OCI_RUNTIME=$runtime
    built=${XDG_CACHE_HOME:-$HOME/.cache}/kateskit/images/$("$recipe/digest.sh")
    [ -f "$built/manifest.json" ] || continue
    run "$recipe/check-packages.sh" "$built"
    echo "$output"
    [ "$status" = 0 ]
    checked=$runtime
  done
  [ -n "${checked-}" ] || skip "no such image of this recipe is built (KATESKIT_KUBERNETES_SOURCE=debian-source assets/image/build.sh)"
}

@test "check-packages.sh asks for what Kubernetes needs where the image has it, and nowhere else" {
  printf '[image]\nsystemd init\n[image kubernetes]\niptables rules\n[image runc]\nrunc starts\n[image crun]\ncrun starts\n[pulled in kubernetes]\nnetbase iptables names\n' >"$image/list"
  small_image systemd
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 0 ]
  small_image systemd 'iptables: netbase' netbase runc
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 1 ]
  [[ $output == *'iptables: in the image, and nobody explains why'* ]]
  sed -i '1s/$/\n  "kubernetes": { "version": "v1.20.2", "cri": "containerd", "ociRuntime": "runc" },/' "$image/manifest.json"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  echo "$output"
  [ "$status" = 0 ]
  sed -i 's/"ociRuntime": "runc"/"ociRuntime": "crun"/' "$image/manifest.json"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 1 ]
  [[ $output == *'crun: explained in [image crun], but not in the image'* ]]
  [[ $output == *'runc: in the image, and nobody explains why'* ]]
}

@test "check-packages.sh accepts a list that explains everything" {
  small_image 'systemd: libc6 (>= 2.41)' libc6
  printf '[image]\nsystemd init\n[pulled in]\nlibc6 systemd the C library\n' >"$image/list"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 0 ]
}

@test "check-packages.sh names a package nobody explains" {
  small_image systemd nano
  printf '[image]\nsystemd init\n' >"$image/list"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 1 ]
  [[ $output == *'nano: in the image, and nobody explains why'* ]]
}

@test "check-packages.sh refuses an explanation that is not true" {
  small_image 'systemd: libc6' libc6 libfoo
  printf '[image]\nsystemd init\ngone a reason\n[pulled in]\nlibc6 systemd C\nlibfoo systemd made up\n' >"$image/list"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 1 ]
  [[ $output == *'gone: explained in [image], but not in the image'* ]]
  [[ $output == *'libfoo: said to be pulled in by systemd, which does not depend on it'* ]]
}

@test "check-packages.sh refuses a line without a reason" {
  small_image systemd
  printf '[image]\nsystemd\n' >"$image/list"
  run "$recipe/check-packages.sh" "$image" "$image/list"
  [ "$status" = 1 ]
  [[ $output == *'systemd: no reason in [image]'* ]]
}
