#!/usr/bin/env bash
# As statistics.sh, with Mesa's compilers for NVIDIA (GA100), Apple (M1).
# Does nothing if the packages are not available (tests/drivers/sid.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."

sid=$(tests/drivers/sid.sh)
[ -n "$sid" ] || exit 0
export BDH_TEST_DRIVER=$sid
for device in nak:nouveau:170:ga100 agx:asahi:-:m1; do
    IFS=: read -r compiler kind id chip <<<"$device"
    echo "Kernels on $chip:"
    BDH_TEST_COMPILER=$compiler BDH_TEST_CHIP=$chip BDH_TEST_DRIVER_ARGUMENTS="$kind $id" \
        cargo test --quiet --test registers -- --ignored --nocapture
done
BDH_TEST_DRIVER_ARGUMENTS="nouveau 170" cargo test --quiet --test no_device -- --ignored
