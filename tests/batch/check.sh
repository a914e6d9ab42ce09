#!/usr/bin/env bash
# Generates for rows on Ray while an actor is killed, and compares them with one process's:
# check.sh [--long]
#
# --long takes 2,000 prompts and three nodes on this machine, loses one of them, and does the same in
# Spark, with Java, which is installed if it is missing (Debian and its kin, as root). Needs the
# wheel of python/test.sh, and Python with venv; PYTHON names another interpreter than python3. If
# packages are not available, one line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath "${CARGO_TARGET_DIR:-target}")
work=$target/batch
venv=$work/venv
mkdir -p "$work"
long=${1:-}

wheel=$(ls "$target"/python-wheel/*.whl 2>/dev/null | head -n 1)
if [ -z "$wheel" ]; then
    echo "error: $target/python-wheel has no wheel; run python/test.sh, which builds it" >&2
    exit 1
fi

"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/pip" install --quiet --disable-pip-version-check --retries 1)
if ! "${pip[@]}" 'ray[data]>=2.40' pytest >"$work/pip.log" 2>&1; then
    echo "note: no rows are generated on Ray ($(grep -m 1 -i error "$work/pip.log"))" >&2
    exit 0
fi
"${pip[@]}" --no-deps --force-reinstall "$wheel"

# $1: its name, the rest: a command that fails with what it printed.
quietly() {
    local log=$work/$1.log
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        exit 1
    fi
    grep -E "equal to one process's|^[0-9]+ s " "$log"
}

"$venv/bin/python" -m pytest -q -p no:cacheprovider python/tests/test_batch.py -k "tables or frames or spark"
export RAY_USAGE_STATS_ENABLED=0 PYTHONPATH=tests/batch
if [ "$long" != --long ]; then
    quietly ray "$venv/bin/python" tests/batch/on_ray.py 60
    exit 0
fi
quietly ray "$venv/bin/python" tests/batch/on_ray.py 2000 --long

if ! command -v java >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update && apt-get install -y --no-install-recommends default-jre-headless) >"$work/apt.log" 2>&1 || true
fi
if ! command -v java >/dev/null; then
    echo "note: no rows are generated in Spark (Java is missing)" >&2
elif ! "${pip[@]}" pyspark >"$work/pip.log" 2>&1; then
    echo "note: no rows are generated in Spark ($(grep -m 1 -i error "$work/pip.log"))" >&2
else
    quietly spark "$venv/bin/python" tests/batch/on_spark.py 2000 --long
fi
