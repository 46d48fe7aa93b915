#!/usr/bin/env bash
# tonic-health 0.14.9 (crates.io) beside grpcio-health-checking 1.85.1 with grpcio 1.85.3 (PyPI).
#
# Usual guess: Health.Watch, asked for a service that the server does not know, says SERVICE_UNKNOWN and keeps the stream open
#   until the service is there, as the protocol's own file of messages says. All servers of grpc.health.v1 do.
# Seen: grpcio-health-checking does so. tonic-health ends the call with NOT_FOUND, and never sends SERVICE_UNKNOWN: a service
#   that is taken away ends its streams without a word (which over gRPC is the status OK).
#     grpcio-health-checking, unknown service   SERVICE_UNKNOWN
#     grpcio-health-checking, then registered   SERVING
#     tonic-health, unknown service             NotFound: service not registered
#     tonic-health, registered                  Serving
#     tonic-health, then taken away             end of stream
# Why it matters: a watcher that starts before the service is registered (a node that is still joining) waits with one kind of
#   server, and has failed with the other; one that takes the end of the stream for "no change" goes on with a node that is
#   gone.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" -q --disable-pip-version-check install grpcio==1.85.3 grpcio-health-checking==1.85.1 protobuf==7.36.2

cat >"$tmp/watch.py" <<'PY'
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(futures.ThreadPoolExecutor(2))
port = server.add_insecure_port("127.0.0.1:0")
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
server.start()
name = health_pb2.HealthCheckResponse.ServingStatus.Name
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="kv.KV"), timeout=20)
    print("grpcio-health-checking, unknown service ", name(next(stream).status), flush=True)
    servicer.set("kv.KV", health_pb2.HealthCheckResponse.SERVING)
    print("grpcio-health-checking, then registered ", name(next(stream).status), flush=True)
    stream.cancel()
server.stop(None).wait()
PY
"$tmp/venv/bin/python" "$tmp/watch.py" | tee "$tmp/seen"

mkdir -p "$tmp/crate/src"
cat >"$tmp/crate/Cargo.toml" <<'TOML'
[package]
name = "watch"
version = "0.0.0"
edition = "2024"
[dependencies]
tokio = { version = "1", features = ["macros", "rt"] }
tokio-stream = "0.1"
tonic = { version = "=0.14.9", default-features = false }
tonic-health = { version = "=0.14.9", default-features = false }
[profile.dev]
debug = 0
TOML
cat >"$tmp/crate/src/main.rs" <<'RS'
use tokio_stream::StreamExt as _;
use tonic::Request;
use tonic_health::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_server::Health};
use tonic_health::server::{HealthReporter, HealthService};

const NAME: &str = "kv.KV";

fn request() -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: NAME.to_owned() })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    match service.watch(request()).await {
        Ok(_) => println!("tonic-health, unknown service  a stream"),
        Err(status) => println!("tonic-health, unknown service  {:?}: {}", status.code(), status.message()),
    }
    reporter.set_service_status(NAME, ServingStatus::Serving).await;
    let mut stream = service.watch(request()).await.expect("a known service").into_inner();
    let first = stream.next().await.expect("an answer").expect("no error");
    println!("tonic-health, registered  {:?}", first.status());
    reporter.clear_service_status(NAME).await;
    match stream.next().await {
        None => println!("tonic-health, then taken away  end of stream"),
        Some(other) => println!("tonic-health, then taken away  {other:?}"),
    }
}
RS
(cd "$tmp/crate" && CARGO_TARGET_DIR="$tmp/target" cargo run -q -j1) | tee -a "$tmp/seen"

diff - "$tmp/seen" <<'EOF' || { echo "The behaviour has changed." >&2; exit 1; }
grpcio-health-checking, unknown service  SERVICE_UNKNOWN
grpcio-health-checking, then registered  SERVING
tonic-health, unknown service  NotFound: service not registered
tonic-health, registered  Serving
tonic-health, then taken away  end of stream
EOF
echo "As described."
