#!/usr/bin/env bash
# tonic 0.14.9 with bytes 1.12.1 (crates.io): the memory of a response stream that waits.
#
# Usual guess: a stream of responses that waits for its next message holds nothing of those that the client has had. The bytes of a
#   message go to the HTTP/2 library as a buffer of their own, which ends when they are sent.
# Seen: tonic makes each message in one buffer and splits off what is sent. The empty rest shares the memory and is kept; the next message
#   is made in it, however small, so that it is as large as the largest message for as long as the stream is open. Fifty streams, each
#   with one message of 8,000,000 bytes that has been taken and dropped:
#     bytes held while they wait             400065274
#     bytes held after one more of 5 bytes   400066362
# Why it matters: a server's streams that are open for long (watches, sessions, subscriptions) each hold as much as the largest message that
#   they have delivered, and no limit on what is under way counts it. Messages of several megabytes and a few hundred quiet streams
#   are gigabytes.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/src"
cat >"$tmp/Cargo.toml" <<'TOML'
[package]
name = "held"
version = "0.0.0"
edition = "2024"
[dependencies]
bytes = "=1.12.1"
http-body = "1"
tokio = { version = "1", features = ["macros", "rt", "sync"] }
tokio-stream = "0.1"
tonic = { version = "=0.14.9", default-features = false, features = ["codegen"] }
[profile.dev]
debug = 0
TOML
cat >"$tmp/src/main.rs" <<'RS'
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::BufMut;
use http_body::Body as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codec::{EncodeBody, EncodeBuf, Encoder, SingleMessageCompressionOverride};

struct Counting;
static HELD: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Plain;

impl Encoder for Plain {
    type Item = usize;
    type Error = Status;
    fn encode(&mut self, length: usize, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(&vec![7; length][..]);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let before = HELD.load(Relaxed);
    let mut streams = Vec::new();
    for _ in 0..50 {
        let (sender, receiver) = mpsc::channel::<Result<usize, Status>>(1);
        let none = SingleMessageCompressionOverride::default();
        streams.push((sender, Box::pin(EncodeBody::new_server(Plain, ReceiverStream::new(receiver), None, none, None))));
    }
    for (what, length) in [("while they wait", 8_000_000), ("after one more of 5 bytes", 5)] {
        for (sender, body) in &mut streams {
            sender.send(Ok(length)).await.unwrap();
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), 5 + length);
        }
        println!("bytes held {what}: {}", HELD.load(Relaxed) - before);
    }
}
RS
cargo run --quiet --manifest-path "$tmp/Cargo.toml" --target-dir "$tmp/target" | tee "$tmp/seen"
awk -F': ' '/while they wait/ { waits = $2 } /one more/ { more = $2 } END { exit !(waits >= 400000000 && more >= 400000000) }' "$tmp/seen" ||
    { echo "The behaviour has changed." >&2; exit 1; }
echo "As described."
