//! Memory that clients may not take, though they try: those who ask for much and take nothing of it, and those who send half of
//! much.

use std::io::Write;
use std::net::TcpStream;
use std::ops::Deref;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::session_op::Request;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::grpc_port::{connect, post};
use crate::node::Node;
use crate::support::{eventually, free_ports, ringfort, run, stderr};

/// A node that holds a large value, `big`, one of 60,000 bytes, `mid`, and a small one, `small`.
struct Full {
    node: Node,
    text: u16,
    /// Its memory then, in bytes.
    before: u64,
}

impl Deref for Full {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Full {
    fn start() -> Full {
        let text = free_ports(1);
        let node = Node::start_with(&["--text-addr", &format!("127.0.0.1:{text}")]);
        let (big, mid) = ("x".repeat(8_000_000), "y".repeat(60_000));
        let rows = format!("big\t{big}\nmid\t{mid}\nsmall\tvalue\n");
        let import = run(&mut ringfort(&["--addr", &node.address, "import", "-"]), rows.as_bytes());
        assert!(import.status.success());
        let before = node.resident();
        Full { node, text, before }
    }

    fn has_grown_by_less_than(&self, limit_mb: u64) {
        let more_mb = self.resident().saturating_sub(self.before) / (1024 * 1024);
        println!("{more_mb} MB more");
        assert!(more_mb < limit_mb, "{more_mb} MB");
    }

    fn serves_small_ones(&self) {
        for _ in 0..20 {
            let begun = Instant::now();
            let get = run(&mut ringfort(&["--addr", &self.address, "get", "--raw", "small"]), b"");
            assert!(get.status.success() && begun.elapsed() < Duration::from_secs(2));
        }
    }

    fn serves_large_ones(&self) {
        eventually("a large answer has room again", || {
            let get = run(&mut ringfort(&["--addr", &self.address, "get", "--raw", "big"]), b"");
            get.stdout.len() == 8_000_000
        });
    }
}

/// A connection that takes no bytes of any answer.
async fn connect_closed(address: &str) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let closed = h2::client::Builder::new().initial_window_size(0).handshake(stream).await;
    let (sender, connection) = closed.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn answers_to_calls_that_nobody_takes_have_bounded_memory() {
    let node = Full::start();
    let mut sender = connect_closed(&node.address).await;
    let mut answers = Vec::new();
    for _ in 0..100 {
        answers.push(ask_for(&node.address, &mut sender, "big").await);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.has_grown_by_less_than(300);
    node.serves_small_ones();
    // Those for which there was no room have been told so.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop((answers, sender));
    // For this client's own connection to be closed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.serves_large_ones();
}

/// Asks for a key.
async fn ask_for(address: &str, sender: &mut SendRequest<Bytes>, key: &str) -> h2::client::ResponseFuture {
    let request = post(address, "/kv.KeyValue/Get", "application/grpc").header("grpc-timeout", "5S");
    *sender = sender.clone().ready().await.expect("open");
    let (answer, mut sending) =
        sender.send_request(request.body(()).expect("it is one"), false).expect("sent");
    let body = [&[0, 0, 0, 0, key.len() as u8 + 2, 0x0a, key.len() as u8], key.as_bytes()].concat();
    sending.send_data(body.into(), true).expect("sent");
    answer
}

#[tokio::test]
async fn many_answers_that_are_not_large_have_bounded_memory_too() {
    let node = Full::start();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut sender = connect_closed(&node.address).await;
        let mut answers = Vec::new();
        for _ in 0..800 {
            answers.push(ask_for(&node.address, &mut sender, "mid").await);
        }
        clients.push((sender, answers));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.has_grown_by_less_than(400);
    node.serves_small_ones();
}

#[tokio::test]
async fn a_connection_that_takes_none_of_many_small_answers_is_closed() {
    let node = Full::start();
    let mut sender = connect_closed(&node.address).await;
    let mut answers = Vec::new();
    for _ in 0..300 {
        answers.push(ask_for(&node.address, &mut sender, "small").await);
    }
    // The first ones are as if they were alone.
    let mut last = answers.pop().expect("many").await.expect("begun").into_body();
    let told = tokio::time::timeout(Duration::from_secs(50), last.data()).await.expect("in time");
    assert!(!matches!(told, Some(Ok(_))), "{told:?}");
}

#[tokio::test]
async fn answers_to_sessions_that_nobody_takes_have_bounded_memory() {
    let node = Full::start();
    let mut sessions = Vec::new();
    for _ in 0..40 {
        let mut sender = connect_closed(&node.address).await.ready().await.expect("open");
        let request = post(&node.address, "/ringfort.v1.KV/Session", "application/grpc");
        let (answers, mut sending) =
            sender.send_request(request.body(()).expect("it is one"), false).expect("sent");
        // Sixteen gets of "big", each with five seconds.
        let op = |id| [&b"\x0a\x0c\x08"[..], &[id], b"\x10\x88\x27\x1a\x05\x0a\x03big"].concat();
        let ops: Vec<u8> = (0..16).flat_map(op).collect();
        let frame = [&[0][..], &(ops.len() as u32).to_be_bytes(), &ops].concat();
        sending.send_data(frame.into(), false).expect("sent");
        sessions.push((sender, answers, sending));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.has_grown_by_less_than(300);
    node.serves_small_ones();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(sessions);
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.serves_large_ones();
}

async fn client(address: &str) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    // A stream that is not read from gets some bytes, and leaves room for others.
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(16 << 20);
    KvClient::new(endpoint.connect().await.expect("connects")).max_decoding_message_size(16 << 20)
}

#[tokio::test]
async fn a_session_that_has_taken_a_large_answer_does_not_hold_it() {
    let node = Full::start();
    let mut sessions = Vec::new();
    for _ in 0..40 {
        let get = v1::GetRequest { key: "big".into(), ..v1::GetRequest::default() };
        let op = v1::SessionOp { id: 1, request: Some(Request::Get(get)), timeout_ms: 5_000 };
        let (asking, asked) = mpsc::channel(1);
        asking.send(vec![op].into()).await.expect("open");
        let session = client(&node.address).await.session(ReceiverStream::new(asked)).await;
        let mut answers = session.expect("a session").into_inner();
        let answered = answers.message().await.expect("in good order").expect("an answer");
        assert_eq!(answered.results.len(), 1);
        sessions.push((asking, answers));
    }
    node.has_grown_by_less_than(150);
    drop(sessions);
}

/// Each is of one row, which is all on its way to a reader who takes none of it.
#[tokio::test]
async fn lists_of_large_rows_that_nobody_reads_have_bounded_memory() {
    let node = Full::start();
    let large = |number| format!("large{number}\t{}\n", "z".repeat(1_000_000));
    let rows: String = (0..60).map(large).collect();
    let import = run(&mut ringfort(&["--addr", &node.address, "import", "-"]), rows.as_bytes());
    assert!(import.status.success());
    let before = Full { before: node.resident(), ..node };
    let mut lists = Vec::new();
    for _ in 0..40 {
        let mut client = client(&before.address).await;
        for _ in 0..10 {
            let request = v1::ListRequest { prefix: "large".into(), limit: 1, ..v1::ListRequest::default() };
            lists.push(client.list(request).await.expect("a list").into_inner());
        }
    }
    // As much as each of them can get.
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        before.has_grown_by_less_than(150);
    }
    before.serves_small_ones();
    drop(lists);
    tokio::time::sleep(Duration::from_millis(200)).await;
    before.serves_large_ones();
}

#[test]
fn answers_to_text_clients_that_nobody_takes_have_bounded_memory() {
    let node = Full::start();
    let clients: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", node.text)).expect("it listens");
            client.write_all("GET big\n".repeat(16).as_bytes()).expect("sent");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    node.has_grown_by_less_than(350);
    node.serves_small_ones();
    std::thread::sleep(Duration::from_secs(3));
    drop(clients);
    node.serves_large_ones();
}

/// Commands that wait for earlier ones of their connection have not reached the node yet, and take memory all the same.
#[test]
fn commands_that_wait_for_each_other_have_bounded_memory() {
    let node = Full::start();
    let clients: Vec<TcpStream> =
        (0..6).map(|_| TcpStream::connect(("127.0.0.1", node.text)).expect("it listens")).collect();
    for (number, client) in clients.iter().enumerate() {
        let mut sending = client.try_clone().expect("a socket");
        sending.set_write_timeout(Some(Duration::from_secs(4))).expect("a socket");
        std::thread::spawn(move || {
            let set = format!("SET same{number} {}\n", "y".repeat(8_000_000));
            // Until the node does not read any more, or the client is gone.
            while sending.write_all(set.as_bytes()).is_ok() {}
        });
    }
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(500));
        node.has_grown_by_less_than(700);
    }
    for client in &clients {
        let _it_may_have_gone = client.shutdown(std::net::Shutdown::Both);
    }
    node.serves_small_ones();
}

/// Clients that say how much they send, and send half of it.
#[tokio::test]
async fn half_messages_have_bounded_memory_and_an_end() {
    let node = Full::start();
    let mut sender = connect(&node.address).await;
    let mut halves = Vec::new();
    // Nothing of this one's message comes.
    sender = sender.ready().await.expect("open");
    let request = post(&node.address, "/ringfort.v1.KV/Put", "application/grpc").body(()).expect("it is one");
    let silent = sender.send_request(request, false).expect("sent");
    for at in 0..200 {
        let path = if at % 2 == 0 { "/ringfort.v1.KV/Session" } else { "/kv.KeyValue/Set" };
        sender = sender.ready().await.expect("open");
        let request = post(&node.address, path, "application/grpc").body(()).expect("it is one");
        let (answer, mut sending) = sender.send_request(request, false).expect("sent");
        let half = [&[0][..], &15_000_000_u32.to_be_bytes(), &vec![b'x'; 2_000_000]].concat();
        sending.send_data(half.into(), false).expect("sent");
        halves.push((answer, sending));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.has_grown_by_less_than(300);
    node.serves_small_ones();
    // One of another client waits until those have been ended, and is taken.
    let row = format!("other\t{}\n", "y".repeat(1_000_000));
    let import = ["--addr", &node.address, "--timeout", "30s", "import", "-"];
    let import = run(&mut ringfort(&import), row.as_bytes());
    assert!(import.status.success(), "{}", stderr(&import));
    let ended = halves.into_iter().filter(|half| half.1.stream_id().as_u32() % 4 == 1);
    for (answer, _sending) in ended.chain([silent]) {
        let answer = tokio::time::timeout(Duration::from_mins(1), answer).await.expect("it ends");
        let headers = answer.expect("told").headers().clone();
        assert!(["4", "8"].contains(&headers["grpc-status"].to_str().expect("ASCII")), "{headers:?}");
        assert_eq!(headers["ringfort-outcome"], "rejected");
    }
}

/// A connection holds what HTTP/2 lets it send before anybody reads it: see "Memory" in `docs/book/sizing.md`.
#[tokio::test]
async fn half_messages_on_many_connections_have_bounded_memory() {
    const CLIENTS: usize = 150;
    let node = Full::start();
    let half = Bytes::from(vec![b'x'; 2_000_000]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut sender = connect(&node.address).await;
        for _ in 0..2 {
            sender = sender.ready().await.expect("open");
            let request = post(&node.address, "/ringfort.v1.KV/Put", "application/grpc").body(());
            let (answer, mut sending) =
                sender.send_request(request.expect("it is one"), false).expect("sent");
            let prefix = [&[0][..], &15_000_000_u32.to_be_bytes()].concat();
            sending.send_data(prefix.into(), false).expect("sent");
            sending.send_data(half.clone(), false).expect("sent");
            clients.push((sender.clone(), answer, sending));
        }
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (whole_mb, windows_mb) = (128, CLIENTS as u64);
    node.has_grown_by_less_than(whole_mb + windows_mb + 50);
    node.serves_small_ones();
}
