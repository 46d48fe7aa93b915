#!/usr/bin/env bash
# Makes stubs from the protos in a virtual environment of its own, and runs the examples against the nodes at ADDRESSES
# (IP:PORT,IP:PORT,…): those that are named (client, lock, …), or all of them.
# usage: run.sh [ADDRESSES [EXAMPLE…]]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
protos=$here/../../crates/proto/proto
work=${PYTHON_EXAMPLE_DIR:-$here/.venv}
addresses=${1:-127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053}
examples=("${@:2}")
if [ ${#examples[@]} -eq 0 ]; then
    examples=(client lock counter unique_id work_queue)
fi
if [ ! -x "$work/bin/python" ]; then
    python3 -m venv "$work"
    "$work/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi
mkdir -p "$work/stubs"
"$work/bin/python" -m grpc_tools.protoc -I "$protos" --python_out="$work/stubs" --grpc_python_out="$work/stubs" \
    ringfort/v1/kv.proto ringfort/v1/cluster.proto family/family.proto proto/kv.proto kvstore/v1/kvstore.proto kv/kv.proto
for example in "${examples[@]}"; do
    echo "== $example.py"
    PYTHONPATH="$work/stubs" "$work/bin/python" "$here/$example.py" "$addresses"
done
