#!/usr/bin/env bash
# Makes the source distribution of the Python package. With --build, also builds and tries it in a
# virtual environment, as pip does where there is no wheel. Needs Rust and Python 3.9 or newer.
#
# The last line of the output is its path.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

tools 'maturin>=1.9,<2'
rm -rf "$work/sdist"
maturin sdist --manifest-path python/Cargo.toml --out "$work/sdist"
sdist=$(ls "$work"/sdist/*.tar.gz)
python packaging/contents.py "$sdist"
if [ "${1:-}" = --build ]; then
    venv=$work/sdist-venv
    python -m venv --clear "$venv"
    # The tests' profile, whose dependencies are there already.
    "$venv/bin/pip" install --quiet --config-settings=build-args='--profile dev' "$sdist"
    (cd "$work" && "$venv/bin/python" - "$OLDPWD/python/README.md" <"$OLDPWD/packaging/quick_start.py")
fi
mv "$sdist" "$out"
echo "$out/$(basename "$sdist")"
