#!/usr/bin/env bash
# Runs the program on emulated processors: without AVX, with AVX2, and with what this machine has. All
# write the same text: processors.sh PROGRAM
#
# Needs qemu-x86_64-static (Debian: qemu-user-static).
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/common.sh

program=$1
command -v qemu-x86_64-static >/dev/null || fail "there is no qemu-x86_64-static; install the package qemu-user-static"
options=(generate --prompt "To be" --seed 7 --max-new-tokens 40 --device cpu --threads 1 --quiet)
expected=$("$program" "${options[@]}")
for processor in Nehalem Haswell; do
    text=$(qemu-x86_64-static -cpu "$processor" "$program" "${options[@]}" 2>"$work/qemu.log") || {
        cat "$work/qemu.log" >&2
        fail "the program does not run on $processor"
    }
    [ "$text" = "$expected" ] || fail "on $processor it writes '$text', expected '$expected'"
    echo "$processor: the same text"
done
