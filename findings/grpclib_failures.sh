#!/usr/bin/env bash
# grpclib 0.4.9 (PyPI, a gRPC client and server for asyncio), with hyper-h2 4.4.1 (PyPI) as the server.
#
# Usual guess: every failed call raises the library's one error with a gRPC status, UNAVAILABLE when the server or the
#   connection went away, DEADLINE_EXCEEDED when time ran out. So `except GRPCError` and a look at the status is enough to
#   retry.
# Seen: only a status that the server sent (or an HTTP status in its place) becomes a GRPCError. All else comes as one of
#   three classes that do not derive from it and have no status:
#     status 14 from the server    GRPCError UNAVAILABLE
#     HTTP 503                     GRPCError UNAVAILABLE
#     RST_STREAM, REFUSED_STREAM   StreamTerminatedError
#     GOAWAY, last stream 0        StreamTerminatedError
#     connection closed            StreamTerminatedError
#     no answer in time            TimeoutError
#     nobody listens               ConnectionRefusedError
#   And nothing is repeated, not even a call that GOAWAY or REFUSED_STREAM says has not been handled.
# Why it matters: a retry loop written after another gRPC library's lets a node's restart through to the caller as an
#   exception that nobody expected. "Nothing was done" and "half of it may be done" (REFUSED_STREAM, connection closed) come
#   as one class.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpclib==0.4.9 multidict==6.7.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0

cat >"$tmp/calls.py" <<'PY'
import asyncio, socket, threading
import h2.config, h2.connection, h2.errors, h2.events
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError


class Empty:
    SerializeToString = staticmethod(bytes)
    FromString = staticmethod(lambda data: Empty())


def answer(listener, way):
    sock, _ = listener.accept()
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    while data := sock.recv(65536):
        for event in conn.receive_data(data):
            if not isinstance(event, h2.events.StreamEnded):
                continue
            if way == "status":
                reply = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")]
                conn.send_headers(event.stream_id, reply, end_stream=True)
            elif way == "503":
                conn.send_headers(event.stream_id, [(":status", "503")], end_stream=True)
            elif way == "reset":
                conn.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            elif way == "goaway":
                conn.close_connection(last_stream_id=0)
                sock.sendall(conn.data_to_send())
                return
            elif way == "close":
                sock.shutdown(socket.SHUT_RDWR)
                return
        sock.sendall(conn.data_to_send())


async def call(what, way):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    if way == "nobody":
        listener.close()
    else:
        threading.Thread(target=answer, args=(listener, way), daemon=True).start()
    channel = Channel("127.0.0.1", port)
    try:
        await UnaryUnaryMethod(channel, "/kv.KV/Put", Empty, Empty)(Empty(), timeout=1 if way == "silent" else 10)
        told = "no error"
    except GRPCError as error:
        told = f"GRPCError {error.status.name}"
    except Exception as error:
        told = type(error).__name__
    channel.close()
    print(f"{what}  {told}", flush=True)


async def main():
    await call("status 14 from the server", "status")
    await call("HTTP 503", "503")
    await call("RST_STREAM, REFUSED_STREAM", "reset")
    await call("GOAWAY, last stream 0", "goaway")
    await call("connection closed", "close")
    await call("no answer in time", "silent")
    await call("nobody listens", "nobody")


asyncio.run(main())
PY
"$tmp/venv/bin/python" "$tmp/calls.py" | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
status 14 from the server  GRPCError UNAVAILABLE
HTTP 503  GRPCError UNAVAILABLE
RST_STREAM, REFUSED_STREAM  StreamTerminatedError
GOAWAY, last stream 0  StreamTerminatedError
connection closed  StreamTerminatedError
no answer in time  TimeoutError
nobody listens  ConnectionRefusedError
EOF
echo "As described."
