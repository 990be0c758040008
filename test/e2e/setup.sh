#!/usr/bin/env bash
# Installs what the end-to-end tests drive: VS Code as a server (code-server), the Node it wants and playwright-core,
# all from npm, and Chromium from Debian. Everything lies in $SALA_E2E_DIR (default ~/.cache/sala-e2e), outside the clone,
# so that a second clone finds it. Idempotent: a finished step leaves a stamp with its versions and is skipped; a broken-off
# step is made anew; two runs at once wait for each other.
# Wants Node >= 20 with npm, a C++ compiler, make and python3; root only to install Chromium.
set -euo pipefail

node_version=24.21.0
code_server_version=4.139.1
tools='playwright-core@1.65.1'
recipe=1 # Raised when a step below changes other than by a version.

cache=${SALA_E2E_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sala-e2e}
chromium=${CHROMIUM:-/usr/bin/chromium}
arch=$(node -p process.arch)
node_home=$cache/node/node_modules/node-linux-$arch

# once NAME VERSIONS COMMAND: runs COMMAND in an emptied $cache/NAME unless it ended well for VERSIONS before.
once() {
  local name=$1 want="recipe $recipe, $2" command=$3
  if [ "$(cat "$cache/$name.done" 2>/dev/null)" = "$want" ]; then return; fi
  echo "e2e: installing $name ($2)"
  rm -rf "$cache/$name.done" "${cache:?}/$name"
  mkdir -p "$cache/$name"
  echo '{ "private": true }' > "$cache/$name/package.json"
  # In the background: bash ignores `set -e` inside whatever stands behind an `if` or `||`.
  (cd "$cache/$name" && "$command") > "$cache/$name.log" 2>&1 &
  if ! wait $!; then
    tail -n 30 "$cache/$name.log" >&2
    echo "e2e: $name could not be installed; all of its output is in $cache/$name.log" >&2
    exit 1
  fi
  echo "$want" > "$cache/$name.done"
}

npm_add() { npm install --no-fund --no-audit --no-save --ignore-scripts "$@"; }

add_node() {
  npm install --no-fund --no-audit --no-save "node-linux-$arch@$node_version"
  "$node_home/bin/node" --version
}

add_tools() {
  PATH=$node_home/bin:$PATH
  # shellcheck disable=SC2086
  npm_add $tools
}

# Its own installer stops at a Kerberos module that needs system headers and that nothing here uses. So no install scripts
# run; the two native modules that ship no binary are compiled by hand, against the headers in the pinned Node's package.
add_code_server() {
  PATH=$node_home/bin:$PATH
  npm_add "code-server@$code_server_version"
  cd node_modules/code-server/lib/vscode
  npm_add --omit=dev
  JOBS=2 npm_config_nodedir=$node_home npm rebuild --foreground-scripts @vscode/spdlog @vscode/native-watchdog
  node -e 'for (const m of ["@vscode/spdlog", "@vscode/native-watchdog", "node-pty", "@parcel/watcher"]) require(m)'
  # The built-in language extensions; without TypeScript's own server VS Code reports it as deleted.
  (cd extensions && npm_add --omit=dev && node postinstall.mjs)
  # 300 MB that no test starts: agents' runtimes, source maps.
  rm -rf node_modules/@github/copilot-sdk* node_modules/@microsoft/mxc-sdk node_modules/@devcontainers \
    node_modules/@vscode/sandbox-runtime extensions/copilot
  find . -name '*.map' -type f -delete
}

add_chromium() {
  if [ -x "$chromium" ]; then return; fi
  if [ "$(id -u)" != 0 ]; then
    echo "e2e: Chromium is missing: apt-get install chromium, or set CHROMIUM to its path" >&2
    exit 1
  fi
  echo 'e2e: installing Chromium'
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; } > "$cache/chromium.log" 2>&1; then
    tail -n 30 "$cache/chromium.log" >&2
    exit 1
  fi
}

mkdir -p "$cache"
exec 9> "$cache/lock"
flock 9
add_chromium
once node "$node_version" add_node
once tools "$tools" add_tools
# The browser test of the webview needs no VS Code.
if [ "${1:-}" != --browser-only ]; then once code-server "$code_server_version on Node $node_version" add_code_server; fi
