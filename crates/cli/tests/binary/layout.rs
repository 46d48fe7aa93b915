//! The cluster's own settings: kept by its meta group, gone by on every node.

use ringfort_types::Level;
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
    let level = format!("level = auto (level {} is in force)\n", Level::MAX);
    eventually("the level rises", || {
        set(&trio, &[]) == format!("leader-preference = ring\nreplicas = 3\n{level}")
    });
    let held = format!("level = {0} (level {0} is in force)\n", Level::MAX);
    assert_eq!(set(&trio, &[&format!("level={}", Level::MAX)]), held);
    // What is in force is not taken back.
    let (code, line) = refusal(&run(&mut trio.command(&["cluster", "set", "level=1"]), b""));
    assert!(code == Some(2) && line.contains("can't be taken back"), "{line}");
    assert_eq!(set(&trio, &["leader-preference=highest-id"]), "leader-preference = highest-id\n");
    eventually("the highest leads all", || leaders(&trio) == [3]);

    // Every node goes by it, whichever is asked, and again after all have been killed.
    for _ in 0..2 {
        for address in trio.addresses() {
            let told = run(&mut trio.command(&["cluster", "set", "--json", "--addr", &address]), b"");
            assert_eq!(objects(&told)[0]["leader_preference"], "highest-id");
            assert_eq!(
                (&objects(&told)[0]["level"], &objects(&told)[0]["level_limit"]),
                (&Level::MAX.0.into(), &Level::MAX.to_string().into())
            );
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
    assert!(objects(&nodes).iter().all(|node| node["level_max"] == Level::MAX.0));
    assert_eq!(set(&trio, &["level=auto"]), level);
    assert_eq!(stdout(&run(&mut trio.command(&["cluster", "nodes"]), b"")).lines().count(), 4);
}

#[test]
fn a_setting_that_is_none_is_refused_with_what_there_is() {
    let trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for (setting, told) in [
        ("leader-preference", "has no value"),
        ("leader-preference=loudest", "say ring or highest-id"),
        ("leader=ring", "there are leader-preference=ring, replicas=3 and level=auto"),
        ("level=0", "say auto, or a number"),
        ("replicas=0", "one from 1 to 64"),
        ("replicas=three", "one from 1 to 64"),
    ] {
        let (code, line) = refusal(&run(&mut trio.command(&["cluster", "set", setting]), b""));
        assert!(code == Some(2) && line.contains(told), "{line}");
    }
    let (code, line) = refusal(&run(&mut trio.command(&["cluster", "nodes", "a=b"]), b""));
    assert!(code == Some(2) && line.contains("cluster set"), "{line}");
}

/// The replicas of a node, as its peers' numbers.
fn peers(trio: &Trio, node: u64) -> Vec<u64> {
    let shards = objects(&run(&mut trio.command(&["cluster", "shards", "--json"]), b""));
    let of = |shard: &Value| {
        let replicas = shard["replicas"].as_array().expect("replicas").clone();
        let own = replicas.into_iter().find(|replica| replica["node"] == node);
        own.expect("every node has one")["peer"].as_u64().expect("a number")
    };
    shards.iter().map(of).collect()
}

/// As soon as the command has ended.
#[test]
fn a_node_that_is_rebuilt_stands_in_for_another_one() {
    let mut trio = Trio::start();
    let rows: Vec<String> = (0..400).map(|row| format!("key{row}\tvalue\n")).collect();
    let rows = rows.concat();
    for lost in [0, 2, 0] {
        assert!(run(&mut trio.command(&["import", "-"]), rows.as_bytes()).status.success());
        let told = run(&mut trio.command(&["rebuild", "node2"]), b"");
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        trio.kill(lost);
        let written = run(&mut trio.command(&["import", "-", "--give-up", "10s"]), rows.as_bytes());
        assert!(written.status.success(), "without node{}: {written:?}", lost + 1);
        trio.start_node(lost);
        eventually("it is back", || run(&mut trio.command(&["check"]), b"").status.success());
    }
}

#[test]
fn a_node_is_rebuilt_from_the_others_while_they_serve() {
    let mut trio = Trio::start();
    let rows: Vec<String> = (0..2_000).map(|number| format!("key{number}\tvalue{number}\n")).collect();
    assert!(run(&mut trio.command(&["import", "-"]), rows.concat().as_bytes()).status.success());
    let before = peers(&trio, 2);

    let mut load = trio.command(&["bench", "--workload", "put", "--keys", "500", "--seconds", "4", "--json"]);
    let load = load.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let told = run(&mut trio.command(&["rebuild", "node2", "--json"]), b"");
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert_eq!(objects(&told).len(), before.len());
    let load = objects(&load.wait_with_output().expect("ends"));
    assert!(load[0]["errors"] == 0 && load[0]["ops"].as_u64().is_some_and(|ops| ops > 0), "{load:?}");

    let after = peers(&trio, 2);
    assert!(before.iter().zip(&after).all(|(before, after)| before < after), "{before:?} {after:?}");
    assert!(run(&mut trio.command(&["check"]), b"").status.success(), "all replicas agree");
    // It votes again: one of the others can be missed. And it is the same one after kill -9.
    trio.kill(1);
    trio.start_node(1);
    eventually("it is back", || run(&mut trio.command(&["check"]), b"").status.success());
    trio.kill(0);
    eventually("two are enough", || run(&mut trio.command(&["put", "key", "value"]), b"").status.success());
    assert_eq!(peers(&trio, 2), after);

    let (code, line) = refusal(&run(&mut trio.command(&["rebuild", "node9"]), b""));
    assert!(code == Some(2) && line.contains("no node node9: the nodes are node1, node2, node3"), "{line}");
    eventually("the first is known to be down", || {
        let (code, line) = refusal(&run(&mut trio.command(&["rebuild", "node2"]), b""));
        code == Some(3) && line.contains("node1 is not up")
    });
    let (code, line) = refusal(&run(&mut trio.command(&["rebuild", "node1"]), b""));
    assert!(code == Some(3) && line.contains("node1 is not up: start it first"), "{line}");
    assert_eq!(peers(&trio, 2), after, "nothing was asked for");
}
