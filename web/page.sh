#!/usr/bin/env bash
# Puts the page together as a folder for any static host: page.sh [PACKAGE [OUT]]
#
# PACKAGE holds page/, js/ with the wasm module, and model/: this folder if absent. OUT is dist/ in
# it. Run build.sh first. Fails if a visit downloads more than 6 MB; the module that reads
# tokenizer.json is downloaded only for models that need it.
set -euo pipefail

package=$(cd "${1:-$(dirname "$0")}" && pwd)
out=${2:-$package/dist}
# What the server's page has too.
shared=$(cd "$(dirname "$0")/../src/server/page" && pwd)
limit=6000000

if [ ! -f "$package/js/wasm/bdh_gpu_web.js" ]; then
    echo "error: $package/js/wasm/bdh_gpu_web.js: not found; run web/build.sh first" >&2
    exit 1
fi
rm -rf "$out"
mkdir -p "$out/js/wasm" "$out/model"
cp "$package"/page/* "$shared"/{look.css,tokens.js} "$out"
cp "$package"/js/*.js "$out/js"
cp "$package"/js/wasm/*.js "$package"/js/wasm/*.wasm "$out/js/wasm"
cp "$package"/model/{config.json,generation_config.json,model.safetensors} "$out/model"

size=$(find "$out" -type f ! -name '*_tokenizers*' -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
if [ "$size" -gt "$limit" ]; then
    echo "error: $out takes $size bytes to visit; expected at most $limit" >&2
    exit 1
fi
echo "$out: $size bytes to visit"
