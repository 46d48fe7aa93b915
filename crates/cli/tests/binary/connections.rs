//! Connections beyond what a node has room for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringfort_types::{Epoch, Incarnation, LogMark, NodeId, PeerFrame};

use crate::grpc_port::{ask, connect, post};
use crate::node::{Node, SOON};
use crate::support::{eventually, refusal, ringfort, run, stderr, stdout, with_open_files};
use crate::trio::Trio;

/// A client that greets, and then says nothing.
fn idle(address: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    // HTTP/2's preface and an empty SETTINGS frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").ok()?;
    Some(stream)
}

#[test]
fn clients_get_the_files_that_the_node_itself_does_not_need() {
    let node = Node::start_as(&["--memtable-mb", "1"], |command| with_open_files(512, &command));
    assert!(
        node.said().contains("512 files may be open: 128 of tables, 176 connections of clients"),
        "{}",
        node.said()
    );
    let clients: Vec<_> = (0..700).map(|_| idle(&node.address)).collect();
    assert_eq!(clients.len(), 700);
    eventually("some are turned away", || node.said().contains("is turned away"));
    drop(clients);
    // Once more, with tables that are written meanwhile.
    let put = |number: u32| {
        let row = format!("row-{number}\t{}\n", "x".repeat(100_000));
        run(&mut ringfort(&["--addr", &node.address, "import", "-"]), row.as_bytes())
    };
    eventually("there is room again", || put(0).status.success());
    let mut clients = Vec::new();
    for number in 1..50 {
        let said = put(number);
        assert!(said.status.success(), "{}", stderr(&said));
        if number % 10 == 0 {
            clients.clear();
            clients.extend((0..125).map(|_| idle(&node.address)));
        }
    }
    assert!(!node.said().contains("can't"), "{}", node.said());
    drop(clients);
    let listed = run(&mut ringfort(&["--addr", &node.address, "list", "--keys-only"]), b"");
    assert_eq!(stdout(&listed).lines().count(), 50);
}

#[test]
fn a_limit_that_leaves_no_room_for_clients_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut start = ringfort(&["start", "--addr", "127.0.0.1:0", "--data-dir"]);
    start.arg(directory.path().join("data"));
    let (code, told) = refusal(&run(&mut with_open_files(100, &start), b""));
    assert!(
        code == Some(2) && told.starts_with("only 100 files may be open, and a node needs "),
        "{code:?} {told}"
    );
}

/// Idle clients take all places, and the nodes find each other all the same.
#[tokio::test]
async fn idle_clients_do_not_keep_nodes_apart() {
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    trio.open_files = Some(400);
    trio.start_all();
    let address = trio.address(0);
    let mut early = connect(&address).await;
    let set = |key: &str| [b"\0\0\0\0\x06\x0a\x01", key.as_bytes(), b"\x12\x01w"].concat();
    let told = ask(&mut early, post(&address, "/kv.KeyValue/Set", "application/grpc"), &set("a")).await;
    assert_eq!(told.header("grpc-status"), "0");
    let clients: Vec<_> = (0..300).filter_map(|_| idle(&address)).collect();
    eventually("the node is full", || trio.said(0).contains("is turned away"));
    // And one speaks as nodes do, and says nothing.
    let mut links = Vec::new();
    let mut link = async || {
        early = early.clone().ready().await.expect("open");
        let request = post(&address, "/ringfort.internal.v1.Peer/Link", "application/grpc");
        links.push(early.send_request(request.body(()).expect("it is one"), false).expect("sent"));
    };
    for _ in 0..300 {
        link().await;
    }
    trio.kill(2);
    for _ in 0..20 {
        link().await;
    }
    trio.start_node(2);
    eventually("it is back", || trio.said(2).contains("serves on"));
    trio.kill(1);
    // A majority is there only if the first node has let the third one in.
    let until = std::time::Instant::now() + Duration::from_secs(15);
    loop {
        let request = post(&address, "/kv.KeyValue/Set", "application/grpc").header("grpc-timeout", "2S");
        let told = ask(&mut early, request, &set("b")).await;
        if told.header("grpc-status") == "0" {
            break;
        }
        assert!(std::time::Instant::now() < until, "{told:?}");
    }
    drop(clients);
}

/// A node that takes no more clients leads what it leads: the others pass that on to it.
#[test]
fn a_leader_that_is_full_is_reached_through_the_others() {
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    trio.open_files = Some(500);
    trio.start_all();
    eventually("all are led", || stdout(&run(&mut trio.command(&["status"]), b"")).contains("all led"));
    let full = trio.address(0);
    // Those that are turned away come again, so that there is never a place.
    let over = Arc::new(AtomicBool::new(false));
    let (until, at) = (over.clone(), full.clone());
    let crowd = std::thread::spawn(move || {
        let mut held: Vec<TcpStream> = Vec::new();
        while !until.load(Ordering::Relaxed) {
            held.retain_mut(|stream| {
                let mut told = [0; 4096];
                !matches!(stream.read(&mut told), Ok(0))
                    && stream.take_error().is_ok_and(|error| error.is_none())
            });
            held.extend((held.len()..400).filter_map(|_| idle(&at)).inspect(|stream| {
                stream.set_nonblocking(true).expect("it can be");
            }));
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    eventually("it is full", || trio.said(0).contains("is turned away"));
    let asked = |arguments: &[&str], input: &[u8]| {
        let output = run(ringfort(arguments).env("RINGFORT_ADDR", trio.address(1)), input);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    for number in 0..24 {
        asked(&["put", &format!("key{number}"), "v"], b"");
        asked(&["get", &format!("key{number}")], b"");
    }
    let rows: Vec<_> = (0..200).map(|number| format!("row{number}\tv\n")).collect();
    asked(&["import", "--give-up", "5s", "-"], rows.concat().as_bytes());
    eventually("it is still full", || {
        !ringfort(&["get", "--addr", &full, "key1"]).output().expect("runs").status.success()
    });
    over.store(true, Ordering::Relaxed);
    crowd.join().expect("it ends");
}

/// A speaker that is refused is told why, and what it sends after that is not read.
#[tokio::test]
async fn a_refused_peer_is_not_read_any_more() {
    let node = Node::start();
    let mut client = connect(&node.address).await;
    let request = post(&node.address, "/ringfort.internal.v1.Peer/Link", "application/grpc");
    client = client.ready().await.expect("open");
    let (answer, mut frames) =
        client.send_request(request.body(()).expect("it is one"), false).expect("sent");
    let stranger = PeerFrame {
        from: NodeId(2),
        to: NodeId(1),
        incarnation: Incarnation(7),
        cluster: 7,
        epoch: Epoch(1),
        log: LogMark::NONE,
        messages: Vec::new(),
    };
    let payload = stranger.encode();
    let head = [0, 0, 0, 0, payload.len() as u8 + 2, 0x0a, payload.len() as u8];
    frames.send_data([&head[..], &payload].concat().into(), false).expect("sent");
    let mut told = answer.await.expect("answered").into_body();
    let refusal = told.data().await.expect("a frame").expect("read");
    assert!(String::from_utf8_lossy(&refusal).contains("is not of the cluster"), "{refusal:?}");
    let closed = tokio::time::timeout(SOON, std::future::poll_fn(|cx| frames.poll_reset(cx))).await;
    assert_eq!(closed.expect("soon").expect("reset"), h2::Reason::NO_ERROR);
}

/// One address has a part of the places, whatever it holds open.
#[tokio::test]
async fn whoever_opens_as_many_as_they_can_keeps_nobody_else_out() {
    let node = Node::start_as(&[], |command| with_open_files(512, &command));
    let clients: Vec<_> = (0..400).map(|_| idle(&node.address)).collect();
    let full = "132 connections from its address are open on the gRPC port";
    eventually("one address has all it may have", || node.said().contains(full));
    // This machine, too, and another address.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("it is free");
    let other = socket.connect(node.address.parse().expect("an address")).await.expect("it listens");
    let mut other = other.into_std().expect("a socket");
    other.set_nonblocking(false).expect("it can be set");
    other.set_read_timeout(Some(SOON)).expect("a time-out");
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut told = String::new();
    other.read_to_string(&mut told).expect("answered");
    assert!(told.starts_with("HTTP/1.1 505"), "{told}");
    drop(clients);
}
