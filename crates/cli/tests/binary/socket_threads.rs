//! Nodes with several threads for sockets.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::node::{Node, SOON};
use crate::support::{free_ports, ringfort, run, stderr};

const THREADS: [&str; 3] = ["ringfort", "sockets-2", "sockets-3"];

/// How often each of them has gone to sleep, which it does after each piece of work.
fn slept(node: &Node) -> [u64; 3] {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.child.id())).expect("it runs");
    let mut slept = [0; 3];
    for task in tasks {
        // A thread may end meanwhile.
        let status =
            std::fs::read_to_string(task.expect("an entry").path().join("status")).unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(at) = THREADS.iter().position(|name| field("Name:") == Some(*name)) {
            let times: u64 =
                field("voluntary_ctxt_switches:").expect("it is there").parse().expect("a number");
            slept[at] = times.max(slept[at]);
        }
    }
    slept
}

fn all_have_worked(node: &Node, before: [u64; 3]) {
    let after = slept(node);
    let worked = [0, 1, 2].map(|at| after[at] - before[at]);
    assert!(worked.iter().all(|times| *times > 50), "{worked:?}");
}

/// Three connections at the text door and three clients at the gRPC port.
fn connections_are_spread(transport: &str) {
    let text = format!("127.0.0.1:{}", free_ports(1));
    let node = Node::start_with(&["--socket-threads", "3", "--text-addr", &text]);
    let before = slept(&node);
    let mut clients = [(); 3].map(|()| {
        let stream = TcpStream::connect(&text).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        BufReader::new(stream)
    });
    let mut ask = |line: &str, expected: &str| {
        for client in &mut clients {
            client.get_mut().write_all(line.as_bytes()).expect("sent");
            let mut told = String::new();
            client.read_line(&mut told).expect("answered");
            assert_eq!(told, expected);
        }
    };
    for _ in 0..150 {
        ask("SET k v\n", "OK\n");
        ask("GET k\n", "v\n");
    }
    all_have_worked(&node, before);

    let before = slept(&node);
    let bench = ["bench", "--workload", "mixed", "--transport", transport, "--seconds", "1", "--keys", "100"];
    let threads = ["--clients", "3", "--threads", "3", "--in-flight", "6", "--skip-load", "--json"];
    let put = run(&mut ringfort(&["--addr", &node.address, "put", "key-000000000007", "v"]), b"");
    assert!(put.status.success(), "{}", stderr(&put));
    let told = run(ringfort(&[&bench[..], &threads].concat()).env("RINGFORT_ADDR", &node.address), b"");
    assert!(told.status.success(), "{}", stderr(&told));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert!(told["errors"] == 0 && told["ops"].as_u64() > Some(300), "{told}");
    all_have_worked(&node, before);
    ask("GET k\n", "v\n");
}

#[test]
fn text_connections_and_sessions_are_spread_over_a_nodes_threads() {
    connections_are_spread("session");
}

#[test]
fn connections_with_unary_calls_are_spread_over_a_nodes_threads() {
    connections_are_spread("unary");
}

/// How often the process has written to anything, its own threads' wake-ups included.
fn writes(node: &Node) -> f64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", node.child.id())).expect("it runs");
    let calls = io.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("it is there");
    calls.parse().expect("a number")
}

/// However many threads there are: neither has each answer a system call of its own, nor each call one to wake a thread.
#[test]
fn what_a_turn_has_for_a_connection_goes_out_together() {
    for threads in ["1", "2"] {
        let node = Node::start_with(&["--socket-threads", threads]);
        let before = writes(&node);
        let bench = ["bench", "--workload", "get", "--transport", "unary", "--seconds", "1", "--keys", "100"];
        let load = ["--clients", "4", "--in-flight", "64", "--json"];
        let told = run(ringfort(&[&bench[..], &load].concat()).env("RINGFORT_ADDR", &node.address), b"");
        assert!(told.status.success(), "{}", stderr(&told));
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
        let each = (writes(&node) - before) / told["ops"].as_f64().expect("a number");
        println!("{threads}: {each:.2} writes a get");
        assert!(each < 0.75, "{threads} threads: {each:.2} writes a get");
    }
}
