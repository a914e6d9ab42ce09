#!/usr/bin/env bash
# Validates every *.wgsl below a folder with Tint, Chromium's WGSL compiler: check.sh DIR
#
# Installs Tint (the npm package webgpu) into the target directory, and Node.js 18 or newer with npm
# if it is missing (Debian and its kin, as root). If that fails, prints one line that says why and
# succeeds.
set -euo pipefail

folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.."
tint=${CARGO_TARGET_DIR:-target}/tint
mkdir -p "$tint"

without() {
    echo "note: no Tint ($1): WGSL is validated by naga only" >&2
    exit 0
}

. tests/npm.sh
need "$tint"
if packages tests/tint "$tint"; then
    (cd "$tint" && node --input-type=module -e 'import "webgpu"; process.exit()') >"$tint/log" 2>&1 || {
        rm "$tint/installed.json"
        without "$(node --version) fails: $(grep -m 1 -i err "$tint/log")"
    }
fi
# A module finds packages beside itself only.
cp tests/tint/check.mjs "$tint"
node "$tint/check.mjs" "$folder"
