//! What a node logs: at which levels, in which form, and what an operator reads there through a node's life.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::node::Node;
use crate::solo::Solo;
use crate::support::{eventually, objects, preloadable, refusal, ringfort, run, stdout};
use crate::trio::Trio;

/// The lines of a log that are JSON.
fn lines(said: &str) -> Vec<Value> {
    let lines = said.lines().filter(|line| !line.contains(" serves on "));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

#[test]
fn levels_change_while_a_node_runs_and_lines_can_be_json() {
    let node = Node::start_with(&["--log-format", "json", "--log-level", "info", "--id", "solo"]);
    eventually("it has said something", || !lines(&node.said()).is_empty());
    let serves = "all shards here are open: this node serves";
    let said = lines(&node.said());
    let line = said.iter().find(|line| line["message"] == serves).unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "ringfort_server::core");
    assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");

    let ask = |arguments: &[&str]| run(&mut ringfort(&[&["--addr", &node.address], arguments].concat()), b"");
    assert_eq!(stdout(&ask(&["log-level", "solo"])), "solo logs info\n");
    let told = stdout(&ask(&["log-level", "solo", "warn,ringfort_server::doors=debug"]));
    assert_eq!(told, "solo logs warn,ringfort_server::doors=debug from now on, and logged info\n");
    // Somebody who leaves before a greeting is told of at debug, by the doors.
    drop(node.connect());
    eventually("it is told", || {
        lines(&node.said()).iter().any(|line| {
            line["level"] == "DEBUG"
                && line["message"].as_str().is_some_and(|line| line.contains("left the gRPC port"))
        })
    });
    let shown = objects(&ask(&["log-level", "1", "error", "--json"]));
    assert_eq!(shown[0]["before"], "warn,ringfort_server::doors=debug");
    assert_eq!((&shown[0]["node"], &shown[0]["now"]), (&"solo".into(), &"error".into()));
    let (code, line) = refusal(&ask(&["log-level", "solo", "loud"]));
    assert!(code == Some(2) && line.contains("`loud` is no level: write one of error, warn"), "{line}");
    let (code, line) = refusal(&ask(&["log-level", "other", "warn"]));
    assert!(code == Some(2) && line.contains("there is no node other"), "{line}");
    let (code, line) = refusal(&run(&mut ringfort(&["start", "--log-level", "wran"]), b""));
    assert!(code == Some(2) && line.contains("`wran` is no level"), "{line}");
}

/// In order, each somewhere after the one before.
fn assert_told(said: &str, told: &[&str]) {
    let mut rest = said;
    for line in told {
        match rest.split_once(line) {
            Some((_, after)) => rest = after,
            None => panic!("{line:?} is not told, or not in its place, in\n{said}"),
        }
    }
}

#[test]
fn a_log_tells_of_a_nodes_life() {
    let mut trio = Trio::start_with(|_| vec!["--log-level".to_owned(), "info".to_owned()]);
    eventually("others lead, too", || {
        ["by node1", "by node2", "by node3"].iter().all(|leader| trio.said(0).contains(leader))
    });
    trio.kill(1);
    let unreachable = format!("WARN can't reach node2 ({}): connection refused", trio.address(1));
    eventually("it is missed", || trio.said(0).contains(&unreachable));
    trio.start_node(1);
    let back = format!("WARN node2 ({}) is back after ", trio.address(1));
    eventually("it is back", || trio.said(0).contains(&back));
    trio.terminate(0);
    let lost = format!("INFO lost node2 ({}): ", trio.address(1));
    let connected = format!("INFO connected with node2 ({})", trio.address(1));
    // Before or after it serves.
    assert!(trio.said(0).contains(&connected), "{}", trio.said(0));
    let told = [
        "INFO all shards here are open: this node serves",
        &lost,
        "another leader: ",
        &unreachable,
        &back,
        "WARN stopping: what this node leads goes to others",
        "INFO leaderships are handed over after ",
        "INFO this node has stopped after ",
    ];
    assert_told(&trio.said(0), &told);
}

#[test]
fn a_log_tells_of_a_disk_without_room_and_of_the_end() {
    let mut solo = Solo::new();
    let full = solo.directory.path().join("full");
    let mut command = solo.command();
    command.args(["--log-level", "info"]).env("LD_PRELOAD", preloadable("full_disk", solo.directory.path()));
    command.env("DISK_FULL_FILE", &full).env("DISK_FULL_DIR", solo.data());
    solo.spawn(command);
    let takes = || {
        let mut put = ringfort(&["--timeout", "1s", "put", "key", "value"]);
        put.env("RINGFORT_ADDR", &solo.address).output().expect("runs").status.success()
    };
    fs::write(&full, "all").expect("written");
    assert!(!takes());
    eventually("it says so", || solo.said().contains("no room for the log"));
    fs::remove_file(&full).expect("it is there");
    eventually("it takes writes", takes);
    solo.stop(Signal::TERM);
    let told = [
        "INFO all shards here are open: this node serves",
        "WARN no room for the log (can't write to ",
        "this node takes no writes until there is, reads go on",
        "WARN there is room for the log again",
        "INFO this node has stopped after ",
    ];
    assert_told(&solo.said(), &told);
    assert!(!solo.said().contains("key"), "a client's keys are nobody's business: {}", solo.said());
}

#[test]
fn slow_requests_are_told_with_what_was_slow_once_in_a_while() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ms");
    fs::write(&file, "0").expect("written");
    let node = Node::start_as(&["--slow-request", "150ms"], |mut command| {
        command.env("LD_PRELOAD", preloadable("slow_sync", directory.path())).env("SYNC_MS_FILE", &file);
        command
    });
    let put = |key: &str| run(&mut ringfort(&["--addr", &node.address, "put", key, "value"]), b"");
    assert!(put("secret").status.success());
    assert!(!node.said().contains("slow request"), "{}", node.said());
    fs::write(&file, "200").expect("written");
    for _ in 0..4 {
        assert!(put("secret").status.success());
    }
    let said = node.said();
    let told: Vec<&str> = said.lines().filter(|line| line.contains("slow request: ")).collect();
    let [line] = &told[..] else { panic!("one line in ten seconds: {said}") };
    assert!(line.contains("WARN slow request: "), "{line}");
    assert!(line.contains("meanwhile requests waited up to "), "{line}");
    // The log's part of it: at least one sync of those that it waited for.
    let log =
        line.split("a write and sync of the log took up to ").nth(1).and_then(|rest| rest.split(' ').next());
    assert!(log.and_then(|ms| ms.parse::<u64>().ok()).is_some_and(|ms| ms >= 200), "{line}");
    assert!(!said.contains("secret"), "{said}");
    eventually("the others are counted", || node.said().contains(" more requests were slow in 10 s"));
}
