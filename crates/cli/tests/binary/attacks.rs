//! Those who take more than their share, from another address of this machine than the other clients'.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringfort_types::limits::{ADDRESS_LARGE_ANSWERS_BYTES, CONNECTION_PINGS_MAX, CONNECTION_RESETS_MAX};

use crate::http::{a_free_address, get};
use crate::node::Node;
use crate::support::{eventually, preloadable, ringfort, run, stderr};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// From an address that is not the others'.
async fn from_elsewhere(to: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("it is free");
    socket.set_recv_buffer_size(4096).expect("it can be set");
    let stream = socket.connect(to.parse().expect("an address")).await.expect("it listens");
    let stream = stream.into_std().expect("a socket");
    stream.set_nonblocking(false).expect("it can be set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// A node with a text port, and where numbers are told of it.
struct Watched {
    node: Node,
    text: String,
    http: String,
}

impl Watched {
    fn start_as(change: impl FnOnce(std::process::Command) -> std::process::Command) -> Watched {
        let (text, http) = (a_free_address(), a_free_address());
        let node = Node::start_as(&["--text-addr", &text, "--http", &http], change);
        Watched { node, text, http }
    }

    fn series(&self, name: &str) -> f64 {
        let page = get(&self.http, "/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name}: {page}"))
    }
}

#[tokio::test]
async fn writes_of_one_address_leave_room_for_those_of_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let syncs = directory.path().join("ms");
    fs::write(&syncs, "0").expect("written");
    let watched = Watched::start_as(|mut command| {
        command.env("LD_PRELOAD", preloadable("slow_sync", directory.path())).env("SYNC_MS_FILE", &syncs);
        command
    });
    fs::write(&syncs, "60000").expect("written");
    let value = "v".repeat(8_000_000);
    let mut senders = Vec::new();
    // Six have room in 48 MiB.
    for number in 0..7 {
        let mut stream = from_elsewhere(&watched.text).await;
        let line = format!("SET large{number} {value}\n");
        let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
        senders.push(std::thread::spawn(move || {
            stream.write_all(line.as_bytes()).expect("sent");
            let mut answer = String::new();
            answers.read_line(&mut answer).expect("answered");
            answer
        }));
    }
    let refused = "ringfort_refusals_total{queue=\"address\"}";
    eventually("one is refused", || watched.series(refused) > 0.0);
    // Others are not, and nobody is who is refused for good.
    let mut other = TcpStream::connect(&watched.text).expect("it listens");
    other.write_all(b"SET small v\n").expect("sent");
    fs::write(&syncs, "0").expect("written");
    let mut answer = String::new();
    BufReader::new(&other).read_line(&mut answer).expect("answered");
    assert_eq!(answer, "OK\n");
    let answers: Vec<String> = senders.into_iter().map(|sender| sender.join().expect("it ends")).collect();
    let says = "clients at this address who name no user have 6 requests with 480";
    assert_eq!(answers.iter().filter(|answer| answer.contains(says)).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| *answer == "OK\n").count(), 6, "{answers:?}");
}

#[tokio::test]
async fn who_takes_no_large_answers_leaves_room_for_those_of_others() {
    let watched = Watched::start_as(|command| command);
    let big = format!("big\t{}\n", "b".repeat(1_000_000));
    assert!(
        run(&mut ringfort(&["--addr", &watched.node.address, "import", "-"]), big.as_bytes())
            .status
            .success()
    );
    let mut unread = Vec::new();
    for _ in 0..160 {
        let mut stream = from_elsewhere(&watched.text).await;
        stream.write_all(&b"GET big\n".repeat(8)).expect("sent");
        unread.push(stream);
    }
    let taken = "ringfort_queue_size_bytes{queue=\"bytes_of_large_answers\"}";
    let nearly_all = (ADDRESS_LARGE_ANSWERS_BYTES - 2_000_000) as f64;
    eventually("they have what one address may have", || watched.series(taken) > nearly_all);
    for _ in 0..5 {
        let told = run(&mut ringfort(&["--addr", &watched.node.address, "get", "--raw", "big"]), b"");
        assert!(told.status.success(), "{}", stderr(&told));
        assert!(watched.series(taken) <= ADDRESS_LARGE_ANSWERS_BYTES as f64);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that is neither indexed nor compressed.
fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// The beginning of a call.
fn call(stream: u32) -> Vec<u8> {
    let headers = [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", "/kv.KeyValue/Get"),
        header(":authority", "node"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    frame(1, 4, stream, &headers.concat())
}

/// Sends these again and again, and takes what comes, until the node closes the connection.
fn flood(address: &str, mut next: impl FnMut() -> Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let begun = Instant::now();
    let mut read = Vec::new();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it is still open");
        let mark = frame(6, 0, 0, b"MARKMARK");
        if stream.write_all(&[next(), mark].concat()).is_err() {
            return;
        }
        // Until the node has come so far, lest the library has too many unprocessed.
        let answer = frame(6, 1, 0, b"MARKMARK");
        while !read.windows(answer.len()).any(|part| part == answer) {
            let mut some = [0; 8 * 1024];
            match stream.read(&mut some) {
                Ok(0) => return,
                Ok(bytes) => read.extend_from_slice(&some[..bytes]),
                Err(error) => {
                    assert!(
                        !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                        "no answer"
                    );
                    return;
                }
            }
        }
        read.clear();
    }
}

#[test]
fn a_connection_with_too_many_resets_or_pings_is_closed_and_counted() {
    let watched = Watched::start_as(|command| command);
    let closed = |reason: &str| {
        let series = format!("ringfort_connections_closed_total{{port=\"grpc\",reason=\"{reason}\"}}");
        watched.series(&series) as u64
    };
    assert_eq!((closed("resets"), closed("pings")), (0, 0));
    let mut last = 0;
    let mut resets = |count: u32| {
        let numbers = last + 1..=last + count;
        last += count;
        let each =
            |number| [call(2 * number - 1), frame(3, 0, 2 * number - 1, &8_u32.to_be_bytes())].concat();
        numbers.flat_map(each).collect()
    };
    flood(&watched.node.address, || resets(200));
    let told = format!("more than {CONNECTION_RESETS_MAX} calls were begun and reset within a second");
    eventually("it is told", || watched.node.said().contains(&told));
    assert_eq!((closed("resets"), closed("pings")), (1, 0));
    // The log says the next one in ten seconds.
    flood(&watched.node.address, || frame(6, 0, 0, b"12345678").repeat(CONNECTION_PINGS_MAX as usize / 16));
    eventually("it is counted", || closed("pings") == 1);
    // Others go on.
    assert!(run(&mut ringfort(&["--addr", &watched.node.address, "put", "key", "v"]), b"").status.success());
}
