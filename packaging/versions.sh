#!/usr/bin/env bash
# Checks that all packages have one version, which a tag names too: versions.sh [TAG]
#
# With a tag, the changelog has to have a section for the version.
set -euo pipefail
cd "$(dirname "$0")/.."

version_of() {
    sed -n '/^\[package\]/,/^version = /s/^version = "\(.*\)"/\1/p' "$1"
}

version=$(version_of Cargo.toml)
status=0
disagree() {
    echo "error: $1 says ${2:-nothing}, expected $3" >&2
    status=1
}

for manifest in python web web/bindgen; do
    found=$(version_of "$manifest/Cargo.toml")
    [ "$found" = "$version" ] || disagree "$manifest/Cargo.toml" "$found" "$version, as Cargo.toml does"
done
found=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' web/package.json)
[ "$found" = "$version" ] || disagree web/package.json "$found" "$version, as Cargo.toml does"
for package in bdh-gpu bdh-gpu-python bdh-gpu-web bdh-gpu-web-bindgen; do
    found=$(grep -A 1 "^name = \"$package\"$" Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')
    [ "$found" = "$version" ] || disagree "Cargo.lock's $package" "$found" "$version, as Cargo.toml does"
done
# The Python package's is maturin's to fill in.
grep -q '^dynamic = .*"version"' python/pyproject.toml ||
    disagree python/pyproject.toml "a version of its own" 'dynamic = ["version"]'

# Wheels have their licences from below pyproject.toml, and links are no files on Windows. In a folder
# of their own, they are not in the way of the crate's in the source distribution.
for licence in LICENSE-MIT LICENSE-APACHE; do
    copy=python/licences/$licence
    cmp -s "$licence" "$copy" || disagree "$copy" "something else" "a copy of $licence"
done

if [ -n "${1:-}" ]; then
    [ "$1" = "v$version" ] || disagree "the tag" "$1" "v$version, as Cargo.toml does"
    grep -q "^## \[$version\]" CHANGELOG.md || disagree CHANGELOG.md "" "a section [$version]"
fi
exit "$status"
