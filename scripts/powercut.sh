#!/bin/sh
# npm run test:powercut [-- <how many>]: cuts the power of virtual machines at 60 points drawn by chance, and at those of
# every run. KATESKIT_SEED=<the seed it printed> draws the same ones again. Takes hours without KVM.
# shellcheck shell=dash
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh
ensure_node_modules
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node server/main.ts setup --for test
KATESKIT_MACHINES=all KATESKIT_POWER_CUTS=${1:-60} exec ava --config qemu-tests.config.mjs --timeout 10h --serial --tap qemu-tests/powercut.test.ts
