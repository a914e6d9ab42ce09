#!/usr/bin/env bash
# Builds the Python package as a wheel, installs it into a virtual environment of its own, and runs its tests. Needs a
# Rust toolchain and Python 3.9 or newer, which is installed where it is missing (Debian and its kin, as root).
# PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
target=$CARGO_TARGET_DIR
venv=$target/python-venv

# A virtual environment needs more than the interpreter: Debian has it in a package of its own.
has_python() {
    command -v "$python" >/dev/null && "$python" - <<'END' 2>/dev/null
import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 9))
END
}

if ! has_python; then
    wanted="Python 3.9 or newer with venv, for instance the packages python3 and python3-venv (Debian, Ubuntu)"
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ] || [ "$python" != python3 ]; then
        echo "error: $python is not there, older than 3.9, or without venv; install $wanted" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends python3 python3-venv
    if ! has_python; then
        echo "error: python3 and python3-venv are installed, but $python still cannot be used; install $wanted" >&2
        exit 1
    fi
fi

"$python" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2' 'pytest>=8' 'numpy>=1.26'

# Both, so that the program's tests and the package share one build of all dependencies.
cargo build -p bdh-gpu -p bdh-gpu-python -p vulkan-faults
rm -rf "$target/python-wheel"
"$venv/bin/maturin" build --quiet --locked --profile dev --manifest-path python/Cargo.toml \
    --interpreter "$venv/bin/python" --out "$target/python-wheel"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$target"/python-wheel/*.whl

BDH_GPU_PROGRAM=$target/debug/bdh-gpu BDH_GPU_FAULTS=$target/debug/libvulkan_faults.so \
    "$venv/bin/python" -m pytest python/tests "$@"
