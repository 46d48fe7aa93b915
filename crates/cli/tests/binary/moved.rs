//! Nodes that come back at another address.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::members::{Load, connect, runtime};
use crate::support::{copy, ended, eventually, free_ports, objects, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

fn directory(trio: &Trio, node: usize) -> PathBuf {
    trio.directory.path().join(format!("node{}", node + 1))
}

fn new_address() -> String {
    format!("127.0.0.1:{}", free_ports(1))
}

/// Each member's address and state, as the node at this address shows it; none if it does not answer.
fn members(address: &str) -> Vec<(String, String)> {
    let mut command = ringfort(&["status", "--json"]);
    let output = run(command.env("RINGFORT_ADDR", address), b"");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let states = objects(&output);
    let nodes = states.first().and_then(|state| state["nodes"].as_array().cloned()).unwrap_or_default();
    nodes.iter().map(|node| (text(&node["address"]), text(&node["state"]))).collect()
}

/// All of them show all where they are, and up.
fn assert_known(trio: &Trio) {
    let wanted: Vec<_> = trio.addresses().into_iter().map(|address| (address, "up".to_owned())).collect();
    for node in 0..3 {
        let begun = Instant::now();
        while members(&trio.address(node)) != wanted {
            let said = || [0, 1, 2].map(|node| trio.said(node)).join("\n");
            let found = || members(&trio.address(node));
            assert!(begun.elapsed() < Duration::from_secs(10), "{wanted:?} {:?} {}", found(), said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn put_and_get(trio: &Trio, value: &str) {
    for node in 0..3 {
        let mut put = ringfort(&["put", "moved", value]);
        let output = run(put.env("RINGFORT_ADDR", trio.address(node)), b"");
        assert!(output.status.success(), "{output:?}");
        let mut get = ringfort(&["get", "moved", "--raw"]);
        let got = run(get.env("RINGFORT_ADDR", trio.address((node + 1) % 3)), b"");
        assert_eq!(stdout(&got).trim_end(), value);
    }
}

/// Without a word about where it or anybody else is.
fn start_without_addresses(trio: &mut Trio, node: usize) {
    start_knowing(trio, node, &[]);
}

/// With nothing but its directory and these flags.
fn start_knowing(trio: &mut Trio, node: usize, flags: &[&str]) {
    let log = File::create(trio.log(node)).expect("a log");
    let errors = log.try_clone().expect("a log");
    let mut command = ringfort(&["start", "--shards", "16", "--data-dir"]);
    command.arg(directory(trio, node)).args(flags).stdin(Stdio::null()).stdout(log).stderr(errors);
    trio.nodes[node] = Some(command.spawn().expect("starts"));
}

fn told(command: &mut Command) -> String {
    let (code, line) = refusal(&run(command, b""));
    assert_eq!(code, Some(2), "{line}");
    line
}

#[test]
fn each_of_three_moves_under_load_and_stays_where_it_is_then() {
    let runtime = runtime();
    let mut trio = Trio::start();
    let client = connect(&runtime, trio.addresses());
    let load = Load::start(&runtime, &client);
    for node in 0..3 {
        let before = trio.address(node);
        trio.terminate(node);
        trio.moved[node] = Some(new_address());
        trio.start_node(node);
        let now = trio.address(node);
        eventually("it serves", || trio.said(node).contains(&format!("node{} serves on {now}", node + 1)));
        let said = format!(
            "the address of node{} was {before}, and is {now} now: the other nodes are told",
            node + 1
        );
        assert!(trio.said(node).contains(&said), "{}", trio.said(node));
        assert_known(&trio);
        let heard = format!("node{} is at {now} now, and was at {before}", node + 1);
        eventually("the layout has it there", || (0..3).all(|other| trio.said(other).contains(&heard)));
    }
    load.end(&runtime, &client);
    for node in 0..3 {
        trio.kill(node);
        start_without_addresses(&mut trio, node);
        let serves = format!("serves on {}", trio.address(node));
        eventually("it is where it was", || trio.said(node).contains(&serves));
        assert_known(&trio);
        assert!(!trio.said(node).contains("the address of"), "{}", trio.said(node));
    }
    put_and_get(&trio, "after");
    let nodes = run(&mut trio.command(&["cluster", "nodes"]), b"");
    let place = run(&mut trio.command(&["where", "moved"]), b"");
    for node in 0..3 {
        assert!(stdout(&nodes).contains(&trio.address(node)), "{nodes:?}");
    }
    assert!(place.status.success(), "{place:?}");
}

#[test]
fn all_three_move_at_once() {
    let mut trio = Trio::start();
    put_and_get(&trio, "before");
    let born = trio.addresses();
    // First to new addresses, then each to where another one is.
    let mut moves = vec![[0, 1, 2].map(|_| new_address())];
    moves.push([moves[0][1].clone(), moves[0][2].clone(), moves[0][0].clone()]);
    for (round, moved) in moves.into_iter().enumerate() {
        for node in 0..3 {
            trio.terminate(node);
        }
        trio.moved = moved.map(Some);
        trio.start_all();
        assert_known(&trio);
        put_and_get(&trio, &format!("round {round}"));
        eventually("the layout has them there", || {
            let heard = |node: usize| format!("node{} is at {} now", node + 1, trio.address(node));
            (0..3).all(|other| (0..3).all(|node| trio.said(other).contains(&heard(node))))
        });
    }
    for node in 0..3 {
        assert!(!born.contains(&trio.address(node)));
        trio.kill(node);
    }
    for node in 0..3 {
        start_without_addresses(&mut trio, node);
    }
    assert_known(&trio);
    put_and_get(&trio, "at last");
}

/// It is killed as soon as the others have it elsewhere. If it has not heard that, what it goes by says that it is where it was: so its
/// address is given here.
#[test]
fn a_node_that_was_where_nobody_finds_it_is_found_where_it_was() {
    let mut trio = Trio::start();
    put_and_get(&trio, "before");
    let here = trio.address(1);
    for round in 0..2 {
        trio.terminate(1);
        let nowhere = new_address();
        trio.more[1] = vec!["--advertise".into(), nowhere.clone()];
        trio.start_node(1);
        let heard = format!("node2 is at {nowhere} now");
        eventually("the others have it there", || {
            [0, 2].iter().all(|node| trio.said(*node).contains(&heard))
        });
        trio.kill(1);
        trio.more[1].clear();
        if round == 0 {
            trio.start_node(1);
        } else {
            start_knowing(&mut trio, 1, &["--addr", &here]);
        }
        assert_known(&trio);
        let back = format!("node2 is at {here} now, and was at {nowhere}");
        eventually("the layout has it there", || (0..3).all(|node| trio.said(node).contains(&back)));
        put_and_get(&trio, &format!("round {round}"));
    }
}

#[test]
fn an_address_that_another_member_has_or_nobody_could_use_is_refused() {
    let mut trio = Trio::start();
    let free = new_address();
    trio.terminate(2);
    let start = |trio: &Trio, address: &str, flags: &[&str]| {
        let mut command = ringfort(&["start", "--shards", "16", "--addr", address, "--data-dir"]);
        command.arg(directory(trio, 2)).args(flags);
        command
    };
    let (second, third) = (trio.address(1), trio.address(2));
    let line = told(&mut start(&trio, &free, &["--advertise", &second]));
    for says in
        [&format!("{second} is the address of node2"), "--peers node2=HOST:PORT", "cluster remove node2"]
    {
        assert!(line.contains(says), "{says}: {line}");
    }
    // It is said that node2 is elsewhere, and it is not: that is found out.
    let elsewhere = format!("node2={}", new_address());
    let output = run(&mut start(&trio, &free, &["--advertise", &second, "--peers", &elsewhere]), b"");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("the address of node2, which is there"), "{output:?}");
    let anywhere = free.replace("127.0.0.1", "0.0.0.0");
    let line = told(&mut start(&trio, &anywhere, &["--insecure"]));
    assert!(line.contains(&format!("--advertise {third}")), "{line}");
    let line = told(&mut start(&trio, "127.0.0.1:0", &[]));
    assert!(line.contains("choose a port"), "{line}");
    let line = told(&mut start(&trio, &third, &["--peers", &format!("node4={free}")]));
    assert!(line.contains("no member of this node's cluster") && line.contains("--join"), "{line}");
    // Nothing has come of all that.
    trio.start_node(2);
    assert_known(&trio);
    assert!(!trio.said(2).contains("the address of"), "{}", trio.said(2));
    // Advertised alone, it has moved too.
    let named = third.replace("127.0.0.1", "localhost");
    trio.kill(2);
    trio.more[2] = vec!["--advertise".into(), named.clone()];
    trio.start_node(2);
    eventually("it is known so", || members(&trio.address(0)).contains(&(named.clone(), "up".into())));
}

#[test]
fn a_copy_of_a_directory_moves_nobody() {
    let mut trio = Trio::start();
    put_and_get(&trio, "value");
    let second = trio.directory.path().join("copy");
    copy(&directory(&trio, 2), &second);
    let log = trio.directory.path().join("copy.log");
    let output = File::create(&log).expect("a log");
    let mut command = ringfort(&["start", "--shards", "16", "--addr", &new_address(), "--data-dir"]);
    command.arg(&second).stdin(Stdio::null()).stderr(output).stdout(Stdio::null());
    let mut child = command.spawn().expect("starts");
    assert_eq!(ended(&mut child).code(), Some(2), "{:?}", std::fs::read_to_string(&log));
    assert_known(&trio);
    put_and_get(&trio, "after");
    assert!(trio.nodes[2].as_mut().expect("it was started").try_wait().expect("ours").is_none());
    assert!(!trio.said(0).contains("node3 is at"), "{}", trio.said(0));
}
