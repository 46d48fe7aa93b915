#!/usr/bin/env bash
# hyper 1.12.0 with h2 0.4.20 (crates.io): how much of a response body an HTTP/2 server takes for a client that reads nothing.
#
# Usual guess: what flow control lets through, and at most `max_send_buf_size` (409,600 bytes by default) more.
# Seen: a frame of the body goes into the stream's queue whole as soon as one byte of it may be sent, and the next frame is asked for before
#   there is room for any of it. The limit on the send buffer bounds neither: it only stops a third one. The client grants 65,535 bytes:
#     frames of 8,000,000 bytes   2 taken, 16000000 bytes
#     frames of 16,384 bytes      5 taken, 81920 bytes
# Why it matters: a server that streams rows or files in large frames holds two of them for each reader that has stopped reading, 250 times
#   what the client allowed; and one that takes "the next frame is asked for" as "the last one is sent" gives up its memory's permits too
#   early. Frames are to be small, or copies of parts.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/src"
cat >"$tmp/Cargo.toml" <<'TOML'
[package]
name = "frames"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes = "1"
h2 = "=0.4.20"
http = "1"
http-body = "1"
hyper = { version = "=1.12.0", features = ["http2", "server"] }
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "1", features = ["io-util", "macros", "rt", "time"] }
[profile.dev]
debug = 0
TOML
cat >"$tmp/src/main.rs" <<'RS'
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// A body without an end.
struct Endless {
    frame: Bytes,
    taken: Arc<AtomicUsize>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.fetch_add(1, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for length in [8_000_000, 16_384] {
        let taken = Arc::new(AtomicUsize::new(0));
        let (client, server) = tokio::io::duplex(1 << 20);
        let counted = taken.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_| {
                let body = Endless { frame: Bytes::from(vec![7; length]), taken: counted.clone() };
                async move { Ok::<_, Infallible>(Response::new(body)) }
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), service).await
        });
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(65_535).initial_connection_window_size(16 << 20);
        let (mut sender, connection) = builder.handshake::<_, Bytes>(client).await.unwrap();
        tokio::spawn(connection);
        let (response, _) = sender.send_request(Request::get("http://server/").body(()).unwrap(), true).unwrap();
        let unread = response.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let taken = taken.load(Relaxed);
        println!("frames of {length} bytes: {taken} taken, {} bytes", taken * length);
        drop(unread);
    }
}
RS
(cd "$tmp" && CARGO_TARGET_DIR="$tmp/target" cargo run -q -j1) | tee "$tmp/seen"
diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
frames of 8000000 bytes: 2 taken, 16000000 bytes
frames of 16384 bytes: 5 taken, 81920 bytes
EOF
echo "As described."
