#!/usr/bin/env bash
# Walks through the READMEs of five other systems against Ringfort, with their command lines and with clients that are not ours:
# each of docs/book/coming-from, as a program. Ports are those systems' own. Needs network for Go's and Python's packages, once.
# usage: coming-from.sh [SYSTEM…]    disk-register, grpc-crud, raft-kv, grpc-kvstore, kv-cluster
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
systems=("$@")
if [ ${#systems[@]} -eq 0 ]; then
    systems=(disk-register grpc-crud raft-kv grpc-kvstore kv-cluster)
fi
if [ -z "${RINGFORT:-}" ]; then
    cargo build --quiet --package ringfort-cli
fi
examples/coming-from/clients.sh "$target/foreign"
examples/coming-from/launchers.sh
SECONDS=0
for system in "${systems[@]}"; do
    "examples/$system/walkthrough.sh"
done
echo "all walkthroughs ran, in $SECONDS s"
