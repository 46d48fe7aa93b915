//! The cluster's own settings: kept by its meta group, gone by on every node.

use serde_json::Value;

use crate::support::{eventually, objects, refusal, run, stdout};
use crate::trio::Trio;

/// The numbers of the nodes that lead some shard.
fn leaders(trio: &Trio) -> Vec<u64> {
    let shards = run(&mut trio.command(&["cluster", "shards", "--json"]), b"");
    let mut leaders: Vec<u64> =
        objects(&shards).iter().map(|shard| shard["leader"].as_u64().unwrap_or_default()).collect();
    leaders.sort_unstable();
    leaders.dedup();
    leaders
}

#[test]
fn a_setting_holds_for_all_nodes_and_after_restarts() {
    let mut trio = Trio::start();
    let set = |trio: &Trio, what: &[&str]| {
        let told = run(&mut trio.command(&[&["cluster", "set"], what].concat()), b"");
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        stdout(&told)
    };
    eventually("leaders are spread", || leaders(&trio) == [1, 2, 3]);
    assert_eq!(set(&trio, &[]), "leader-preference = ring\n");
    assert_eq!(set(&trio, &["leader-preference=highest-id"]), "leader-preference = highest-id\n");
    eventually("the highest leads all", || leaders(&trio) == [3]);

    // Every node goes by it, whichever is asked, and again after all have been killed.
    for _ in 0..2 {
        for address in trio.addresses() {
            let told = run(&mut trio.command(&["cluster", "set", "--json", "--addr", &address]), b"");
            assert_eq!(objects(&told)[0]["leader_preference"], "highest-id");
        }
        for node in 0..3 {
            trio.kill(node);
        }
        trio.start_all();
        eventually("the highest leads all", || leaders(&trio) == [3]);
    }
    // Without the highest the next one does.
    trio.kill(2);
    eventually("the second leads all", || leaders(&trio) == [2]);
    trio.start_node(2);
    set(&trio, &["leader-preference=ring"]);
    eventually("leaders are spread", || leaders(&trio) == [1, 2, 3]);

    let nodes = run(&mut trio.command(&["cluster", "nodes", "--json"]), b"");
    let names: Vec<Value> = objects(&nodes).iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    assert_eq!(stdout(&run(&mut trio.command(&["cluster", "nodes"]), b"")).lines().count(), 4);
}

#[test]
fn a_setting_that_is_none_is_refused_with_what_there_is() {
    let trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for (setting, told) in [
        ("leader-preference", "has no value"),
        ("leader-preference=loudest", "say ring or highest-id"),
        ("leader=ring", "there is leader-preference=ring"),
    ] {
        let (code, line) = refusal(&run(&mut trio.command(&["cluster", "set", setting]), b""));
        assert!(code == Some(2) && line.contains(told), "{line}");
    }
    let (code, line) = refusal(&run(&mut trio.command(&["cluster", "nodes", "a=b"]), b""));
    assert!(code == Some(2) && line.contains("cluster set"), "{line}");
}
