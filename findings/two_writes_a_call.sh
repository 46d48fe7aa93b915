#!/usr/bin/env bash
# hyper 1.12.0 with h2 0.4.20 (crates.io), which tonic stands on, beside grpcio 1.85.3 (PyPI).
#
# Usual guess: a unary call whose message is there at once goes out in one piece: HEADERS and DATA are some seventy bytes.
# Seen: hyper's client writes HEADERS, waits until the stream is open, which its connection's next turn says, and then writes DATA:
#   two system calls and two packets. grpcio writes both at once.
#     grpcio, one call        HEADERS DATA
#     hyper, one call         HEADERS | DATA
#     hyper, three calls      HEADERS HEADERS HEADERS | DATA DATA DATA
#     hyper, three, patient   HEADERS HEADERS HEADERS DATA DATA DATA
# Why it matters: where calls are small, writes are most of what a call costs, on both sides: the server's connection wakes twice a
#   call. A socket that lets the other tasks run before it writes, once, takes half of it away ("patient"; with tonic and 64 calls in
#   flight over 18 connections: 1.2 writes a call before, 0.5 after).
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3

cat >"$tmp/packets.py" <<'PY'
"""A server that answers nothing. If it has a title, it says which frames come in together. Arguments: the title, a client's command."""
import socket
import subprocess
import sys

KINDS = {0: "DATA", 1: "HEADERS"}
title, command = sys.argv[1], sys.argv[2:]
listener = socket.create_server(("127.0.0.1", 0))
client = subprocess.Popen([*command, str(listener.getsockname()[1])], stderr=subprocess.DEVNULL)
connection, _ = listener.accept()
connection.settimeout(20)
connection.sendall(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS
taken, packets = b"", []
preface = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
while title and "DATA" not in " ".join(packets):
    taken += connection.recv(1 << 16)
    taken, preface = taken[preface:], 0
    kinds = []
    while len(taken) >= 9 and len(taken) >= 9 + int.from_bytes(taken[:3]):
        kinds.append(KINDS.get(taken[3]))
        taken = taken[9 + int.from_bytes(taken[:3]):]
    if any(kinds):
        packets.append(" ".join(kind for kind in kinds if kind))
if title:
    print(f"{title:24}{' | '.join(packets)}")
    client.kill()
client.wait()
PY

cat >"$tmp/call.py" <<'PY'
import sys
import grpc
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    channel.unary_unary("/a.B/C", request_serializer=None)(b"0123456789abcdef", timeout=20)
PY

mkdir -p "$tmp/crate/src"
cat >"$tmp/crate/Cargo.toml" <<'TOML'
[package]
name = "call"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes = "1"
futures-util = { version = "0.3", default-features = false, features = ["std"] }
h2 = "=0.4.20"
http-body-util = "0.1"
hyper = { version = "=1.12.0", features = ["client", "http2"] }
hyper-util = { version = "0.1", features = ["tokio"] }
tokio = { version = "1", features = ["macros", "net", "rt", "time"] }
[profile.dev]
debug = 0
TOML
cat >"$tmp/crate/src/main.rs" <<'RS'
use std::io::Result;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// If patient, lets others run before each write.
struct Socket {
    tcp: TcpStream,
    patient: bool,
    waited: bool,
    /// The kinds of frames in each write, but for those about the connection.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Socket {
    fn wrote(&self, mut bytes: &[u8]) {
        let mut kinds = Vec::new();
        while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
            match kind {
                0 => kinds.push("DATA"),
                1 => kinds.push("HEADERS"),
                _ => {}
            }
            bytes = &rest[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
        }
        if !kinds.is_empty() {
            self.seen.lock().unwrap().push(kinds.join(" "));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.patient && !std::mem::replace(&mut self.waited, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waited = false;
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(count)), false) = (&written, bytes.starts_with(b"PRI")) {
            self.wrote(&bytes[..*count]);
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (calls, patient, port) = (arguments[1].parse().unwrap(), arguments[2] == "patient", &arguments[3]);
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let tcp = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let socket = Socket { tcp, patient, waited: false, seen: seen.clone() };
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    // The server's settings are to be there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let calls = (0..calls).map(|_| {
        let body = Full::new(Bytes::from_static(b"\0\0\0\0\x100123456789abcdef"));
        let request = hyper::Request::post("http://a/a.B/C").header("content-type", "application/grpc").body(body).unwrap();
        let mut client = client.clone();
        async move { client.send_request(request).await }
    });
    let _no_answer = tokio::time::timeout(Duration::from_secs(1), futures_util::future::join_all(calls)).await;
    println!("{}", seen.lock().unwrap().join(" | "));
}
RS
cargo build -q --manifest-path "$tmp/crate/Cargo.toml" --target-dir "$tmp/target"
call="$tmp/target/debug/call"
python=$tmp/venv/bin/python
hyper() { # A title, how many calls, how.
  printf '%-24s' "$1"
  "$python" "$tmp/packets.py" "" "$call" "$2" "$3"
}
{
  "$python" "$tmp/packets.py" "grpcio, one call" "$python" "$tmp/call.py"
  hyper "hyper, one call" 1 hasty
  hyper "hyper, three calls" 3 hasty
  hyper "hyper, three, patient" 3 patient
} | tee "$tmp/seen"
diff "$tmp/seen" <(sed -n 's/^#     \(\(grpcio\|hyper\), .*\)/\1/p' "$0")
