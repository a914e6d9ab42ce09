#!/usr/bin/env bash
# Compares registers, spills, workgroup memory and code size of every kernel, as Mesa's compiler for
# AMD makes it, with the tables in tests/drivers/registers/; and checks that a driver which computes
# nothing is noticed. AMDGPU_GPU_ID names one chip instead (navi21, gfx1150, …), whose table is
# printed if there is none to compare with.
#
# UPDATE=1 writes the tables. Does nothing if RADV is not available (tests/drivers/radv.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."

radv=$(tests/drivers/radv.sh)
[ -n "$radv" ] || exit 0
export BDH_TEST_DRIVER=$radv BDH_TEST_COMPILER=aco
for chip in ${AMDGPU_GPU_ID:-navi31 vega10}; do
    echo "Kernels on AMD $chip:"
    AMDGPU_GPU_ID=$chip BDH_TEST_CHIP=$chip \
        cargo test --quiet --test registers -- --ignored --nocapture
done
cargo test --quiet --test no_device -- --ignored --skip verify_rejects_all_kernels
