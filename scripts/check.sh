#!/bin/sh
# npm run check: the whole gate. Runs every part, also after one has failed, and says at the end which did.
# shellcheck shell=dash
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/node-modules.sh
. scripts/node-modules.sh
ensure_node_modules
PATH=$PWD/node_modules/.bin:$PATH
export PATH
node server/main.ts setup --for check || exit 1

failed=

# part <name> <command…>
part() {
  local name log
  name=$1
  shift
  log=$(mktemp)
  printf '%-12s' "$name"
  if "$@" >"$log" 2>&1; then
    echo ok
  else
    echo FAILED
    sed 's/^/    /' "$log"
    failed="$failed $name"
  fi
  rm -f "$log"
}

# Shell by its name or by its first line; what is in git or could be. No name here has a newline in it.
shell_files() {
  local file
  git ls-files --cached --others --exclude-standard | while IFS= read -r file; do
    [ -f "$file" ] || continue # deleted and not yet committed
    case $file in
      *.sh) printf '%s\n' "$file" ;;
      *.bats | */testdata/*) ;;
      *) if head -c 64 "$file" | head -n 1 | grep -Eqa '^#!.*[/ ](ba|da)?sh( |$)'; then printf '%s\n' "$file"; fi ;;
    esac
  done
}

lint_shell() {
  shell_files | xargs -d '\n' shellcheck --external-sources
}

format_shell() {
  shell_files | xargs -d '\n' shfmt -d -i 2 -ci
}

# A part whose tool is missing fails: nothing is skipped, in continuous integration or anywhere else.
part biome biome ci --colors=off --error-on-warnings .
part types tsc --noEmit
part 'dead code' knip
part shellcheck lint_shell
part shfmt format_shell
if [ "${1-}" != --no-bats ]; then part bats sh scripts/bats.sh; fi

if [ -n "$failed" ]; then
  echo "check failed:$failed" >&2
  exit 1
fi
echo 'check passed'
