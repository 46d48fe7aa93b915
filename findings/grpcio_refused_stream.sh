#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), with hyper-h2 4.4.1 (PyPI) as the server.
#
# Usual guess: RST_STREAM with REFUSED_STREAM says that the server has done nothing with the call, so that gRPC clients repeat
#   it by themselves, once, without any retry policy ("transparent retry"), as they do after a GOAWAY that says so.
# Seen: only the GOAWAY is followed by a second try. After REFUSED_STREAM the call fails with UNAVAILABLE, which is also what
#   a connection that broke half-way gives: that nothing was done can be read from the text only.
#     GOAWAY, last stream 0                    2 requests  OK
#     RST_STREAM, REFUSED_STREAM               1 requests  UNAVAILABLE
#     connection closed                        1 requests  UNAVAILABLE
#     RST_STREAM, REFUSED_STREAM, with policy  2 requests  OK
#   (The server turns the first request away and answers the second.)
# Why it matters: servers turn calls away by REFUSED_STREAM when too many are under way. A client of a store has to take that
#   for a write with an unknown outcome, or has to switch on a policy that repeats writes in the other case, too.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0

cat >"$tmp/calls.py" <<'PY'
import json, socket, threading
import grpc, h2.config, h2.connection, h2.errors, h2.events

OK = [(":status", "200"), ("content-type", "application/grpc")]


class Server:
    """Turns the first request away in one of three ways, and answers the next."""

    def __init__(self, way):
        self.way, self.requests = way, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.target = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.answer, args=(self.listener.accept()[0],), daemon=True).start()

    def answer(self, sock):
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        while data := sock.recv(65536):
            for event in conn.receive_data(data):
                if not isinstance(event, h2.events.StreamEnded):
                    continue
                self.requests += 1
                if self.requests > 1:
                    conn.send_headers(event.stream_id, OK)
                    conn.send_data(event.stream_id, bytes(5))
                    conn.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
                elif self.way == "reset":
                    conn.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                elif self.way == "goaway":
                    conn.close_connection(last_stream_id=0)
                    sock.sendall(conn.data_to_send())
                    return
                else:
                    sock.shutdown(socket.SHUT_RDWR)
                    return
            sock.sendall(conn.data_to_send())


policy = {
    "maxAttempts": 2,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.02s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
for what, way, options in [
    ("GOAWAY, last stream 0", "goaway", []),
    ("RST_STREAM, REFUSED_STREAM", "reset", []),
    ("connection closed", "close", []),
    ("RST_STREAM, REFUSED_STREAM, with policy", "reset", [("grpc.service_config", config)]),
]:
    server = Server(way)
    with grpc.insecure_channel(server.target, options) as channel:
        try:
            channel.unary_unary("/kv.KV/Put")(b"", timeout=10)
            told = "OK"
        except grpc.RpcError as error:
            told = error.code().name
    print(f"{what}  {server.requests} requests  {told}", flush=True)
PY
"$tmp/venv/bin/python" "$tmp/calls.py" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
GOAWAY, last stream 0  2 requests  OK
RST_STREAM, REFUSED_STREAM  1 requests  UNAVAILABLE
connection closed  1 requests  UNAVAILABLE
RST_STREAM, REFUSED_STREAM, with policy  2 requests  OK
EOF
echo "As described."
