#!/usr/bin/env bash
# Runs every test. Needs a Rust toolchain and Python 3.9 or newer. Where there is no graphics adapter, a software
# Vulkan driver is installed, and where there is no Python, that is (Debian and its kin, as root), so that all tests
# run everywhere. What shows best whether a driver is right runs on a second one too, where that can be had.
set -euo pipefail
cd "$(dirname "$0")"

# In the background of a script Ctrl-C is ignored, and every program inherits that. Some tests send it.
if [ -z "${BDH_GPU_SIGNALS:-}" ] && env --default-signal=INT true 2>/dev/null; then
    BDH_GPU_SIGNALS=default exec env --default-signal=INT bash ./test.sh "$@"
fi

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
program=$CARGO_TARGET_DIR/debug/bdh-gpu

has_adapter() {
    "$program" devices --format json --quiet | grep -q '"index":[0-9]'
}

# The tests' program: with their dependencies built in, `cargo build` would make another one.
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

cargo test

if driver=$(tests/drivers/swiftshader.sh) && [ -n "$driver" ]; then
    # The older name is for older Vulkan loaders.
    export VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver
    echo "On a second driver: $("$program" devices --quiet | grep SwiftShader)"
    # Its compiler is slow and uses one core, so both at once; all GPU tests would take half an hour.
    verified=$CARGO_TARGET_DIR/second-driver.txt
    "$program" verify >"$verified" &
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

python/test.sh
