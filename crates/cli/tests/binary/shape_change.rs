//! Changes of a cluster's shape by its command line: nodes that are drained and removed, copies that are set, and what is said before.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{Dev, eventually, objects, refusal, run, stderr, stdout};

fn ask(dev: &Dev, arguments: &[&str]) -> Output {
    run(&mut dev.command(arguments), b"")
}

/// The one object that it prints.
fn one(output: &Output) -> Value {
    let mut objects = objects(output);
    assert!(output.status.success() && objects.len() == 1, "{objects:?}: {}", stderr(output));
    objects.remove(0)
}

fn nodes(dev: &Dev) -> Vec<Value> {
    objects(&ask(dev, &["cluster", "nodes", "--json"]))
}

fn standing(dev: &Dev, name: &str) -> Option<String> {
    let node = nodes(dev).into_iter().find(|node| node["name"] == name)?;
    node["standing"].as_str().map(str::to_owned)
}

/// How many replicas of keys this node has, once nothing is moving any more.
fn settled(dev: &Dev, node: u64) -> Option<usize> {
    let shards = objects(&ask(dev, &["cluster", "shards", "--json"]));
    let has = |shard: &&Value| {
        shard["replicas"].as_array().expect("replicas").iter().any(|replica| replica["node"] == node)
    };
    let is_settled = shards.iter().all(|shard| shard["moving"] == false && !shard["leader"].is_null());
    is_settled.then(|| shards[1..].iter().filter(has).count())
}

/// How many replicas there are of each shard of keys, once nothing is moving any more.
fn copies(dev: &Dev) -> Option<Vec<usize>> {
    let shards = objects(&ask(dev, &["cluster", "shards", "--json"]));
    let of = |shard: &Value| shard["replicas"].as_array().expect("replicas").len();
    shards.iter().all(|shard| shard["moving"] == false).then(|| shards[1..].iter().map(of).collect())
}

fn fill(dev: &Dev) {
    let rows: Vec<String> = (0..2_000).map(|number| format!("row{number}\tvalue{number}\n")).collect();
    assert!(run(&mut dev.command(&["import", "-"]), rows.concat().as_bytes()).status.success());
}

#[test]
fn a_node_is_added_drained_filled_and_removed_while_the_others_serve() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(directory.path());
    fill(&dev);

    // What would leave fewer copies is refused, with what is at stake, and was said before.
    for what in ["remove", "drain"] {
        let (code, line) = refusal(&ask(&dev, &["cluster", what, "node3"]));
        let says =
            "each shard has 2 copies instead of 3, which survive the loss of no node instead of 1 node";
        assert!(code == Some(2) && line.contains(says) && line.contains("--force"), "{line}");
        let planned = one(&ask(&dev, &["cluster", "plan", what, "node3", "--json"]));
        assert!(planned["refused"].as_str().is_some_and(|why| why.contains(says)), "{planned}");
    }
    assert_eq!(standing(&dev, "node3").as_deref(), Some("active"), "nothing was changed");
    let (code, line) = refusal(&ask(&dev, &["cluster", "remove", "node9"]));
    assert!(code == Some(2) && line.contains("the nodes are node1, node2, node3"), "{line}");

    let planned = one(&ask(&dev, &["cluster", "plan", "join", "1", "--json"]));
    let said = dev.say("node add");
    assert!(said.starts_with("node4 is starting on 127.0.0.1:"), "{said}");
    eventually("it has joined, and has its share", || settled(&dev, 4).is_some_and(|replicas| replicas > 0));
    let has = settled(&dev, 4).expect("settled");
    assert_eq!(planned["nodes"][3]["replicas_then"], has, "it is as it was planned");
    let nothing = stdout(&ask(&dev, &["cluster", "plan"]));
    assert!(nothing.contains("\nnothing moves\n"), "{nothing}");
    assert!(!stdout(&ask(&dev, &["status"])).contains("moving"));

    let planned = one(&ask(&dev, &["cluster", "plan", "drain", "node4", "--json"]));
    assert_eq!((&planned["copied"], &planned["dropped"]), (&has.into(), &has.into()), "{planned}");
    let mut load = dev.command(&["bench", "--workload", "put", "--keys", "500", "--seconds", "4", "--json"]);
    let load = load.stdout(Stdio::piped()).spawn().expect("starts");
    let drained = ask(&dev, &["cluster", "drain", "node4"]);
    assert_eq!(drained.status.code(), Some(0), "{}", stderr(&drained));
    assert!(stdout(&drained).starts_with("node4 has no replicas any more; `ringfort cluster undrain node4`"));
    // Whoever is asked next may hear a moment later that the last shard has come to rest.
    eventually("all nodes know it", || settled(&dev, 4) == Some(0));
    assert_eq!(standing(&dev, "node4").as_deref(), Some("draining"));
    assert!(stdout(&ask(&dev, &["cluster", "nodes"])).contains(" draining "));
    let load = objects(&load.wait_with_output().expect("ends"));
    assert!(load[0]["errors"] == 0 && load[0]["ops"].as_u64().is_some_and(|ops| ops > 0), "{load:?}");
    assert!(ask(&dev, &["safe-to-stop", "node4", "--timeout", "10s"]).status.success());
    // What is so already is done at once, and no other one may go now.
    assert_eq!(one(&ask(&dev, &["cluster", "drain", "node4", "--json"]))["done"], true);
    let (code, _) = refusal(&ask(&dev, &["cluster", "drain", "node1"]));
    assert_eq!(code, Some(2));

    let filled = one(&ask(&dev, &["cluster", "undrain", "node4", "--json"]));
    assert_eq!((&filled["standing"], &filled["done"]), (&"active".into(), &true.into()), "{filled}");
    assert!(settled(&dev, 4).is_some_and(|replicas| replicas > 0));

    all_at_once(&dev);

    // One that is down is removed like any other.
    assert!(dev.say("node kill node4").starts_with("node4 is killed"));
    eventually("it is known to be down", || nodes(&dev).iter().any(|node| node["state"] == "down"));
    let (code, line) = refusal(&ask(&dev, &["cluster", "remove", "node1"]));
    assert!(
        code == Some(3) && line.contains("2 nodes are up, and each shard has 3 copies: start node4 first"),
        "{line}"
    );
    let removed = one(&ask(&dev, &["cluster", "remove", "node4", "--json"]));
    assert_eq!((&removed["standing"], &removed["name"]), (&"removed".into(), &"node4".into()), "{removed}");
    let names: Vec<Value> = nodes(&dev).iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    assert!(ask(&dev, &["check"]).status.success(), "all replicas agree");
    assert_eq!(dev.ok(&["list", "--prefix", "row", "--keys-only"], b"").lines().count(), 2_000);
    assert_eq!(dev.leave(), Some(0));
}

/// All four are to go at the same moment, each through a node of its own: one may, and whoever is told that it does, does.
fn all_at_once(dev: &Dev) {
    for _ in 0..3 {
        let all: Vec<(String, String)> = nodes(dev)
            .iter()
            .map(|node| [&node["name"], &node["address"]].map(|text| text.as_str().expect("text").to_owned()))
            .map(|[name, address]| (name, address))
            .collect();
        let drains: Vec<_> = all
            .iter()
            .map(|(name, address)| {
                let mut drain = dev.command(&["cluster", "drain", name, "--no-wait", "--addr", address]);
                drain.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
            })
            .collect();
        let goes = drains.into_iter().zip(&all).filter_map(|(mut drain, (name, _))| {
            drain.wait().expect("ends").success().then_some(name.clone())
        });
        let goes: Vec<String> = goes.collect();
        assert!(goes.len() <= 1, "each shard has three copies: {goes:?}");
        let draining = || {
            let is_draining = |node: &&Value| node["standing"] == "draining";
            nodes(dev)
                .iter()
                .filter(is_draining)
                .map(|node| node["name"].as_str().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        eventually("those that were told so are drained", || draining() == goes);
        for name in &goes {
            assert!(ask(dev, &["cluster", "undrain", name]).status.success());
        }
    }
}

#[test]
fn the_number_of_copies_is_changed_while_the_cluster_serves() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(directory.path());
    fill(&dev);
    let planned = one(&ask(&dev, &["cluster", "plan", "replicas", "1", "--json"]));
    assert_eq!((&planned["replicas_then"], &planned["copied"]), (&16.into(), &0.into()), "{planned}");
    assert_eq!(stdout(&ask(&dev, &["cluster", "set", "replicas=1"])), "replicas = 1\n");
    eventually("one copy is left of each", || copies(&dev).is_some_and(|copies| copies == [1; 16]));
    assert_eq!(dev.ok(&["list", "--prefix", "row", "--keys-only"], b"").lines().count(), 2_000);

    // As the shell says it; and what is rounded is said.
    assert_eq!(
        dev.say("cluster set replicas=2"),
        "replicas = 2 (2 copies survive no more failures than 1: each shard gets 3 instead)"
    );
    eventually("there are three again", || copies(&dev).is_some_and(|copies| copies == [3; 16]));
    let set = one(&ask(&dev, &["cluster", "set", "--json"]));
    assert_eq!((&set["replicas"], &set["copies"]), (&2.into(), &3.into()), "{set}");
    assert!(ask(&dev, &["check"]).status.success(), "all replicas agree");
    assert_eq!(
        dev.say("cluster drain node9"),
        "error: there is no node node9: the nodes are node1, node2, node3"
    );
    assert_eq!(
        dev.say("cluster fly"),
        "error: there is no `cluster fly`: there are nodes, shards, set, transfer, remove, drain, undrain, plan"
    );
    assert_eq!(dev.leave(), Some(2), "two lines made no sense");
}

#[test]
fn what_is_forced_is_asked_for_and_can_be_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());
    let forced = one(&ask(&dev, &["cluster", "drain", "node3", "--force", "--no-wait", "--json"]));
    assert_eq!((&forced["standing"], &forced["done"]), (&"draining".into(), &false.into()), "{forced}");
    eventually("two copies are left of each", || copies(&dev).is_some_and(|copies| copies == [2; 16]));
    let (code, line) = refusal(&ask(&dev, &["cluster", "remove", "node2"]));
    assert!(code == Some(2) && line.contains("each shard has 1 copy instead of 2"), "{line}");
    assert!(ask(&dev, &["cluster", "undrain", "node3"]).status.success());
    eventually("there are three again", || copies(&dev).is_some_and(|copies| copies == [3; 16]));
    assert!(ask(&dev, &["check"]).status.success(), "all replicas agree");
}
