#!/usr/bin/env bash
# Builds the npm package: its wasm modules into web/js/wasm, the shipped model into web/model, and the
# page, which any static host serves, into web/dist.
#
# Needs Rust. Installs Rust's target wasm32-unknown-unknown if rustup is there, npm if it is missing
# (Debian and its kin, as root), and wasm-opt (the npm package binaryen) into the target directory.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_INCREMENTAL=0
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/web-tools
mkdir -p "$tools"

if command -v rustup >/dev/null; then
    rustup --quiet target add wasm32-unknown-unknown
fi
without() {
    echo "error: the npm package cannot be built ($1)" >&2
    exit 1
}

. tests/npm.sh
need "$tools"
packages web/tools "$tools" || true

# WebAssembly's features that the modules use.
features=(--enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext
    --enable-mutable-globals --enable-reference-types --enable-multivalue)

# Builds one module: module NAME [CARGO OPTIONS]
module() {
    local name=$1
    shift
    # A folder of its own, whose flags are not those of native builds.
    RUSTFLAGS=-Ctarget-feature=+simd128 cargo build --package bdh-gpu-web "$@" --profile web \
        --target wasm32-unknown-unknown --target-dir "$tools/build"
    cargo run --quiet --package bdh-gpu-web-bindgen -- \
        "$tools/build/wasm32-unknown-unknown/web/bdh_gpu_web.wasm" "$tools/module" "$name"
    "$tools/node_modules/.bin/wasm-opt" -Oz "${features[@]}" \
        "$tools/module/${name}_bg.wasm" -o "$tools/module/small.wasm"
    mv "$tools/module/small.wasm" "$tools/module/${name}_bg.wasm"
}

rm -rf "$tools/module"
module bdh_gpu_web
# For models with a tokenizer.json: the library that reads it is as large as the engine.
module bdh_gpu_web_tokenizers --features tokenizers
rm -rf web/js/wasm web/model
mv "$tools/module" web/js/wasm
mkdir web/model
cp LICENSE-MIT LICENSE-APACHE web
cp models/bdh-shakespeare/{config.json,generation_config.json,model.safetensors} web/model
web/page.sh
ls -l web/js/wasm/*.wasm
