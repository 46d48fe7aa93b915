//! What a node says over HTTP to those who watch it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use ringfort_types::limits::{HTTP_CONNECTIONS_MAX, HTTP_LARGE_ANSWERS_MAX};
use serde_json::Value;

use crate::node::{Node, SOON};
use crate::support::{ask_to_stop, ended, eventually, free_ports, objects, ringfort, run, stderr, stdout};
use crate::trio::Trio;

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a time-out");
    stream
}

/// Sends one request, and asks for the end of the connection after its answer.
pub(crate) fn ask(address: &str, request: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    let request = format!("{request} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("closed, and not reset");
    parted(&answer)
}

/// The status, the head and the body of an answer.
fn parted(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head:?}")), head.to_lowercase(), body.to_owned())
}

pub(crate) fn get(address: &str, path: &str) -> (u16, String) {
    let (status, _, body) = ask(address, &format!("GET {path}"));
    (status, body)
}

pub(crate) fn a_free_address() -> String {
    format!("127.0.0.1:{}", free_ports(1))
}

#[test]
fn a_node_is_watched_and_nothing_is_changed() {
    let http = a_free_address();
    let node = Node::start_with(&["--http", &http]);
    assert!(node.said().contains(&format!("HTTP on {http}")), "{}", node.said());
    assert_eq!(get(&http, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(&http, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(&http, "/readyz?quorum=true"), (200, "ready\n".into()));
    assert_eq!(get(&http, "/readyz?quorum=yes").0, 400);
    let (status, told) = get(&http, "/metricz");
    assert!(status == 404 && told.contains("/readyz"), "{told}");
    assert!(get(&http, "/").1.contains("/healthz"));
    let (status, head, body) = ask(&http, "HEAD /healthz");
    assert!(status == 200 && head.contains("content-length: 3") && body.is_empty(), "{head} {body}");
    let (status, head, _) = ask(&http, "POST /healthz");
    assert!(status == 405 && head.contains("allow: get, head"), "{head}");
    // What is no HTTP.
    let mut stranger = connect(&http);
    stranger.write_all(b"\x16\x03\x01 whatever\r\n\r\n").expect("sent");
    let mut told = String::new();
    stranger.read_to_string(&mut told).expect("closed");
    assert!(told.starts_with("HTTP/1.1 400"), "{told}");

    let (status, head, body) = ask(&http, "GET /debug/state");
    assert!(status == 200 && head.contains("content-type: application/json"), "{head}");
    let state: Value = serde_json::from_str(&body).expect("JSON");
    let shown = objects(&run(&mut ringfort(&["status", "--json", "--addr", &node.address]), b""));
    assert_eq!(state["cluster"], shown[0]["cluster"]);
    assert_eq!(state["shards"].as_array().map(Vec::len), Some(3));
    let fields = |state: &Value| state.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    assert_eq!(fields(&state), fields(&shown[0]));
    // One connection does for many requests.
    let mut kept = connect(&http);
    for _ in 0..3 {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut byte = [0];
            kept.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
    }
}

#[test]
fn a_node_without_others_is_ready_and_one_without_a_quorum_says_so() {
    let base = free_ports(3);
    let https: Vec<String> = (0..3).map(|node| format!("127.0.0.1:{}", base + node)).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let mut trio = Trio::idle(directory);
    trio.more = [0, 1, 2].map(|node: usize| vec!["--http".to_owned(), https[node].clone()]);
    trio.start_node(0);
    eventually("it listens", || TcpStream::connect(&https[0]).is_ok());
    assert_eq!(get(&https[0], "/healthz").0, 200);
    let (status, why) = get(&https[0], "/readyz");
    assert!(status == 503 && why.contains("waits for the other nodes"), "{why}");
    trio.start_node(1);
    trio.start_node(2);
    for http in &https {
        eventually("it is ready", || get(http, "/readyz?quorum=true").0 == 200);
    }
    trio.kill(1);
    trio.kill(2);
    let quorum = || get(&https[0], "/readyz?quorum=true");
    eventually("it misses a leader", || quorum().0 == 503);
    let why = quorum().1;
    assert!(why.contains("knows no leader of"), "{why}");
    // Whoever starts its nodes one after the other, each when the last one is ready, gets there.
    assert_eq!(get(&https[0], "/readyz"), (200, "ready\n".into()));
    trio.kill(0);
    trio.start_node(0);
    eventually("it is ready again", || {
        TcpStream::connect(&https[0]).is_ok() && get(&https[0], "/readyz").0 == 200
    });
    assert_eq!(quorum().0, 503);
}

#[test]
fn a_node_that_stops_is_not_ready_before_it_is_gone() {
    let base = free_ports(3);
    let mut trio =
        Trio::start_with(|node| vec!["--http".to_owned(), format!("127.0.0.1:{}", base + node as u16)]);
    let http = format!("127.0.0.1:{base}");
    let mut kept = connect(&http);
    let mut child = trio.nodes[0].take().expect("it runs");
    ask_to_stop(&child);
    let mut told = String::new();
    // Until it closes the connection.
    let mut piece = [0; 4096];
    while kept.write_all(b"GET /readyz HTTP/1.1\r\nhost: node\r\n\r\n").is_ok() {
        match kept.read(&mut piece) {
            Ok(read @ 1..) => told.push_str(&String::from_utf8_lossy(&piece[..read])),
            _ => break,
        }
    }
    assert!(told.contains("HTTP/1.1 503") && told.contains("the node is stopping\n"), "{told}");
    assert!(ended(&mut child).success());
}

#[test]
fn who_watches_has_bounds() {
    let http = a_free_address();
    // So many shards that what is said of them a few times is more than fits into a socket's buffers.
    let node = Node::start_as(&["--http", &http], |command| {
        let flags = command.get_args().map(|flag| if flag == "2" { OsStr::new("256") } else { flag });
        let flags: Vec<&OsStr> = flags.collect();
        let mut many = ringfort(&[]);
        many.args(flags);
        many
    });
    let mut untaken: Vec<TcpStream> = (0..HTTP_LARGE_ANSWERS_MAX).map(|_| connect(&http)).collect();
    for stream in &mut untaken {
        stream.write_all(&b"GET /debug/state HTTP/1.1\r\nhost: node\r\n\r\n".repeat(1024)).expect("sent");
    }
    // Until no socket takes any more.
    let mut why = String::new();
    eventually("there is no room", || {
        let (status, told) = get(&http, "/debug/state");
        why = told;
        status == 503
    });
    assert!(why.contains("have not been taken"), "{why:.200}");
    assert_eq!(get(&http, "/healthz").0, 200);
    drop(untaken);
    eventually("there is room", || get(&http, "/debug/state").0 == 200);

    // They don't have the clients' places, nor clients theirs.
    let mut held: Vec<TcpStream> = Vec::new();
    eventually("the last ones have gone", || {
        let idle: Vec<TcpStream> = (0..HTTP_CONNECTIONS_MAX).map(|_| connect(&http)).collect();
        let mut told = String::new();
        let one_more = connect(&http);
        one_more.set_read_timeout(Some(Duration::from_millis(200))).expect("a time-out");
        let is_told = (&one_more).read_to_string(&mut told).is_ok();
        assert!(!is_told || told.starts_with("HTTP/1.1 503"), "{told}");
        if is_told {
            held.extend(idle);
        }
        is_told
    });
    let status = run(&mut ringfort(&["status", "--addr", &node.address]), b"");
    assert!(status.status.success(), "{}", stderr(&status));
    drop(held);
    eventually("there is room again", || {
        let mut stream = connect(&http);
        let mut told = String::new();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").is_ok()
            && stream.read_to_string(&mut told).is_ok()
            && told.starts_with("HTTP/1.1 200")
    });
}

#[test]
fn a_port_that_is_taken_is_an_error_only_if_it_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let mut start = ringfort(&["start", "--addr", "127.0.0.1:0", "--http", &address, "--data-dir"]);
    let refused = run(start.arg(directory.path()), b"");
    let said = stderr(&refused);
    assert!(
        refused.status.code() == Some(2) && said.contains("--http") && said.contains("is in use"),
        "{said}"
    );
    // Somebody has the default one: this test, or another process.
    let _held = TcpListener::bind("127.0.0.1:8080");
    let node = Node::start_as(&[], |mut command| {
        command.env_remove("RINGFORT_START_HTTP").stdin(Stdio::null());
        command
    });
    assert!(!node.said().contains("HTTP on"), "{}", node.said());
}

/// Numbers are a user's to see, once rights are enforced; whether a node lives is everybody's.
#[test]
fn who_watches_is_a_user_where_rights_are_enforced() {
    let http = a_free_address();
    let node = Node::start_with(&["--http", &http]);
    let files = tempfile::tempdir().expect("a directory");
    let password = files.path().join("password");
    std::fs::write(&password, "open sesame\n").expect("written");
    let told = |arguments: &[&str]| run(ringfort(arguments).env("RINGFORT_ADDR", &node.address), b"");
    let add = ["user", "add", "root", "--new-password-file", password.to_str().expect("plain")];
    eventually("users can be added", || told(&add).status.success());
    assert!(told(&["user", "grant", "root", "cluster"]).status.success());
    let token = stdout(&told(&["user", "add", "prometheus", "--token"]));
    let with = |authorization: &str, path: &str| {
        let (status, head, _) =
            ask(&http, &format!("GET {path} HTTP/1.1\r\nauthorization: {authorization}\r\nx:"));
        (status, head)
    };
    let bearer = format!("Bearer {}", token.trim());
    // Base64 of root and the password, and of a wrong one.
    let (basic, wrong) = ("Basic cm9vdDpvcGVuIHNlc2FtZQ==", "Basic cm9vdDp3cm9uZw==");
    for path in ["/metrics", "/debug/state"] {
        assert_eq!(get(&http, path).0, 200, "rights are not enforced");
        assert_eq!(with(wrong, path).0, 200, "nobody is asked who they are");
    }
    assert!(told(&["user", "enforce", "on"]).status.success());
    for path in ["/metrics", "/debug/state"] {
        let (status, head, why) = ask(&http, &format!("GET {path}"));
        assert!(status == 401 && head.contains("www-authenticate: basic"), "{head} {why}");
        assert_eq!(with(wrong, path).0, 401);
        assert_eq!(with(basic, path).0, 200);
        // Who may nothing else.
        assert_eq!(with(&bearer, path).0, 200);
    }
    for path in ["/", "/healthz", "/readyz", "/readyz?quorum=true"] {
        assert_eq!(get(&http, path).0, 200);
    }
}
