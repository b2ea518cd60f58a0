#!/bin/sh
# Runs the tests of everything that is written in shell, and prints TAP.
set -eu
cd "$(dirname "$0")/.."
git ls-files --cached --others --exclude-standard -z '*.bats' | xargs -0 -r bats --tap "$@"
