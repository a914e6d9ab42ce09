#!/usr/bin/env bash
# Runs `verify` on llvmpipe under the Khronos validation layer: the core checks and those of
# synchronization; then a sample of the kernels under GPU-AV, which instruments their code and finds
# accesses out of bounds and races in workgroup memory. Fails on any message but the one that the
# settings leave out (naga strides arrays in workgroup memory, which is harmless).
#
# Does nothing if the packages are not available (tests/drivers/sid.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."

sid=$(tests/drivers/sid.sh)
[ -n "$sid" ] || exit 0
target=${CARGO_TARGET_DIR:-$PWD/target}
log=$target/validation.txt

# validated SETTINGS COMMAND…
validated() {
    local settings=$PWD/tests/drivers/validation/$1
    shift
    if ! VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH=$settings "$@" >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    if grep -E 'VUID-|SYNC-HAZARD|Race|(Validation|BestPractices) *(Error|Warning)|UNASSIGNED|WARNING-' "$log" >"$log.messages"; then
        sort "$log.messages" | uniq -c | sort -rn | head -n 40
        echo "error: the validation layer has found this; all of it is in $log" >&2
        exit 1
    fi
    tail -n 2 "$log"
}

# A layer that the loader does not find would find nothing.
if ! VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LOADER_DEBUG=all \
    "$sid" lvp - "$target/debug/bdh-gpu" devices 2>&1 | grep -c 'Insert instance layer' >/dev/null; then
    echo "error: the validation layer is not loaded" >&2
    exit 1
fi

echo "verify under core and synchronization validation:"
validated synchronization.txt "$sid" lvp - "$target/debug/bdh-gpu" verify
echo "a sample of the kernels under GPU-AV:"
CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$sid lvp -" validated gpu-av.txt \
    cargo test --quiet --test validation -- --ignored --nocapture
