#!/usr/bin/env bash
# Packs the crate and looks at its files. Fails on a warning. With --build, also does all that
# publishing does, except the upload: it builds the crate as users of crates.io do.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

tools
log=$work/crate.log
# One or both are left.
places=("$target/package/bdh-gpu-$version.crate" "$target/package/tmp-crate/bdh-gpu-$version.crate")
rm -f "${places[@]}"
command=(package --no-verify)
[ "${1:-}" != --build ] || command=(publish --dry-run)
cargo "${command[@]}" --package bdh-gpu --locked --allow-dirty >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
# These two are about the dry run, and about a version that has been published.
if grep '^warning' "$log" | grep -v -e 'aborting upload due to dry run' -e 'already exists on'; then
    fail "cargo ${command[*]} warns, expected no warning ($log)"
fi
for crate in "${places[@]}"; do
    [ -e "$crate" ] || continue
    python packaging/contents.py "$crate"
    exit
done
fail "cargo ${command[*]} has left no crate in $target/package"
