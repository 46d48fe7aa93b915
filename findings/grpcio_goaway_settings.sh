#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI); a server of plain sockets.
#
# Usual guess: a server that wants TLS tells a client without it so by GOAWAY with INADEQUATE_SECURITY (RFC 9113, section 7), behind the
#   SETTINGS with which every server begins (section 3.4), and the call fails with that.
# Seen: once it has SETTINGS, the client takes the connection for a good one that has ended, and connects again at once, without any
#   pause, until the call's deadline; then it says DEADLINE_EXCEEDED, and nothing of the reason. GOAWAY alone, which the RFC does not allow,
#   ends the call at once with UNAVAILABLE, and further attempts wait longer and longer.
#     SETTINGS, GOAWAY  many connections  DEADLINE_EXCEEDED
#     GOAWAY            one connection    UNAVAILABLE
#   (Within two seconds; many are 20 and more, one is up to 3.)
# Why it matters: a port that speaks TLS only and keeps to the RFC is flooded by every client of the C core that was set up without it, and
#   whoever set it up is told of a time-out.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3

cat >"$tmp/calls.py" <<'PY'
import socket, struct, sys, threading
import grpc

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
REASON = b"TLS is needed"
GOAWAY = struct.pack(">I", 8 + len(REASON))[1:] + b"\x07\0\0\0\0\0" + struct.pack(">II", 0, 0xC) + REASON


class Server:
    def __init__(self, says):
        self.says, self.connections = says, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection = self.listener.accept()[0]
            self.connections += 1
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection):
        with connection:
            connection.recv(4096)
            try:
                connection.sendall(self.says)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError:
                pass


def call(says):
    server = Server(says)
    with grpc.insecure_channel("127.0.0.1:%d" % server.listener.getsockname()[1]) as channel:
        ask = channel.unary_unary("/a.B/C", request_serializer=bytes, response_deserializer=bytes)
        try:
            ask(b"", timeout=2)
            return server.connections, "OK"
        except grpc.RpcError as error:
            return server.connections, error.code().name


kept, alone = call(SETTINGS + GOAWAY), call(GOAWAY)
print("SETTINGS, GOAWAY  %3d connections  %s" % kept)
print("GOAWAY            %3d connections  %s" % alone)
sys.exit(not (kept[0] >= 20 and kept[1] == "DEADLINE_EXCEEDED" and alone[0] <= 3 and alone[1] == "UNAVAILABLE"))
PY
GRPC_VERBOSITY=NONE "$tmp/venv/bin/python" "$tmp/calls.py"
