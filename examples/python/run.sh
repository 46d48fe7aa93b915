#!/usr/bin/env bash
# Makes stubs from the protos in a virtual environment of its own, and runs client.py against ADDRESS.
# usage: run.sh [ADDRESS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../../crates/proto/proto
work=${PYTHON_EXAMPLE_DIR:-$here/.venv}
if [ ! -x "$work/bin/python" ]; then
    python3 -m venv "$work"
    "$work/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi
mkdir -p "$work/stubs"
"$work/bin/python" -m grpc_tools.protoc -I "$protos" --python_out="$work/stubs" --grpc_python_out="$work/stubs" \
    ringfort/v1/kv.proto ringfort/v1/cluster.proto
PYTHONPATH="$work/stubs" "$work/bin/python" "$here/client.py" "$@"
