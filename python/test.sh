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

# With these, bdh_gpu.view is tested and the notebook runs.
notebooks=$target/python-notebooks
mkdir -p "$notebooks"
if "$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1 \
    'anywidget>=0.9' 'traitlets>=5' 'ipykernel>=6' 'nbconvert>=7' 2>"$notebooks/pip.log"; then
    has_notebooks=true
else
    echo "note: the widget and the notebook do not run ($(grep -m 1 -i error "$notebooks/pip.log"))" >&2
    has_notebooks=false
fi

BDH_GPU_PROGRAM=$target/debug/bdh-gpu BDH_GPU_FAULTS=$target/debug/libvulkan_faults.so \
    "$venv/bin/python" -m pytest python/tests "$@"

# A cell that fails ends it. Notebooks above 1 MB open slowly or not at all.
if $has_notebooks; then
    if ! IPYTHONDIR=$notebooks JUPYTER_RUNTIME_DIR=$notebooks "$venv/bin/jupyter" nbconvert --execute --to notebook \
        python/examples/neurons.ipynb --output-dir "$notebooks" --output neurons.ipynb &>"$notebooks/nbconvert.log"; then
        cat "$notebooks/nbconvert.log" >&2
        exit 1
    fi
    size=$(wc -c <"$notebooks/neurons.ipynb")
    if [ "$size" -ge 1000000 ]; then
        echo "error: python/examples/neurons.ipynb takes $size bytes with its outputs, expected less than 1000000" >&2
        exit 1
    fi
fi
