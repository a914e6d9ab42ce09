#!/usr/bin/env bash
# Builds the library for aarch64 and runs the CPU backend's tests under QEMU: check.sh [--long]
#
# The processor is a Cortex-A53, which has NEON and nothing beyond the baseline: an instruction that
# it lacks ends the test. Clippy lints the same build. --long adds tests that take minutes, and runs
# all on QEMU's richest processor too.
#
# Installs a cross compiler and QEMU if they are missing (Debian and its kin, as root), and the
# Rust target through rustup. If that fails, prints one line that says why and succeeds.
set -euo pipefail
cd "$(dirname "$0")/../.."

long=${1:-}
machine=aarch64-unknown-linux-gnu
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/arm
mkdir -p "$work"

without() {
    echo "note: nothing is run on aarch64 ($1)" >&2
    exit 0
}

# A machine with this processor runs all tests on it anyway.
[ "$(uname -sm)" = "Linux x86_64" ] || without "this is $(uname -sm): QEMU is set up for Linux x86_64"

wanted=()
command -v qemu-aarch64-static >/dev/null || wanted+=(qemu-user-static)
command -v aarch64-linux-gnu-gcc >/dev/null || wanted+=(gcc-aarch64-linux-gnu)
[ -e /usr/aarch64-linux-gnu/lib/libc.so ] || wanted+=(libc6-dev-arm64-cross)
if [ ${#wanted[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        without "install ${wanted[*]}"
    fi
    {
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}"
    } >"$work/log" 2>&1 || without "apt-get install ${wanted[*]} fails: $(tail -n 1 "$work/log")"
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$machine" ]; then
    rustup target add "$machine" >"$work/log" 2>&1 ||
        without "rustup target add $machine fails: $(tail -n 1 "$work/log")"
fi

# clippy-driver compiles as well as lints. The flags hold for this target only: tools of the build
# stay those of the other tests.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export RUSTC_WORKSPACE_WRAPPER=clippy-driver RUSTFLAGS=-Dwarnings

# Runs tests on a processor: on CPU ARGUMENT…
#
# The tests spend no time in dependencies: to optimise those would take longer than it saves.
on() {
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1 -L /usr/aarch64-linux-gnu"
    shift
    cargo test --target "$machine" --no-default-features --config 'profile.dev.package."*".opt-level = 0' "$@"
}

if [ "$long" = --long ]; then
    for cpu in cortex-a53 max; do
        on "$cpu" --lib --test cpu_goldens -- --skip shader_tests
    done
else
    # Left out: a text of the shipped model, and 27 runs of a team, which know no instructions.
    on cortex-a53 --lib --test cpu_goldens -- backend::cpu:: backend::codes:: rotary match \
        --skip the_shipped_model --skip results_do_not_depend
fi
