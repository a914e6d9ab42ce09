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

if ! command -v npm >/dev/null; then
    command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || without "install Node.js and npm"
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get update
        apt-get install -y --no-install-recommends nodejs npm
    } >"$tint/log" 2>&1 || without "apt-get install nodejs npm fails: $(tail -n 1 "$tint/log")"
fi

# Skipped while the lock file is the same.
if ! cmp -s tests/tint/package-lock.json "$tint/installed.json"; then
    cp tests/tint/package.json tests/tint/package-lock.json "$tint"
    (cd "$tint" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries=1) \
        >"$tint/log" 2>&1 || without "npm ci fails: $(grep -m 1 -i err "$tint/log")"
    (cd "$tint" && node --input-type=module -e 'import "webgpu"; process.exit()') \
        >"$tint/log" 2>&1 || without "$(node --version) fails: $(grep -m 1 -i err "$tint/log")"
    cp tests/tint/package-lock.json "$tint/installed.json"
fi
# A module finds packages beside itself only.
cp tests/tint/check.mjs "$tint"
node "$tint/check.mjs" "$folder"
