#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI), with hyper-h2 4.4.1 (PyPI) as the server.
#
# Usual guess: `grpc-timeout` has eight digits and units down to nanoseconds, so that the server learns the client's deadline
#   to the millisecond at least, less what has passed.
# Seen: the client rounds up to about three digits before it sends. The server is told a deadline that is up to one per cent
#   later than the client's: 99 seconds for a call of ten hours, 50 ms for one of 12.35 s.
#     timeout=12.35    grpc-timeout 12400m
#     timeout=123.5    grpc-timeout 124S
#     timeout=1001     grpc-timeout 1010S
#     timeout=3601     grpc-timeout 3610S
#     timeout=36001    grpc-timeout 36100S
#     timeout=172801   grpc-timeout 2890M
# Why it matters: a server that drops work whose deadline has passed does not drop it at the client's deadline, but later.
#   What was in a queue then is still carried out (a write, a lock), though its client has already been told
#   DEADLINE_EXCEEDED. A time of the server's can't be compared to the client's, even with clocks in step.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0

cat >"$tmp/calls.py" <<'PY'
import socket, threading
import grpc, h2.config, h2.connection, h2.events

timeouts = []


def answer(listener):
    sock, _ = listener.accept()
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    while data := sock.recv(65536):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                timeouts.append(dict(event.headers)["grpc-timeout"])
                reply = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")]
                conn.send_headers(event.stream_id, reply, end_stream=True)
        sock.sendall(conn.data_to_send())


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=answer, args=(listener,), daemon=True).start()
with grpc.insecure_channel("127.0.0.1:%d" % listener.getsockname()[1]) as channel:
    grpc.channel_ready_future(channel).result(timeout=20)
    for timeout in 12.35, 123.5, 1001, 3601, 36001, 172801:
        try:
            channel.unary_unary("/kv.KV/Get")(b"", timeout=timeout)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error
        print(f"timeout={timeout}  grpc-timeout {timeouts[-1]}", flush=True)
PY
"$tmp/venv/bin/python" "$tmp/calls.py" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
timeout=12.35  grpc-timeout 12400m
timeout=123.5  grpc-timeout 124S
timeout=1001  grpc-timeout 1010S
timeout=3601  grpc-timeout 3610S
timeout=36001  grpc-timeout 36100S
timeout=172801  grpc-timeout 2890M
EOF
echo "As described."
