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

has_adapter() {
    cargo run --quiet -- devices --format json --quiet | grep -q '"index":[0-9]'
}

cargo build

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
    echo "On a second driver: $(cargo run --quiet -- devices --quiet | grep SwiftShader)"
    cargo run --quiet -- verify | tail -n 8
    # Its compiler is slow: all GPU tests would take half an hour.
    cargo test --test gpu_beams --test gpu_goldens -- --skip twenty_greedy_texts --skip any_burst --skip broken_beam_kernel
    unset VK_DRIVER_FILES VK_ICD_FILENAMES
fi

python/test.sh
