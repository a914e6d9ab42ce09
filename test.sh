#!/usr/bin/env bash
# Runs every test. Needs a Rust toolchain and Python 3.9 or newer.
#
# Installs a software Vulkan driver, Python and Node.js if they are missing (Debian and its kin, as
# root), so all tests run on any machine. The most telling driver tests also run on a second driver,
# if one is available. Then come Tint, Chromium's WGSL compiler, and the registers of every kernel on
# AMD's graphics cards, the CPU backend on an emulated ARM processor, rows on Ray, unmodified clients
# of the server, and the inspector's pages in Chromium; if their packages are not available, a line
# says why. So it is with the npm package, which is built and compared with the native program in
# Chromium and in Dawn, Chromium's WebGPU without a browser, and with ShellCheck, actionlint and
# mandoc, which check scripts, workflows and manual pages.
#
# --long adds the compilers for NVIDIA and Apple, the Vulkan validation layers, every kernel on the
# second driver, more tests and a second processor for ARM, an object store for the server's states,
# SciPy, many rows on Ray and Spark, long runs of the server, and all packages, installed into bare
# Debian systems.
set -euo pipefail
cd "$(dirname "$0")"

# Background jobs inherit an ignored SIGINT, and programs under nohup an ignored SIGHUP. Some tests
# send them: restore the defaults.
if [ -z "${BDH_GPU_SIGNALS:-}" ] && env --default-signal=INT,HUP true 2>/dev/null; then
    BDH_GPU_SIGNALS=default exec env --default-signal=INT,HUP bash ./test.sh "$@"
fi

case "${1:-}" in
    --long) long=true depth=(--long) ;;
    "") long=false depth=() ;;
    *)
        echo "usage: ./test.sh [--long]" >&2
        exit 2
        ;;
esac

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
program=$CARGO_TARGET_DIR/debug/bdh-gpu

# Without this folder, Mesa prints an error for every device.
if [ ! -d "${XDG_RUNTIME_DIR:-}" ]; then
    export XDG_RUNTIME_DIR=$CARGO_TARGET_DIR/runtime
    mkdir -p -m 700 "$XDG_RUNTIME_DIR"
fi

has_adapter() {
    "$program" devices --format json --quiet | grep -q '"index":[0-9]'
}

# Build via `cargo test`: dev-dependencies change feature unification, and `cargo build` would
# rebuild the binary.
cargo test --no-run

if ! has_adapter; then
    wanted="a Vulkan driver, for instance the package mesa-vulkan-drivers (Debian, Ubuntu)"
    if ! command -v apt-get >/dev/null; then
        echo "error: there is no graphics adapter and no apt-get to install one with; install $wanted" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "error: there is no graphics adapter and no right to install one; as root, install $wanted" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends mesa-vulkan-drivers
    if ! has_adapter; then
        echo "error: mesa-vulkan-drivers is installed, but no adapter has appeared; install $wanted" >&2
        exit 1
    fi
fi

texts=$CARGO_TARGET_DIR/shader-texts
rm -rf "$texts"
BDH_SHADER_TEXTS=$texts cargo test

# The tests have written every kernel's text, in all layouts.
tests/tint/check.sh "$texts"

tests/drivers/statistics.sh
if $long; then
    tests/drivers/other-statistics.sh
    tests/drivers/validation.sh
fi

if driver=$(tests/drivers/swiftshader.sh) && [ -n "$driver" ]; then
    # VK_ICD_FILENAMES is for older Vulkan loaders.
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver
    echo "On a second driver: $("$program" devices --quiet | grep SwiftShader)"
    # Both at once: its compiler is slow and uses one core. All GPU tests would take half an hour.
    verified=$CARGO_TARGET_DIR/second-driver.txt
    quick=--quick
    if $long; then
        quick=
    fi
    "$program" verify $quick >"$verified" &
    verification=$!
    trap 'kill "$verification" 2>/dev/null' EXIT
    cargo test --test gpu_goldens -- --skip twenty_greedy_texts --skip any_burst
    if ! wait "$verification"; then
        cat "$verified"
        exit 1
    fi
    trap - EXIT
    tail -n 8 "$verified"
    unset VK_DRIVER_FILES VK_ICD_FILENAMES
fi

tests/arm/check.sh "${depth[@]}"
python/test.sh
tests/batch/check.sh "${depth[@]}"
packaging/check.sh "${depth[@]}"
tests/server/clients.sh
tests/page/check.sh
tests/web/check.sh
if $long; then
    tests/server/objects.sh
    tests/inspect/scipy.sh
    for what in independence cancellations requests=20000; do
        python3 tests/server/soak.py "$program" "$what" --device cpu
    done
    python3 tests/server/soak.py "$program" independence=40 --device gpu
fi
