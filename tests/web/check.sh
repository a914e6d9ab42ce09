#!/usr/bin/env bash
# Checks the npm package and its page in Node and Chromium: check.sh [mock|wasm] [SCREENSHOTS]
#
# With mock (if absent), a mock stands in for the wasm module: the package's own JavaScript is
# checked, in two minutes. With wasm, the suites run on the module in web/js/wasm, which web/build.sh
# makes, and the engine is compared with the native program in CARGO_TARGET_DIR.
#
# Installs Chromium, and Node.js with npm, if they are missing (Debian and its kin, as root;
# CHROMIUM names another browser), and npm packages into the target directory. If that fails, prints
# one line that says why and succeeds.
set -euo pipefail

module=${1:-mock}
screenshots=${2:+$(realpath -m "$2")}
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/web
program=$target/debug/bdh-gpu
mkdir -p "$work"

without() {
    echo "note: the npm package is not tested ($1)" >&2
    exit 0
}

if ! command -v npm >/dev/null || [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
    command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || without "install Node.js, npm and Chromium"
    export DEBIAN_FRONTEND=noninteractive
    wanted=()
    command -v npm >/dev/null || wanted+=(nodejs npm)
    [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || wanted+=(chromium)
    {
        apt-get update
        apt-get install -y --no-install-recommends "${wanted[@]}"
    } >"$work/log" 2>&1 || without "apt-get install ${wanted[*]} fails: $(tail -n 1 "$work/log")"
fi
[ "$(node -p 'process.versions.node.split(".")[0] >= 20')" = true ] || without "Node.js $(node --version) is too old"

# Skipped while the lock file is the same.
if ! cmp -s tests/web/package-lock.json "$work/installed.json"; then
    cp tests/web/package.json tests/web/package-lock.json "$work"
    (cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1) \
        >"$work/log" 2>&1 || without "npm ci fails: $(grep -m 1 -i err "$work/log")"
    cp tests/web/package-lock.json "$work/installed.json"
fi
# A module finds packages beside itself only.
cp -r tests/web/*.mjs tests/web/{cases,mock,samples} "$work"

export BDH_WEB=$PWD/web BDH_WEB_MODULE=$module
# Alone, because it measures how long tasks of the page take.
node "$work/page.mjs" ${screenshots:+"$screenshots"}
if [ "$module" = mock ]; then
    node --expose-gc "$work/protocol-node.mjs"
    # Waits for timers most of the time.
    node "$work/cache.mjs" >"$work/cache.txt" 2>&1 &
    cache=$!
    trap 'kill "$cache" 2>/dev/null' EXIT
fi
node "$work/protocol.mjs"
node "$work/package.mjs"
if [ "$module" = mock ]; then
    if ! wait "$cache"; then
        cat "$work/cache.txt"
        exit 1
    fi
    trap - EXIT
    cat "$work/cache.txt"
else
    node "$work/engine.mjs" "$program"
fi
