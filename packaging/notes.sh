#!/usr/bin/env bash
# Prints the changelog's section about the version in Cargo.toml, without its heading.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[package\]/,/^version = /s/^version = "\(.*\)"/\1/p' Cargo.toml)
notes=$(awk -v heading="## [$version]" '
    /^## / { here = index($0, heading) == 1; next }
    here' CHANGELOG.md)
[ -n "$notes" ] || {
    echo "error: CHANGELOG.md has no section [$version], or an empty one" >&2
    exit 1
}
echo "$notes"
