//! What the gRPC port answers to those who are no gRPC clients, or ask for what there is not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};

use crate::node::{Node, SOON};
use crate::support::eventually;
use crate::trio::Trio;

/// What clients are told of.
const PACKAGES: &str = "ringfort.v1, family, proto, kvstore.v1, kv, grpc.health.v1, grpc.reflection.v1";

#[test]
fn http_1_is_told_in_one_line_what_is_spoken_here() {
    let node = Node::start();
    let long =
        [&b"POST /v1/keys HTTP/1.1\r\nContent-Length: 200000\r\n\r\n"[..], &vec![b'x'; 200_000]].concat();
    for said in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"G", b"GET k\r\n", b"*1\r\n$4\r\nPING\r\n", &long]
    {
        let told = node.told(said);
        let (head, body) = told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {told:?}"));
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("HTTP/1.1 505 HTTP Version Not Supported"));
        let headers: Vec<_> = lines.collect();
        assert!(headers.contains(&format!("Content-Length: {}", body.len()).as_str()), "{headers:?}");
        assert!(headers.contains(&"Connection: close"), "{headers:?}");
        assert!(body.ends_with('\n') && body.lines().count() == 1, "{body:?}");
        assert!(
            body.contains(PACKAGES) && body.contains(&format!("-plaintext {}", node.address)),
            "{body:?}"
        );
    }
    let told = node.told(b"HEAD / HTTP/1.1\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 505 ") && told.ends_with("\r\n\r\n"), "a body after HEAD: {told:?}");
}

#[test]
fn a_stranger_who_stays_is_closed() {
    let node = Node::start();
    let mut stream = node.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("told, and the server's direction is closed");
    let begun = Instant::now();
    while stream.write_all(b"X-More: and more\r\n").is_ok() {
        assert!(begun.elapsed() < SOON, "it reads for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_that_try_tls_are_closed_and_one_line_is_logged() {
    let node = Node::start();
    for _ in 0..50 {
        let mut stream = node.connect();
        stream.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03").expect("sent");
        stream.shutdown(Shutdown::Write).expect("sent");
        let mut told = Vec::new();
        stream.read_to_end(&mut told).expect("closed");
        assert!(told.is_empty(), "{told:?}");
    }
    eventually("it is logged", || node.said().contains("tried TLS"));
    let said = node.said();
    assert_eq!(said.lines().filter(|line| line.contains("TLS")).count(), 1, "{said}");
}

/// The frame of a call's headers, as a client sends them that has this authority. HPACK (RFC 7541) without compression.
fn call_headers(stream: u8, authority: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| [name, &[value.len() as u8], value.as_bytes()].concat();
    let (method_post, scheme_http) = ([0x83], [0x86]);
    let block = [
        &method_post[..],
        &scheme_http,
        &literal(&[0x04], GOOD),
        &literal(&[0x01], authority),
        &literal(&[0x0f, 0x10], "application/grpc"),
        &literal(&[0x00, 2, b't', b'e'], "trailers"),
    ]
    .concat();
    let end_of_headers = 4;
    [&[0, 0, block.len() as u8, 1, end_of_headers, 0, 0, 0, stream], &block[..]].concat()
}

#[test]
fn calls_with_a_list_as_authority_are_named_once_in_the_log() {
    let node = Node::start();
    let mut stream = node.connect();
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let list = "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053";
    let calls = [1, 3, 5].map(|number| call_headers(number, list)).concat();
    stream
        .write_all(
            &[&greeting[..], &calls, &call_headers(7, "a"), b"\0\0\x05\0\x01\0\0\0\x07\0\0\0\0\0"].concat(),
        )
        .expect("sent");
    let mut told = Vec::new();
    // The fourth call is answered, and those before it are reset (RST_STREAM, PROTOCOL_ERROR).
    let reset = |number: u8| [0, 0, 4, 3, 0, 0, 0, 0, number, 0, 0, 0, 1];
    let has = |told: &[u8], frame: &[u8]| told.windows(frame.len()).any(|window| window == frame);
    while !has(&told, &[0, 0, 0, 7]) || ![1, 3, 5].iter().all(|number| has(&told, &reset(*number))) {
        let mut more = [0; 4096];
        let bytes = stream.read(&mut more).expect("it says more");
        assert!(bytes > 0, "it has closed the connection");
        told.extend_from_slice(&more[..bytes]);
    }
    eventually("it is logged", || node.said().contains("grpc.default_authority"));
    let said = node.said();
    assert_eq!(said.lines().filter(|line| line.contains("authority")).count(), 1, "{said}");
}

/// An answer to a request over HTTP/2.
#[derive(Debug)]
pub(crate) struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name));
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }
}

pub(crate) async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Sends one request and this much of a body.
pub(crate) async fn ask(
    sender: &mut SendRequest<Bytes>,
    request: http::request::Builder,
    body: &[u8],
) -> Told {
    let ready = sender.clone().ready().await.expect("open");
    *sender = ready;
    let (answer, mut sending) =
        sender.send_request(request.body(()).expect("it is one"), false).expect("sent");
    // Who is refused may be so before it has sent all.
    let _refused = sending.send_data(Bytes::copy_from_slice(body), true);
    let (head, mut stream) =
        tokio::time::timeout(SOON, answer).await.expect("soon").expect("answered").into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("all of it comes");
        stream.flow_control().release_capacity(data.len()).expect("it was taken");
        body.extend(data);
    }
    let trailers = stream.trailers().await.expect("a good end").unwrap_or_default();
    Told { status: head.status, headers: head.headers, body, trailers }
}

pub(crate) fn post(address: &str, path: &str, content_type: &str) -> http::request::Builder {
    let request = Request::post(format!("http://{address}{path}"));
    if content_type.is_empty() { request } else { request.header("content-type", content_type) }
}

/// An empty message, as gRPC frames it.
const EMPTY: &[u8] = &[0; 5];
const GOOD: &str = "/ringfort.v1.Cluster/GetClusterState";

#[tokio::test]
async fn what_is_no_grpc_gets_a_status_that_nobody_takes_for_success() {
    let node = Node::start();
    let mut sender = connect(&node.address).await;
    for good in ["application/grpc", "application/grpc+proto", "Application/GRPC;charset=utf-8"] {
        let told = ask(&mut sender, post(&node.address, GOOD, good), EMPTY).await;
        assert_eq!((told.status, told.header("grpc-status")), (StatusCode::OK, "0"), "{good}: {told:?}");
    }
    for bad in ["", "application/json", "application/grpc-web", "application/grp", "text/plain"] {
        let told = ask(&mut sender, post(&node.address, GOOD, bad), &vec![b'x'; 100_000]).await;
        assert_eq!(told.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{bad}: {told:?}");
        assert!(told.body.starts_with(b"a gRPC call has the content type"), "{told:?}");
    }
    for method in ["GET", "PUT", "OPTIONS"] {
        let request = post(&node.address, GOOD, "application/grpc").method(method);
        let told = ask(&mut sender, request, b"").await;
        assert_eq!((told.status, told.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{told:?}");
        assert!(told.body.starts_with(b"a gRPC call is a POST"), "{told:?}");
    }
    let told = ask(
        &mut sender,
        post(&node.address, GOOD, "application/grpc").header("x", "x".repeat(17 * 1024)),
        EMPTY,
    )
    .await;
    assert_eq!(told.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{told:?}");
    // The connection has taken no harm.
    let told = ask(&mut sender, post(&node.address, GOOD, "application/grpc"), EMPTY).await;
    assert_eq!(told.header("grpc-status"), "0");
}

/// Some clients show no answer that comes before they have sent all.
#[tokio::test]
async fn a_short_request_that_is_refused_is_read_to_its_end_first() {
    let node = Node::start();
    let mut sender = connect(&node.address).await;
    for (path, content_type, status) in [
        (GOOD, "application/json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("/kvstore.v9.KV/Get", "application/grpc", StatusCode::OK),
    ] {
        let request = post(&node.address, path, content_type).body(()).expect("a request");
        let mut ready = sender.ready().await.expect("a connection");
        let (answer, mut sending) = ready.send_request(request, false).expect("it is sent");
        sender = ready;
        tokio::time::sleep(Duration::from_millis(200)).await;
        sending.send_data(Bytes::from_static(b"{}"), true).expect("the stream is open");
        let answer = tokio::time::timeout(SOON, answer).await.expect("soon").expect("answered");
        assert_eq!(answer.status(), status);
    }
    // One that never ends is answered all the same.
    let request = post(&node.address, GOOD, "application/json").body(()).expect("a request");
    let (answer, _sending) = sender.send_request(request, false).expect("it is sent");
    let answer = tokio::time::timeout(SOON, answer).await.expect("soon").expect("answered");
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn what_there_is_not_is_answered_with_what_there_is() {
    let node = Node::start();
    let mut sender = connect(&node.address).await;
    let long = format!("/{}/Get", "x".repeat(5_000));
    let cases = [
        (
            "/kvstore.v9.KV/Get",
            format!("there is no service kvstore.v9.KV on this port; packages served here: {PACKAGES}"),
        ),
        (
            "/ringfort.v1.KV/Fetch",
            format!(
                "ringfort.v1.KV has no method Fetch on this node, which may run another version; packages served here: {PACKAGES}"
            ),
        ),
        (
            "/ringfort.v1.KV/",
            "the path names no method of ringfort.v1.KV: it is /ringfort.v1.KV/METHOD".to_owned(),
        ),
        (
            "//Get",
            format!(
                "//Get is not the path of a method, which is /PACKAGE.SERVICE/METHOD; packages served here: {PACKAGES}"
            ),
        ),
        (
            "/metrics",
            format!(
                "/metrics is not the path of a method, which is /PACKAGE.SERVICE/METHOD; packages served here: {PACKAGES}"
            ),
        ),
        (
            &long,
            format!(
                "there is no service {}… on this port; packages served here: {PACKAGES}",
                "x".repeat(100)
            ),
        ),
    ];
    for (path, message) in cases {
        let told = ask(&mut sender, post(&node.address, path, "application/grpc"), EMPTY).await;
        assert_eq!((told.status, told.header("grpc-status")), (StatusCode::OK, "12"), "{path}: {told:?}");
        let raw = told.header("grpc-message");
        assert!(raw.bytes().all(|byte| matches!(byte, b' '..=b'~')), "not encoded: {raw}");
        assert_eq!(decoded(raw), message);
        assert_eq!(told.header("ringfort-outcome"), "rejected");
    }
}

#[tokio::test]
async fn what_the_transport_refuses_has_an_outcome_too() {
    let node = Node::start();
    let mut sender = connect(&node.address).await;
    let too_large = [&[0][..], &(17_u32 << 20).to_be_bytes()].concat();
    for (what, message, status) in [
        ("no message", &b""[..], "12"),
        ("no protobuf", b"\0\0\0\0\x01\xff", "13"),
        ("compressed", b"\x01\0\0\0\0", "13"),
        ("too large", &too_large, "8"),
    ] {
        for path in ["/kv.KeyValue/Set", "/ringfort.v1.KV/Put", "/proto.KV/Get"] {
            let told = ask(&mut sender, post(&node.address, path, "application/grpc"), message).await;
            assert_eq!(told.header("grpc-status"), status, "{what}: {told:?}");
            assert_eq!(told.header("ringfort-outcome"), "rejected", "{what}: {told:?}");
        }
    }
    let compressed = post(&node.address, GOOD, "application/grpc").header("grpc-encoding", "gzip");
    let told = ask(&mut sender, compressed, b"\x01\0\0\0\0").await;
    assert_eq!((told.header("grpc-status"), told.header("ringfort-outcome")), ("12", "rejected"), "{told:?}");
    assert!(told.headers.contains_key("grpc-accept-encoding"), "as gRPC wants it: {told:?}");
    let told = ask(&mut sender, post(&node.address, GOOD, "application/grpc"), EMPTY).await;
    assert!(!told.headers.contains_key("ringfort-outcome"), "{told:?}");
}

#[tokio::test]
async fn a_symbol_that_is_not_there_does_not_end_reflection() {
    let node = Node::start();
    let mut sender = connect(&node.address).await;
    // `file_containing_symbol`, and `list_services`, framed.
    let asked = [&b"\0\0\0\0\x09\x22\x07no.such"[..], b"\0\0\0\0\x02\x3a\0"].concat();
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let told = ask(&mut sender, post(&node.address, &path, "application/grpc"), &asked).await;
        assert_eq!(told.header("grpc-status"), "0", "{told:?}");
        let text = String::from_utf8_lossy(&told.body);
        let (error, services) =
            text.split_once("there is no symbol \"no.such\" here").expect("an error of its own");
        assert!(!error.contains("ringfort.v1.KV") && services.contains("ringfort.v1.KV"), "{told:?}");
        for name in ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"] {
            assert!(services.contains(name), "{version}: {told:?}");
        }
    }
}

#[tokio::test]
async fn a_deadline_of_any_length_is_answered_with_an_outcome() {
    let mut trio = Trio::start();
    let put = trio.command(&["put", "k", "v"]).output().expect("runs");
    assert!(put.status.success());
    trio.kill(1);
    trio.kill(2);
    let address = trio.address(0);
    let mut sender = connect(&address).await;
    // Key "k" and, for who wants one, value "w", framed.
    let message = b"\0\0\0\0\x06\x0a\x01k\x12\x01w";
    for timeout in ["1n", "900u", "5m", "50m", "200m", "700m", "1500m"] {
        for path in ["/kv.KeyValue/Set", "/kv.KeyValue/Get"] {
            let request = post(&address, path, "application/grpc").header("grpc-timeout", timeout);
            let begun = Instant::now();
            let told = ask(&mut sender, request, message).await;
            // By its own time-out, or, once the node has noticed that it leads nothing, as unavailable.
            assert!(["4", "14"].contains(&told.header("grpc-status")), "{path} {timeout}: {told:?}");
            let outcome = told.header("ringfort-outcome");
            assert!(["rejected", "unknown"].contains(&outcome), "{path} {timeout}: {told:?}");
            if outcome == "unknown" && path.ends_with("Set") {
                assert_eq!(told.header("grpc-retry-pushback-ms"), "-1", "{path} {timeout}: {told:?}");
            }
            assert!(
                begun.elapsed() < Duration::from_millis(1_900),
                "{path} {timeout}: {:?}",
                begun.elapsed()
            );
        }
    }
}

/// Percent-decoded, as gRPC's specification has it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().expect("two digits"), rest.next().expect("two digits")];
            let hex = std::str::from_utf8(&hex).expect("digits");
            bytes.push(u8::from_str_radix(hex, 16).expect("digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test]
async fn a_thousand_silent_connections_cost_nobody_else_anything() {
    const SILENT: usize = 1_000;
    /// What one may take in the node's own memory.
    const BYTES_MAX: u64 = 8 * 1024;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as the node itself does");

    let node = Node::start();
    let mut sender = connect(&node.address).await;
    let mut median = async || {
        let mut times = Vec::new();
        for _ in 0..101 {
            let begun = Instant::now();
            let told = ask(&mut sender, post(&node.address, GOOD, "application/grpc"), EMPTY).await;
            assert_eq!(told.header("grpc-status"), "0");
            times.push(begun.elapsed());
        }
        times.sort();
        times[50]
    };
    let alone = median().await;
    let (before, begun) = (node.resident(), Instant::now());
    let silent: Vec<TcpStream> = (0..SILENT).map(|_| node.connect()).collect();
    // Whoever comes after them has been accepted after them.
    let mut newcomer = connect(&node.address).await;
    let told = ask(&mut newcomer, post(&node.address, GOOD, "application/grpc"), EMPTY).await;
    assert_eq!(told.header("grpc-status"), "0");
    let grown = node.resident().saturating_sub(before);
    assert!(begun.elapsed() < Duration::from_millis(4_500), "the first of them are gone already");
    assert!(grown < SILENT as u64 * BYTES_MAX, "they took {grown} bytes");
    // Wide, for machines that do other things meanwhile.
    let beside = median().await;
    assert!(
        beside < 5 * alone + Duration::from_millis(20),
        "a call takes {beside:?}, {alone:?} without them"
    );

    for mut stream in silent {
        match stream.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("not closed after its time to greet: {other:?}"),
        }
    }
}
