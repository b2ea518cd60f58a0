#!/bin/sh
# npm start: installs the node modules when they are missing, then leaves everything to server/main.ts.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh
ensure_node_modules
exec node_modules/.bin/node server/main.ts start "$@"
