#!/bin/sh
# npm run bench:<name>: sets up what tests need, then runs bench/<name>.ts with the rest of the arguments.
# shellcheck shell=dash
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh
ensure_node_modules
name=$1
shift
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node server/main.ts setup --for test
exec node "bench/$name.ts" "$@"
