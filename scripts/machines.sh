#!/bin/sh
# npm run test:machines [-- <file>]: every test with virtual machines, also those that take too long for each run.
# shellcheck shell=dash
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh
ensure_node_modules
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node server/main.ts setup --for test
KATESKIT_MACHINES=all exec ava --config qemu-tests.config.mjs --serial --tap "$@"
