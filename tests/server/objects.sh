#!/usr/bin/env bash
# Two servers that share conversations through an object store: the feature object-stores, which the
# default build leaves out, against moto's S3 server from PyPI. PYTHON names another interpreter than
# python3.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}/object-stores
# A target of its own: other features would rebuild what all other tests share.
cargo build --target-dir "$target" --features object-stores
"${PYTHON:-python3}" -m venv "$target/venv"
"$target/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[server]'
"$target/venv/bin/python" tests/server/objects.py "$target/debug/bdh-gpu"
