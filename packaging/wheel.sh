#!/usr/bin/env bash
# Builds the Python package as a wheel for every CPython from 3.9 on, and tries it in a virtual
# environment. TARGET names another platform than this machine's. Needs Rust and Python 3.9 or newer.
#
# The last line of the output is the wheel's path.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

tools 'maturin>=1.9,<2'
options=(--profile dist --locked --manifest-path python/Cargo.toml --target "$triple" --compatibility)
if $zig; then
    tools ziglang auditwheel
    options+=(manylinux2014 --zig)
else
    options+=(pypi)
fi
# maturin has another linker script than cargo-zigbuild: in one folder, each would rebuild what the
# other has built.
options+=(--target-dir "$work/wheel-build")
rm -rf "$work/wheel"
maturin build "${options[@]}" --out "$work/wheel"
wheel=$(ls "$work"/wheel/*.whl)
python packaging/contents.py "$wheel"
if $zig; then
    # The wheel's name promises it; this looks at the symbols.
    auditwheel show "$wheel" | tee "$work/auditwheel.txt"
    grep -q 'manylinux_2_17_' "$work/auditwheel.txt" || fail "$wheel is no manylinux_2_17 wheel"
fi

# TARGET may be of a kind that this machine does not run.
if [ -z "${TARGET:-}" ]; then
    venv=$work/wheel-venv
    python -m venv --clear "$venv"
    [ -d "$venv/Scripts" ] && interpreter=$venv/Scripts/python || interpreter=$venv/bin/python
    "$interpreter" -m pip install --quiet "$wheel"
    (cd "$work" && "$interpreter" - "$OLDPWD/python/README.md" <"$OLDPWD/packaging/quick_start.py")
fi
mv "$wheel" "$out"
echo "$out/$(basename "$wheel")"
