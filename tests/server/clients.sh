#!/usr/bin/env bash
# Runs unmodified clients against the server: openai, langchain-openai, litellm and
# lm-evaluation-harness from PyPI, then schemathesis over its description. Needs the program in
# CARGO_TARGET_DIR and Python with venv; PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
program=$target/debug/bdh-gpu
venv=$target/server-venv
"${PYTHON:-python3}" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
    openai langchain-openai litellm 'lm-eval[api]' schemathesis

log=$target/server-clients.log
"$program" serve --device cpu --port 0 --parallel 4 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
    url=$(sed -n 's/^listening on //p' "$log")
    grep -q 'is ready' "$log" && break
    sleep 0.2
done

# No package asks anything but this server.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export LITELLM_LOCAL_MODEL_COST_MAP=True LANGCHAIN_TRACING_V2=false
"$venv/bin/python" tests/server/clients.py "$url" "$program"
"$venv/bin/schemathesis" run "$url/openapi.json" --phases examples,coverage,fuzzing --max-examples 20 \
    --checks not_a_server_error,status_code_conformance,response_schema_conformance --seed 1 \
    --request-timeout 60 --no-color >"$target/schemathesis.txt" || {
    tail -n 60 "$target/schemathesis.txt"
    exit 1
}
kill -TERM "$server"
wait "$server"
trap - EXIT
echo "Unmodified clients of the server: passed"
