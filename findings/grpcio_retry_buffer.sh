#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI).
#
# Usual guess: whether a retry policy (service config) repeats a call depends on the status, the number of attempts and what
#   the server says; how large the request is does not come into it.
# Seen: a call whose request is about 256 KiB or more is sent once, whatever the policy says, and fails with the first
#   UNAVAILABLE. Nothing is logged. The channel option `grpc.per_rpc_retry_buffer_size` moves the bound.
#     100 KiB                3 calls  UNAVAILABLE
#     250 KiB                3 calls  UNAVAILABLE
#     260 KiB                1 calls  UNAVAILABLE
#     1000 KiB               1 calls  UNAVAILABLE
#     1000 KiB, 2 MiB buffer 3 calls  UNAVAILABLE
# Why it matters: in a key-value store the value is the request. Small values get through a failover, large ones of the same
#   client fail; tests with small values never show it. And a call that puts a batch is repeated or not according to the
#   batch's size.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3

cat >"$tmp/calls.py" <<'PY'
import json
from concurrent import futures
import grpc

calls = 0


class Unavailable(grpc.GenericRpcHandler):
    def service(self, details):
        def refuse(request, context):
            global calls
            calls += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

        return grpc.unary_unary_rpc_method_handler(refuse)


server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Unavailable()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
policy = {
    "maxAttempts": 3,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.02s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
for what, kib, more in [
    ("100 KiB", 100, []),
    ("250 KiB", 250, []),
    ("260 KiB", 260, []),
    ("1000 KiB", 1000, []),
    ("1000 KiB, 2 MiB buffer", 1000, [("grpc.per_rpc_retry_buffer_size", 2 << 20)]),
]:
    calls = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.service_config", config), *more]) as channel:
        try:
            channel.unary_unary("/kv.KV/Put")(bytes(kib << 10), timeout=20)
        except grpc.RpcError as error:
            print(f"{what}  {calls} calls  {error.code().name}")
server.stop(None).wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
100 KiB  3 calls  UNAVAILABLE
250 KiB  3 calls  UNAVAILABLE
260 KiB  1 calls  UNAVAILABLE
1000 KiB  1 calls  UNAVAILABLE
1000 KiB, 2 MiB buffer  3 calls  UNAVAILABLE
EOF
echo "As described."
