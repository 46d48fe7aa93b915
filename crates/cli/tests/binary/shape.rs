//! Questions about a cluster's shape, and leaderships that are moved: `where`, `safe-to-stop`, `cluster transfer`.

use std::process::{Output, Stdio};

use ringfort_proto::v1;
use ringfort_proto::v1::cluster_client::ClusterClient;
use serde_json::Value;

use crate::node::Node;
use crate::support::{eventually, objects, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

fn ask(trio: &Trio, arguments: &[&str]) -> Output {
    run(&mut trio.command(arguments), b"")
}

/// The one object that it prints.
fn one(output: &Output) -> Value {
    let mut objects = objects(output);
    assert_eq!(objects.len(), 1, "{objects:?}: {}", stderr(output));
    objects.remove(0)
}

fn shards(trio: &Trio) -> Vec<Value> {
    objects(&ask(trio, &["cluster", "shards", "--json"]))
}

/// Whether it is safe to stop a node; what is told is on stdout, and nothing on stderr.
fn safe(trio: &Trio, node: &str) -> (bool, String) {
    let output = ask(trio, &["safe-to-stop", node, "--timeout", "6s"]);
    assert_eq!(stderr(&output), "");
    match output.status.code() {
        Some(0) => (true, stdout(&output)),
        Some(1) => (false, stdout(&output)),
        other => panic!("{other:?}: {}", stdout(&output)),
    }
}

#[test]
fn where_says_which_replicas_a_key_has_and_who_leads_them() {
    let mut trio = Trio::start();
    for key in ["name", "{user1}name", "-5", "é"] {
        let arguments = ["where", "--json", "--", key];
        eventually("a leader is known", || !one(&ask(&trio, &arguments))["leader"].is_null());
        let told = one(&ask(&trio, &arguments));
        let shards = shards(&trio);
        let shard = shards.iter().find(|shard| shard["shard"] == told["shard"]).expect("it exists");
        let has_slot = |range: &Value| {
            range[0].as_u64() <= told["slot"].as_u64() && told["slot"].as_u64() <= range[1].as_u64()
        };
        assert!(shard["slots"].as_array().expect("ranges").iter().any(has_slot), "{told} {shard}");
        assert_eq!((told["key"].as_str(), &told["leader"]), (Some(key), &shard["leader"]), "{told}");
        let nodes = |of: &Value| {
            of["replicas"].as_array().expect("some").iter().map(|at| at["node"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(nodes(&told), nodes(shard));
        let text = stdout(&ask(&trio, &["where", "--", key]));
        let leader = told["leader_name"].as_str().expect("known");
        assert!(text.ends_with(&format!(", leader {leader}\n")) && text.contains("node1"), "{text}");
    }
    assert_eq!(
        one(&ask(&trio, &["where", "{user1}a", "--json"]))["slot"],
        one(&ask(&trio, &["where", "{user1}b", "--json"]))["slot"]
    );
    let (code, line) = refusal(&ask(&trio, &["where", ""]));
    assert!(code == Some(2) && line.contains("empty key"), "{line}");

    trio.kill(0);
    trio.kill(2);
    eventually("nobody is known to lead", || {
        let output = ask(&trio, &["where", "name"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).ends_with("leader unknown\n")
    });
    assert!(one(&ask(&trio, &["where", "name", "--json"]))["leader"].is_null());
    trio.kill(1);
    let (code, _) = refusal(&ask(&trio, &["where", "name", "--timeout", "300ms"]));
    assert_eq!(code, Some(3));
}

#[test]
fn a_node_is_safe_to_stop_only_if_the_others_are_enough() {
    let mut trio = Trio::start();
    eventually("all have caught up", || safe(&trio, "node2").0);
    let told = one(&ask(&trio, &["safe-to-stop", "node2", "--json"]));
    assert_eq!((&told["name"], &told["safe"]), (&"node2".into(), &true.into()), "{told}");
    assert!(safe(&trio, &trio.address(2)).0, "an address names a node, too");
    let (code, line) = refusal(&ask(&trio, &["safe-to-stop", "node9"]));
    assert!(code == Some(2) && line.contains("the nodes are node1, node2, node3"), "{line}");

    trio.kill(0);
    let (is_safe, text) = safe(&trio, "node2");
    assert!(
        !is_safe && text.contains("17 of 17 shards") && text.contains("node1 is down: start it"),
        "{text}"
    );
    let output = ask(&trio, &["safe-to-stop", "node3", "--json"]);
    let told = one(&output);
    assert_eq!((output.status.code(), &told["safe"]), (Some(1), &false.into()), "{told}");
    let found = &told["unsafe_shards"][0];
    assert_eq!(
        (&found["left"], &found["needed"], &found["missing"][0]["why"]),
        (&1.into(), &2.into(), &"down".into())
    );
    // What is down already takes nothing with it.
    eventually("others lead what it led", || safe(&trio, "node1").0);
    assert!(safe(&trio, "node1").1.contains("it is down already"));
    // It said so: without node2 nothing can be written.
    trio.kill(1);
    let (code, line) = refusal(&ask(&trio, &["put", "k", "v", "--timeout", "1s"]));
    assert!(code == Some(3), "{line}");
    assert!(!safe(&trio, "node3").0);

    trio.start_node(0);
    trio.start_node(1);
    eventually("all are back", || safe(&trio, "node3").0);
    trio.terminate(2);
    assert!(ask(&trio, &["put", "k", "v"]).status.success(), "it was safe");
    trio.start_node(2);
    eventually("all are back", || safe(&trio, "node1").0);
    // One that hangs keeps its connections, and counts for nothing.
    trio.stop(2);
    let (is_safe, text) = safe(&trio, "node1");
    assert!(!is_safe && text.contains("node3"), "{text}");
    trio.go_on(2);
    eventually("it goes on", || safe(&trio, "node1").0);
    for node in 0..3 {
        trio.kill(node);
    }
    let (code, _) = refusal(&ask(&trio, &["safe-to-stop", "node1", "--timeout", "300ms"]));
    assert_eq!(code, Some(3), "it can't be found out");
}

#[test]
fn a_cluster_of_one_can_not_do_without_its_node() {
    let node = Node::start();
    let name = objects(&run(&mut ringfort(&["--addr", &node.address, "cluster", "nodes", "--json"]), b""))[0]
        ["name"]
        .clone();
    let output =
        run(&mut ringfort(&["--addr", &node.address, "safe-to-stop", name.as_str().expect("a name")]), b"");
    let text = stdout(&output);
    assert!(output.status.code() == Some(1) && text.contains("too few other nodes have replicas"), "{text}");
}

#[test]
fn a_leadership_goes_to_the_node_that_is_named() {
    let mut trio = Trio::start();
    let leader = |trio: &Trio, shard: usize| shards(trio)[shard]["leader"].as_u64();
    eventually("all have reported", || safe(&trio, "node1").0);
    eventually("all are led", || (0..17).all(|shard| leader(&trio, shard).is_some()));
    for shard in [0, 3, 4] {
        let node = leader(&trio, shard).expect("led") % 3 + 1;
        let (number, name) = (shard.to_string(), format!("node{node}"));
        let transfer = ["cluster", "transfer", &number, &name];
        let moved = one(&ask(&trio, &[&transfer[..], &["--json"]].concat()));
        assert_eq!((&moved["node"], &moved["led_already"]), (&node.into(), &false.into()), "{moved}");
        eventually("all know of it", || {
            trio.addresses().iter().all(|address| {
                let asked = run(&mut ringfort(&["--addr", address, "cluster", "shards", "--json"]), b"");
                objects(&asked)[shard]["leader"].as_u64() == Some(node)
            })
        });
        // Longer than it takes until leaders are balanced.
        for _ in 0..2 {
            assert!(safe(&trio, "node1").0);
        }
        let again = ask(&trio, &transfer);
        let text = stdout(&again);
        assert!(
            again.status.success() && text.contains(" already, and keeps it for 10 minutes"),
            "{text}{}",
            stderr(&again)
        );
    }
    for (arguments, code, told) in [
        (&["transfer", "3"][..], 2, "name a shard and a node"),
        (&["transfer", "three", "node1"], 2, "no number of a shard"),
        (&["transfer", "99", "node1"], 2, "shards 1 to 16, and 0, the meta group"),
        (&["transfer", "3", "node9"], 2, "the nodes are node1, node2, node3"),
        (&["nodes", "3", "node1"], 2, "leave it out"),
    ] {
        let (got, line) = refusal(&ask(&trio, &[&["cluster"], arguments].concat()));
        assert!(got == Some(code) && line.contains(told), "{line}");
    }

    let said = run(
        &mut trio.command(&["shell"]),
        b"where name\ntransfer 5 node1\ntransfer 5 node1\nsafe-to-stop node1\ntransfer 5 node9\n",
    );
    let text = stdout(&said);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(lines[0].starts_with("slot 5798, shard "), "{text}");
    assert!(
        lines[1].starts_with("node1 leads shard 5 ") && lines[2].starts_with("node1 leads shard 5 already"),
        "{text}"
    );
    assert!(lines[3].starts_with("safe: without node1, ") && lines[4].contains("no node node9"), "{text}");

    trio.kill(1);
    let (code, line) = refusal(&ask(&trio, &["cluster", "transfer", "5", "node2"]));
    assert!(code == Some(3) && line.contains("node2 is down") && !line.contains("outcome unknown"), "{line}");
}

#[tokio::test]
async fn any_node_passes_a_transfer_on_to_the_leader() {
    let trio = Trio::start();
    eventually("all have reported", || safe(&trio, "node1").0);
    for (asked, to) in [(0, 1), (0, 2), (1, 3), (2, 1), (1, 1)] {
        let mut cluster =
            ClusterClient::connect(format!("http://{}", trio.address(asked))).await.expect("it listens");
        let request = v1::TransferLeadershipRequest { shard: 3, node: to };
        let term = cluster.transfer_leadership(request).await.expect("it leads").into_inner().term;
        let mut cluster = ClusterClient::connect(format!("http://{}", trio.address(to as usize - 1)))
            .await
            .expect("it listens");
        let state =
            cluster.get_cluster_state(v1::GetClusterStateRequest {}).await.expect("it says so").into_inner();
        assert_eq!((state.shards[3].leader_node, state.shards[3].term), (to, term));
    }
    let mut cluster =
        ClusterClient::connect(format!("http://{}", trio.address(0))).await.expect("it listens");
    let status =
        cluster.transfer_leadership(v1::TransferLeadershipRequest { shard: 3, node: 9 }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("node 9 has no replica that could lead shard 3"), "{status:?}");
}

#[test]
fn no_write_fails_while_leaderships_move_and_a_loaded_node_is_told_from_one_that_lags() {
    let trio = Trio::start();
    eventually("all have reported", || safe(&trio, "node1").0);
    let load = ["bench", "--seconds", "6", "--in-flight", "32", "--keys", "1000", "--json"];
    let mut bench = trio.command(&load);
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    for round in 0..3 {
        for shard in 1..=4 {
            let node = format!("node{}", (round + shard) % 3 + 1);
            let moved = ask(&trio, &["cluster", "transfer", &shard.to_string(), &node]);
            assert!(moved.status.success(), "{}", stderr(&moved));
        }
    }
    assert!(safe(&trio, "node2").0, "all keep up");
    let counted = one(&bench.wait_with_output().expect("it ends"));
    assert!(counted["errors"] == 0 && counted["ops"].as_u64() > Some(100), "{counted}");
}
