#!/usr/bin/env bash
# Compares the scores of concepts with SciPy's. Needs the program in CARGO_TARGET_DIR and Python with
# venv; PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
work=$target/inspect-scipy
mkdir -p "$work"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scipy

# Lines that end in a question mark, without it, and lines that end in a full stop.
"$target/debug/bdh-gpu" generate --device cpu --quiet --prompt "KING:" --seed 1 --max-new-tokens 20000 >"$work/text"
sed -n 's/[?]$//p' "$work/text" | head -n 60 >"$work/questions"
sed -n 's/[.]$//p' "$work/text" | head -n 60 >"$work/statements"
"$target/debug/bdh-gpu" inspect --device cpu --quiet --concept "$work/questions" --against "$work/statements" \
    --format jsonl --top 100 | "$work/venv/bin/python" tests/inspect/scipy_check.py
