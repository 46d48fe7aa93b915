#!/usr/bin/env bash
# tonic 0.14.9 (crates.io), as a client.
#
# Usual guess: a call that does not end within its timeout fails with DEADLINE_EXCEEDED, as the gRPC specification says and as
#   clients in other languages do.
# Seen: tonic's client gives CANCELLED, whether the timeout is the request's or the channel's. (The server takes the
#   connection and never answers.)
#     Request::set_timeout  Cancelled: Timeout expired
#     Endpoint::timeout     Cancelled: Timeout expired
# Why it matters: CANCELLED otherwise says that the caller itself gave the call up, and so is neither repeated nor counted as
#   a failure. Code that looks for DEADLINE_EXCEEDED to treat a write as "perhaps done" misses each time-out in Rust.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/crate/src"
cat >"$tmp/crate/Cargo.toml" <<'TOML'
[package]
name = "timeout"
version = "0.0.0"
edition = "2024"
[dependencies]
tokio = { version = "1", features = ["macros", "net", "rt", "time"] }
tonic = { version = "=0.14.9", default-features = false, features = ["channel", "codegen"] }
tonic-health = { version = "=0.14.9", default-features = false }
[profile.dev]
debug = 0
TOML
cat >"$tmp/crate/src/main.rs" <<'RS'
use std::time::Duration;

use tonic::Request;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const SHORT: Duration = Duration::from_millis(300);

async fn call(what: &str, endpoint: Endpoint, request: Request<HealthCheckRequest>) {
    match HealthClient::new(endpoint.connect_lazy()).check(request).await {
        Ok(_) => println!("{what}  answered"),
        Err(status) => println!("{what}  {:?}: {}", status.code(), status.message()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = Endpoint::from_shared(format!("http://{}", silent.local_addr().expect("an address"))).expect("a URI");
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(SHORT);
    call("Request::set_timeout", endpoint.clone(), request).await;
    call("Endpoint::timeout", endpoint.timeout(SHORT), Request::new(HealthCheckRequest::default())).await;
}
RS
(cd "$tmp/crate" && CARGO_TARGET_DIR="$tmp/target" cargo run -q -j1) | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
Request::set_timeout  Cancelled: Timeout expired
Endpoint::timeout  Cancelled: Timeout expired
EOF
echo "As described."
