//! Three processes of the shipped binary, killed with SIGKILL while clients write.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_client::{Client, Options};
use ringfort_sim::{Action, Operation, linearizable};
use ringfort_types::Outcome;

use crate::support::{ended, eventually, free_ports, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

/// What clients did, as they saw it.
#[derive(Default)]
struct Record {
    history: Mutex<Vec<Operation>>,
    /// Keys written once, each with its value, all of them acknowledged.
    acknowledged: Mutex<BTreeMap<String, String>>,
    over: AtomicBool,
    next: AtomicU64,
}

/// Puts, gets and deletes keys that all clients share, and puts keys of its own, until it is over.
async fn work(id: u64, addresses: Vec<String>, record: Arc<Record>, begun: Instant) {
    const SHARED_KEYS: u64 = 12;
    let mut options = Options::new(addresses);
    options.timeout = Duration::from_secs(2);
    let client = Client::connect(options).await.expect("all nodes run at first");
    let now = || begun.elapsed().as_micros() as u64;
    while !record.over.load(Ordering::Relaxed) {
        let number = record.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("shared-{}", (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % SHARED_KEYS);
        let key = Bytes::from(key);
        let invoked_us = now();
        let (action, answered) = match number % 5 {
            0 | 1 => {
                let value = Bytes::from(format!("value-{number}"));
                let result = client.put(key.clone(), value.clone()).await;
                (Some(Action::Put(value)), result.map(|_| ()))
            }
            2 => (Some(Action::Delete), client.delete(key.clone()).await.map(|_| ())),
            3 => match client.get(key.clone()).await {
                Ok(row) => (Some(Action::Get(row.map(|row| row.value))), Ok(())),
                Err(_) => (None, Ok(())),
            },
            _ => {
                let (key, value) = (format!("own-{id}-{number}"), format!("{number}"));
                if client.put(key.clone(), value.clone()).await.is_ok() {
                    record.acknowledged.lock().expect("no panic").insert(key, value);
                }
                (None, Ok(()))
            }
        };
        let returned_us = match answered {
            Ok(()) => Some(now()),
            Err(failure) if failure.outcome == Outcome::Unknown => None,
            // It surely did not happen.
            Err(_) => continue,
        };
        if let Some(action) = action {
            let operation = Operation { client: id, key, action, invoked_us, returned_us };
            record.history.lock().expect("no panic").push(operation);
        }
    }
}

#[test]
fn every_acknowledged_write_survives_and_the_history_is_linearizable() {
    let mut trio = Trio::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let record = Arc::new(Record::default());
    let begun = Instant::now();
    let clients: Vec<_> =
        (0..6).map(|id| runtime.spawn(work(id, trio.addresses(), record.clone(), begun))).collect();

    let pause = || std::thread::sleep(Duration::from_millis(900));
    for node in 0..3 {
        pause();
        trio.kill(node);
        pause();
        trio.start_node(node);
    }
    pause();
    for node in 0..3 {
        trio.kill(node);
    }
    for node in 0..3 {
        trio.start_node(node);
    }
    pause();
    pause();
    record.over.store(true, Ordering::Relaxed);
    for client in clients {
        runtime.block_on(client).expect("no client panics");
    }

    let mut history = std::mem::take(&mut *record.history.lock().expect("no panic"));
    let acknowledged = std::mem::take(&mut *record.acknowledged.lock().expect("no panic"));
    assert!(history.len() > 200 && acknowledged.len() > 50, "{} and {}", history.len(), acknowledged.len());
    runtime.block_on(async {
        let mut options = Options::new(trio.addresses());
        options.timeout = Duration::from_secs(10);
        let client = Client::connect(options).await.expect("all nodes run again");
        for (key, value) in &acknowledged {
            let row = client.get(key.clone()).await.expect("all shards are led");
            let found = row.map(|row| String::from_utf8_lossy(&row.value).into_owned());
            assert_eq!(found.as_ref(), Some(value), "{key} was acknowledged");
        }
        for key in 0..12 {
            let key = Bytes::from(format!("shared-{key}"));
            let invoked_us = begun.elapsed().as_micros() as u64;
            let row = client.get(key.clone()).await.expect("all shards are led");
            history.push(Operation {
                client: 99,
                key,
                action: Action::Get(row.map(|row| row.value)),
                invoked_us,
                returned_us: Some(begun.elapsed().as_micros() as u64),
            });
        }
    });
    if let Err(verdict) = linearizable::check(&history) {
        panic!("{verdict}");
    }
    eventually("all replicas agree", || run(&mut trio.command(&["check"]), b"").status.code() == Some(0));
}

#[test]
fn a_wiped_node_is_refused_under_its_old_name_and_the_others_serve_on() {
    let mut trio = Trio::start();
    assert_eq!(stdout(&run(&mut trio.command(&["put", "name", "Ada"]), b"")), "OK\n");
    trio.kill(2);
    let wiped = trio.directory.path().join("wiped");
    let (code, line) = refusal(&run(&mut trio.flags(2, &wiped, 16), b""));
    assert!(!wiped.exists(), "it leaves nothing behind");
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("another data directory") && line.contains("old data directory"), "{line}");
    assert_eq!(stdout(&run(&mut trio.command(&["get", "name"]), b"")), "Ada\n");
    assert_eq!(stdout(&run(&mut trio.command(&["put", "name", "Grace"]), b"")), "OK\n");
    // With its own directory it is welcome.
    trio.start_node(2);
    eventually("it serves again", || trio.said(2).contains("serves on"));
    eventually("it is level", || run(&mut trio.command(&["check"]), b"").status.code() == Some(0));
}

#[test]
fn nodes_started_with_lists_that_differ_say_how() {
    let directory = tempfile::tempdir().expect("a directory");
    let trio = Trio::idle(directory);
    let start = |node: usize, shards: u32| {
        let mut command = trio.flags(node, &trio.directory.path().join(node.to_string()), shards);
        let log = File::create(trio.log(node)).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("starts")
    };
    let mut nodes = [start(0, 16), start(1, 8)];
    // Whoever hears first that it is refused ends. The other may be refused, too, or it goes on waiting for
    // nodes that agree with it; both say why.
    let mut ended = None;
    eventually("one of them ends", || {
        ended = nodes.iter_mut().position(|node| node.try_wait().expect("it can be asked").is_some());
        ended.is_some()
    });
    let ended = ended.expect("just so");
    assert_eq!(nodes[ended].wait().expect("ended").code(), Some(2));
    // Who refuses it is no cluster yet, and may have met it before.
    assert!(trio.directory.path().join(ended.to_string()).join("identity").exists());
    eventually("both say how they differ", || {
        (0..2).all(|node| trio.said(node).contains("--shards 16") && trio.said(node).contains("--shards 8"))
    });
    for node in &mut nodes {
        // It may have ended by itself.
        let _ = node.kill();
        node.wait().expect("ends");
    }
}

#[test]
fn a_list_of_peers_adds_nobody_to_a_cluster_that_is_there() {
    let trio = Trio::start();
    let (address, peers) = (format!("127.0.0.1:{}", free_ports(1)), trio.addresses().join(","));
    let mut start =
        ringfort(&["start", "--id", "node4", "--addr", &address, "--peers", &peers, "--data-dir"]);
    let (code, line) = refusal(&run(start.arg(trio.directory.path().join("node4")), b""));
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains(&format!("{address} is none of this cluster's nodes")), "{line}");
    assert!(!line.contains("same list"), "{line}");
    let join = (0..3).map(|node| format!("start it with --join {} in place of --peers", trio.address(node)));
    assert!(join.into_iter().any(|advice| line.contains(&advice)), "{line}");
    for node in 0..3 {
        assert!(
            trio.said(node).matches("is none of this cluster's nodes").count() <= 1,
            "{}",
            trio.said(node)
        );
    }
}

#[test]
fn a_stop_hands_over_and_ends_well() {
    let mut trio = Trio::start();
    eventually("all are led", || stdout(&run(&mut trio.command(&["status"]), b"")).contains("all led"));
    let node = trio.nodes[0].as_ref().expect("it runs").id().to_string();
    let killed = std::process::Command::new("kill").args(["-TERM", &node]).status().expect("kill runs");
    assert!(killed.success());
    let begun = Instant::now();
    let status = ended(&mut trio.nodes[0].take().expect("it runs"));
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Nobody has to wait for an election.
    let put = run(&mut trio.command(&["--timeout", "400ms", "put", "name", "Ada"]), b"");
    assert_eq!((stdout(&put), stderr(&put)), ("OK\n".into(), String::new()));
}
