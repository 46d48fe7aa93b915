//! What a node says on stderr: one style, nodes by their names, and refusals that say what to do.

use std::process::Command;

use rustix::process::Signal;

use crate::solo::Solo;
use crate::support::{eventually, refusal, ringfort, run};
use crate::trio::Trio;

/// Whether it is `2026-11-29T09:46:44.123456Z  WARN words`.
fn is_log_line(line: &str) -> bool {
    let mut parts = line.split_whitespace();
    let time = parts.next().is_some_and(|time| time.contains('T') && time.ends_with('Z'));
    time && parts.next() == Some("WARN") && parts.next().is_some()
}

#[test]
fn every_line_has_one_style_and_names_nodes() {
    let mut trio = Trio::start();
    trio.kill(1);
    let unreachable = format!("can't reach node2 ({}): connection refused", trio.address(1));
    eventually("it is said who is away", || trio.said(0).contains(&unreachable));
    trio.terminate(0);
    let said = trio.said(0);
    assert!(said.contains("WARN stopping: what this node leads goes to others"), "{said}");
    let log: Vec<&str> = said.lines().filter(|line| !line.contains(" serves on ")).collect();
    assert!(log.iter().all(|line| is_log_line(line)), "{said}");
    assert!(!said.contains("node 2") && !said.contains("ringfort_server"), "{said}");
}

#[test]
fn a_new_node_says_whom_it_waits_for() {
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    trio.start_node(0);
    let others = format!("node2 ({}), node3 ({})", trio.address(1), trio.address(2));
    eventually("it says so", || {
        trio.said(0).contains(&format!("WARN waiting for {others}: a new cluster forms"))
    });
    assert!(trio.said(0).lines().all(is_log_line), "{}", trio.said(0));
    trio.terminate(0);
}

#[test]
fn a_list_of_peers_that_names_the_node_alone_is_said() {
    let mut solo = Solo::new();
    let mut command = solo.command();
    command.args(["--peers", &solo.address.clone()]);
    solo.spawn(command);
    let alone = format!("--peers lists this node alone, {}: it is a cluster of one", solo.address);
    assert!(solo.said().contains(&alone), "{}", solo.said());
    solo.stop(Signal::TERM);
    solo.start();
    assert!(!solo.said().contains("cluster of one"), "without --peers that is what was asked for");
}

#[test]
fn a_start_with_other_flags_is_told_the_old_ones() {
    let mut trio = Trio::start();
    trio.terminate(0);
    let data = trio.directory.path().join("node1");
    let peers = format!("--peers node2={},node3={}", trio.address(1), trio.address(2));
    let old_flags =
        format!("start it with its old flags, {peers} --shards 16 --replicas 3, or use another --data-dir");
    let told = |command: &mut Command| {
        let (code, line) = refusal(&run(command, b""));
        assert_eq!(code, Some(2), "{line}");
        line
    };
    let line = told(&mut trio.flags(0, &data, 8));
    assert!(line.contains(&old_flags), "{line}");
    let start = |flags: &[&str]| {
        let mut command = ringfort(&["start", "--data-dir"]);
        command.arg(&data).args(flags);
        told(&mut command)
    };
    let line = start(&["--id", "node1", "--addr", &trio.address(0), "--replicas", "5"]);
    assert!(line.contains(&old_flags), "{line}");
    let line = start(&["--id", "other", "--addr", &trio.address(0)]);
    assert!(line.contains("start it with its old flag, --id node1,"), "{line}");
}
