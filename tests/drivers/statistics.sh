#!/usr/bin/env bash
# Prints registers, spills, workgroup memory and code size of every kernel as Mesa's compiler for
# AMD makes it: an RX 7900 XTX, or the chip that AMDGPU_GPU_ID names (navi21, vega10, gfx1150, …).
# Prints nothing if RADV is not available (tests/drivers/radv.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."

radv=$(tests/drivers/radv.sh)
[ -n "$radv" ] || exit 0
echo "Kernels on AMD ${AMDGPU_GPU_ID:-navi31}:"
BDH_TEST_RADV=$radv cargo test --quiet --test registers -- --ignored --nocapture
