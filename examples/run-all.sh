#!/usr/bin/env bash
# Runs every example against a cluster that is made for it and ends with it. Needs network for the Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."
port=27051
work=$(mktemp -d)
cargo build --quiet --package ringfort-cli --package example-rust
mkfifo "$work/shell"
"${CARGO_TARGET_DIR:-target}/debug/ringfort" dev --base-port "$port" --shards 16 <"$work/shell" &
dev=$!
exec 3>"$work/shell" # The cluster ends when this is closed, however this script ends.
trap 'exec 3>&-; wait "$dev" || true; rm -rf "$work"' EXIT
echo "put ready yes" >&3
for _ in $(seq 100); do
    "${CARGO_TARGET_DIR:-target}/debug/ringfort" --addr "127.0.0.1:$port" get ready >/dev/null 2>&1 && break
    sleep 0.1
done
for example in example-rust lock counter unique_id work_queue; do
    echo "== $example.rs"
    "${CARGO_TARGET_DIR:-target}/debug/$example" "127.0.0.1:$port"
done
PYTHON_EXAMPLE_DIR="$work/python" examples/python/run.sh "127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
echo "== tls_doors.py"
PYTHONPATH="$work/python/stubs" "$work/python/bin/python" examples/python/tls_doors.py "${CARGO_TARGET_DIR:-target}/debug/ringfort"
echo "all examples ran"
