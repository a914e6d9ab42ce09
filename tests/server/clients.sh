#!/usr/bin/env bash
# Runs unmodified clients against the server: openai, langchain-openai, litellm and
# lm-evaluation-harness from PyPI, openai and ai from npm, and schemathesis over its description;
# then the page in Chromium, if that is installed. Needs the program in CARGO_TARGET_DIR and Python
# with venv; PYTHON names another interpreter than python3. lm-evaluation-harness also runs in its own
# process, with the wheel that python/test.sh builds, and has to give the server's results.
#
# If packages are not available, one line says why, and what needs them is left out.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
program=$target/debug/bdh-gpu
work=$target/server-clients
venv=$work/venv
mkdir -p "$work"

"$program" serve --device cpu --port 0 --parallel 4 --neurons 2>"$work/server.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 600); do
    grep -q 'is ready' "$work/server.log" && break
    sleep 0.2
done
url=$(sed -n 's/^listening on //p' "$work/server.log")
if ! grep -q 'is ready' "$work/server.log"; then
    cat "$work/server.log" >&2
    exit 1
fi

# No package asks anything but this server.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export LITELLM_LOCAL_MODEL_COST_MAP=True LANGCHAIN_TRACING_V2=false SCHEMATHESIS_REPORT_PROMPT=false

"${PYTHON:-python3}" -m venv "$venv"
if "$venv/bin/pip" install --quiet --disable-pip-version-check \
    openai langchain-openai litellm 'lm-eval[api]' tokenizers schemathesis >"$work/pip.log" 2>&1; then
    "$venv/bin/python" tests/server/clients.py "$url" "$program" 2>"$work/clients.log" || {
        tail -n 60 "$work/clients.log" >&2
        exit 1
    }
    wheel=$(ls "$target"/python-wheel/*.whl 2>/dev/null | head -n 1)
    if [ -z "$wheel" ]; then
        echo "error: $target/python-wheel has no wheel; run python/test.sh, which builds it" >&2
        exit 1
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheel"
    "$venv/bin/python" tests/batch/evaluation.py "$program" "$url" >"$work/evaluation.log" 2>&1 || {
        tail -n 60 "$work/evaluation.log" >&2
        exit 1
    }
    grep equal "$work/evaluation.log"
    checks=not_a_server_error,status_code_conformance,response_schema_conformance
    # It keeps a cache where it runs.
    (cd "$work" && "$venv/bin/schemathesis" run "$url/openapi.json" --phases examples,coverage,fuzzing \
        --max-examples 20 --checks "$checks" --seed 1 --request-timeout 60 --no-color \
        >"$work/schemathesis.log" 2>&1) || {
        tail -n 60 "$work/schemathesis.log" >&2
        exit 1
    }
    echo "schemathesis: ok"
else
    echo "note: no Python clients of the server ($(grep -m 1 -i error "$work/pip.log"))" >&2
fi

# A module finds packages beside itself only.
cp tests/server/*.mjs "$work"
if command -v npm >/dev/null && (cd "$work" && npm install --silent --no-audit --no-fund \
    --ignore-scripts --no-save openai ai @ai-sdk/openai-compatible playwright-core) >"$work/npm.log" 2>&1; then
    node "$work/clients.mjs" "$url"
    if [ -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
        node "$work/page.mjs" "$url"
    else
        echo "note: no Chromium: the server's page is not tried" >&2
    fi
else
    echo "note: no JavaScript clients of the server (npm is missing, or its packages)" >&2
fi

kill -TERM "$server"
wait "$server"
trap - EXIT
