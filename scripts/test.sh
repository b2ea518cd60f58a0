#!/bin/sh
# npm test: sets up what tests need, runs everything, and closes with the line "N passed, N failed".
# --fast leaves clusters and virtual machines out.
# shellcheck shell=dash
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh

purpose='test'
[ "${1-}" != --fast ] || purpose=fast

ensure_node_modules
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node server/main.ts setup --for "$purpose" || exit 1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
passed=0
failed=0
skipped=0
durations=

# part <name> <command…>: runs it, shows what it prints as it comes, counts what it printed as TAP, and takes the time.
# A command that fails without a failed test (a crash, a linter) counts as one failure.
part() {
  local name start status part_failed
  name=$1
  shift
  printf '\n== %s\n' "$name"
  start=$(date +%s)
  { "$@" 2>&1 || echo $? >"$work/status"; } | tee "$work/output"
  status=0
  if [ -f "$work/status" ]; then read -r status <"$work/status"; fi
  rm -f "$work/status"
  part_failed=$(count '^not ok ' '# (TODO|SKIP)')
  if [ "$status" != 0 ] && [ "$part_failed" = 0 ]; then part_failed=1; fi
  failed=$((failed + part_failed))
  passed=$((passed + $(count '^ok ' '# (TODO|SKIP)')))
  skipped=$((skipped + $(grep -Eci '^(not )?ok .*# (TODO|SKIP)' "$work/output")))
  tell_failures "$name" <"$work/output" >>"$work/failures"
  durations="$durations$(printf '\n  %-12s %4d s' "$name" $(($(date +%s) - start)))"
}

# count <pattern> <but not this one>: lines of the part's output.
count() {
  grep -E "$1" "$work/output" | grep -Evic "$2"
}

# tell_failures <part>: of its output, what failed and why, without what the tests said besides (TAP's comments of ava).
tell_failures() {
  awk -v part="$1" '
    /^(not )?ok |^1\.\.|^==/ { wanted = 0 }
    /^not ok / && !/# (TODO|SKIP)/ { wanted = 1; $0 = part ": " $0 }
    wanted && !/^#   / { print }'
}

part check sh scripts/check.sh --no-bats
part shell sh scripts/bats.sh
part server ava --tap
if [ "$purpose" = test ]; then
  part cluster ava --config cluster-tests.config.mjs --serial --tap
  part machines ava --config qemu-tests.config.mjs --serial --tap
fi

if [ -s "$work/failures" ]; then
  printf '\nWhat failed:\n'
  cut -c 1-400 "$work/failures" | head -n 200
fi
printf '\nTimes:%s\n\n' "$durations"
if [ "$skipped" -gt 0 ]; then skipped=", $skipped skipped"; else skipped=; fi
echo "$passed passed, $failed failed$skipped"
[ "$failed" = 0 ]
