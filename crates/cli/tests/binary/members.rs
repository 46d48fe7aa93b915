//! Clusters that change shape while they serve: nodes join, leave, stay away, and lose their disks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfort_client::{Client, Options};
use ringfort_types::{ClusterState, LayoutChange, Standing};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use crate::support::{ask_to_stop, ended, eventually, free_ports, objects, refusal, ringfort, run, stdout};

const CLIENTS: usize = 32;
const COUNTERS: usize = 4;
/// Until all groups are where the layout wants them.
const MOVED_MAX: Duration = Duration::from_mins(1);

/// Nodes of one cluster, the first of which was there alone.
pub(crate) struct Members {
    pub(crate) directory: tempfile::TempDir,
    base: u16,
    pub(crate) nodes: Vec<Option<Child>>,
    /// Flags that each has.
    more: Vec<String>,
}

impl Members {
    pub(crate) fn start(more: &[&str]) -> Members {
        let directory = tempfile::tempdir().expect("a directory");
        let more = more.iter().map(|flag| (*flag).to_owned()).collect();
        let mut members = Members { directory, base: free_ports(8), nodes: Vec::new(), more };
        members.add(&["--bootstrap", "--shards", "16"]);
        members
    }

    pub(crate) fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.base + node as u16)
    }

    pub(crate) fn data(&self, node: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("node{}", node + 1))
    }

    pub(crate) fn said(&self, node: usize) -> String {
        std::fs::read_to_string(self.directory.path().join(format!("{node}.log"))).unwrap_or_default()
    }

    pub(crate) fn command(&self, node: usize, flags: &[&str]) -> Command {
        let mut command = ringfort(&["start", "--id", &format!("node{}", node + 1)]);
        command.args(["--addr", &self.address(node), "--data-dir"]).arg(self.data(node));
        command.args(&self.more).args(flags);
        command
    }

    /// One more, which serves.
    fn add(&mut self, flags: &[&str]) -> usize {
        self.nodes.push(None);
        let node = self.nodes.len() - 1;
        self.start_node(node, flags);
        node
    }

    pub(crate) fn start_node(&mut self, node: usize, flags: &[&str]) {
        self.spawn_node(node, flags);
        eventually("it serves", || self.said(node).contains("serves on"));
    }

    /// One that does not serve at once.
    pub(crate) fn spawn_node(&mut self, node: usize, flags: &[&str]) {
        let log = File::create(self.directory.path().join(format!("{node}.log"))).expect("a log");
        let errors = log.try_clone().expect("a log");
        let child = self.command(node, flags).stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.nodes[node] = Some(child.expect("starts"));
    }

    pub(crate) fn join(&mut self) -> usize {
        // The same list for all, as somebody would write it who deploys them.
        let members = format!("{},{}", self.address(1), self.address(0));
        self.add(&["--join", &members])
    }

    fn join_by(&mut self, member: usize) -> usize {
        let member = self.address(member);
        self.add(&["--join", &member])
    }

    /// What was started before, by the same line.
    pub(crate) fn start_again(&mut self, node: usize) {
        self.start_node(node, if node == 0 { &["--bootstrap"] } else { &[] });
    }

    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it runs");
    }

    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// It has ended by itself, with this code.
    pub(crate) fn has_ended(&mut self, node: usize, code: i32) {
        let child = self.nodes[node].as_mut().expect("it was started");
        let until = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            match child.try_wait().expect("it is ours") {
                Some(ended) => break ended,
                None if Instant::now() > until => {
                    let state = run(&mut self.cli(1, &["cluster", "nodes"]), b"");
                    panic!("node{} goes on: {} {}", node + 1, stdout(&state), self.said(node))
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        self.nodes[node] = None;
        assert_eq!(ended.code(), Some(code), "{}", self.said(node));
    }

    pub(crate) fn addresses(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|node| self.address(*node)).collect()
    }

    pub(crate) fn cli(&self, node: usize, arguments: &[&str]) -> Command {
        let mut command = ringfort(arguments);
        command.env("RINGFORT_ADDR", self.address(node));
        command
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
    }
}

/// Whether each shard has so many replicas, all on these nodes, and its group is there.
fn is_placed(state: &ClusterState, copies: usize, nodes: &[usize]) -> bool {
    let is_one = |node: &ringfort_types::NodeId| nodes.contains(&(node.0 as usize - 1));
    let is_there = |shard: &ringfort_types::ShardState| {
        shard.replicas.len() == copies
            && shard.replicas.iter().all(|(node, _)| is_one(node))
            && !shard.is_moving
    };
    let has_some = |node: &usize| {
        let mut places = state.shards[1..].iter().flat_map(|shard| &shard.replicas);
        places.any(|(id, _)| id.0 as usize - 1 == *node)
    };
    state.shards[1..].iter().all(is_there) && !state.shards[0].is_moving && nodes.iter().all(has_some)
}

/// Waits until everything is on these nodes.
pub(crate) fn wait_for(runtime: &Runtime, client: &Client, copies: usize, nodes: &[usize]) {
    let until = Instant::now() + MOVED_MAX;
    loop {
        let state = runtime.block_on(client.cluster_state());
        if state.as_ref().is_ok_and(|state| is_placed(state, copies, nodes)) {
            return;
        }
        assert!(Instant::now() < until, "not {copies} copies on {nodes:?}: {state:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Clients that write, and remember what was acknowledged.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    puts: Vec<Arc<AtomicU64>>,
    added: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    pub(crate) fn start(runtime: &Runtime, client: &Client) -> Load {
        let over = Arc::<AtomicBool>::default();
        let puts: Vec<Arc<AtomicU64>> = (0..CLIENTS).map(|_| Arc::default()).collect();
        let added = Arc::<AtomicU64>::default();
        let mut tasks = tokio::task::JoinSet::new();
        let _in_it = runtime.enter();
        for (number, last) in puts.iter().cloned().enumerate() {
            let (client, over) = (client.clone(), over.clone());
            tasks.spawn(async move {
                for value in 1_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("client{number}");
                    client.put(key.clone(), value.to_string()).await.expect("a retry covers it");
                    last.store(value, Ordering::Relaxed);
                    let row = client.get(key).await.expect("a retry covers it").expect("it was put");
                    assert_eq!(row.value, value.to_string(), "nobody else writes it");
                }
            });
        }
        for number in 0..COUNTERS {
            let (client, over, added) = (client.clone(), over.clone(), added.clone());
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.increment(format!("counter{number}"), 1).await.expect("a retry covers it");
                    added.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Load { over, puts, added, tasks }
    }

    /// Ends it, and looks for all that was acknowledged.
    pub(crate) fn end(self, runtime: &Runtime, client: &Client) {
        self.over.store(true, Ordering::Relaxed);
        runtime.block_on(self.tasks.join_all());
        for (number, last) in self.puts.iter().enumerate() {
            let row = runtime.block_on(client.get(format!("client{number}"))).expect("it answers");
            assert_eq!(row.expect("it is there").value, last.load(Ordering::Relaxed).to_string());
        }
        let count = |number: usize| {
            let row = runtime.block_on(client.get(format!("counter{number}"))).expect("it answers");
            String::from_utf8(row.expect("it is there").value.to_vec()).expect("a number").parse::<u64>()
        };
        let counted: u64 = (0..COUNTERS).map(|number| count(number).expect("a number")).sum();
        assert_eq!(counted, self.added.load(Ordering::Relaxed), "each took effect once");
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(crate) fn connect(runtime: &Runtime, addresses: Vec<String>) -> Client {
    let options = Options { timeout: Duration::from_secs(10), ..Options::new(addresses) };
    runtime.block_on(Client::connect(options)).expect("it serves")
}

fn stand(runtime: &Runtime, client: &Client, node: usize, standing: Standing) {
    let state = runtime.block_on(client.cluster_state()).expect("it answers");
    let name = format!("node{}", node + 1);
    let id = state.nodes.iter().find(|node| node.name == name).expect("a member").id;
    runtime.block_on(client.change_layout(LayoutChange::Stand(id, standing))).expect("it is taken");
}

#[test]
fn a_cluster_grows_from_one_node_to_five_and_shrinks_to_three_while_it_serves() {
    let runtime = runtime();
    let mut members = Members::start(&["--log-level", "info"]);
    let client = connect(&runtime, members.addresses(&[0]));
    let load = Load::start(&runtime, &client);
    for copies in [2, 3, 3, 3] {
        let node = members.join();
        wait_for(&runtime, &client, copies, &(0..=node).collect::<Vec<_>>());
    }
    // What has joined comes back without a word about whom it had joined.
    members.kill(4);
    members.start_node(4, &[]);
    // Also the first one goes.
    for (gone, left) in [(0, &[1, 2, 3, 4][..]), (3, &[1, 2, 4])] {
        stand(&runtime, &client, gone, Standing::Leaving);
        wait_for(&runtime, &client, 3, left);
        members.has_ended(gone, 2);
        assert!(members.said(gone).contains("has been removed from its cluster"), "{}", members.said(gone));
        let left_over = std::fs::read_dir(members.data(gone).join("lane-0/shards")).expect("a directory");
        assert_eq!(left_over.count(), 0, "no table is left on node{}", gone + 1);
    }
    load.end(&runtime, &client);
    let client = connect(&runtime, members.addresses(&[4]));
    let state = runtime.block_on(client.cluster_state()).expect("it answers");
    let names: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["node2", "node3", "node5"]);
    let checked = run(&mut members.cli(4, &["check"]), b"");
    assert!(stdout(&checked).contains("all replicas agree"), "{checked:?}");

    // Whoever is no member is told so when it comes back, and nobody else is disturbed.
    let told = run(&mut members.command(0, &["--bootstrap", "--shards", "16"]), b"");
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("has been removed from its cluster"), "{told:?}");
    assert_eq!(run(&mut members.cli(4, &["health"]), b"").status.code(), Some(0));
}

/// A small generator, so that a chain can be had again by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Changes as they come: nodes join, are removed, killed, stopped for a while, and lose their disks, one after the other and before the one
/// before is over. `RINGFORT_TEST_CHAIN` says how many, `RINGFORT_TEST_SEED` which.
#[test]
fn a_chain_of_changes_loses_nothing_and_leaves_nothing_behind() {
    let number = |name: &str, or| std::env::var(name).map_or(or, |text| text.parse().expect("a number"));
    let (changes, seed) = (number("RINGFORT_TEST_CHAIN", 6), number("RINGFORT_TEST_SEED", 3));
    let mut dice = Dice(seed);
    let runtime = runtime();
    let mut members = Members::start(&["--replace-after", "5s"]);
    for _ in 1..4 {
        members.join();
    }
    let client = connect(&runtime, members.addresses(&[0, 1, 2, 3]));
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3]);
    let load = Load::start(&runtime, &client);
    // By their places among the processes; each process is a member with a number of its own.
    let mut there = vec![0, 1, 2, 3];
    for _ in 0..changes {
        let any = there[dice.roll(there.len() as u64) as usize];
        let what = dice.roll(5);
        eprintln!("change {what} at process {any} of {there:?}");
        match what {
            0 if members.nodes.len() < 8 => there.push(members.join_by(any)),
            1 if there.len() > 4 => {
                stand(&runtime, &client, any, Standing::Leaving);
                there.retain(|node| *node != any);
                wait_for(&runtime, &client, 3, &there);
                members.has_ended(any, 2);
            }
            2 => {
                members.kill(any);
                std::thread::sleep(Duration::from_millis(200 + dice.roll(3_000)));
                members.start_again(any);
            }
            3 => {
                members.signal(any, Signal::STOP);
                std::thread::sleep(Duration::from_millis(200 + dice.roll(3_000)));
                members.signal(any, Signal::CONT);
            }
            // Away for good: the others make up for it, before it comes back as if nothing had been.
            _ if there.len() > 3 => {
                let others: Vec<usize> = there.iter().copied().filter(|node| *node != any).collect();
                wait_for(&runtime, &client, 3, &there);
                members.kill(any);
                wait_for(&runtime, &client, 3, &others);
                members.start_again(any);
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(dice.roll(1_500)));
    }
    wait_for(&runtime, &client, 3, &there);
    load.end(&runtime, &client);
    let checked = run(&mut members.cli(there[0], &["check"]), b"");
    assert!(stdout(&checked).contains("all replicas agree"), "{checked:?}");
    // A table that is not in use any more goes in the background.
    let state = runtime.block_on(client.cluster_state()).expect("it answers");
    eventually("what is on disk is what should be there", || {
        there.iter().all(|node| {
            let on = |shard: &&ringfort_types::ShardState| {
                shard.replicas.iter().any(|(id, _)| id.0 as usize - 1 == *node)
            };
            let tables = std::fs::read_dir(members.data(*node).join("lane-0/shards")).expect("a directory");
            tables.count() == state.shards.iter().filter(on).count()
        })
    });
}

/// The names of the nodes that have each shard, and how many shards of keys each node has.
type Places = (BTreeMap<u64, BTreeSet<String>>, BTreeMap<String, u64>);

fn places(state: &ClusterState) -> Places {
    let name = |id: &ringfort_types::NodeId| {
        state
            .nodes
            .iter()
            .find(|node| node.id == *id)
            .map_or_else(|| id.to_string(), |node| node.name.clone())
    };
    let on = |shard: &ringfort_types::ShardState| shard.replicas.iter().map(|(id, _)| name(id)).collect();
    let shards = state.shards.iter().map(|shard| (shard.shard.0.into(), on(shard))).collect();
    let mut counts = BTreeMap::new();
    for (id, _) in state.shards[1..].iter().flat_map(|shard| &shard.replicas) {
        *counts.entry(name(id)).or_default() += 1;
    }
    (shards, counts)
}

/// What `cluster plan` says for these words: where everything is then, and how much each node has. Who joins is called this.
fn planned(members: &Members, state: &ClusterState, words: &[&str], new: &str) -> Places {
    let said = run(&mut members.cli(0, &[&["cluster", "plan", "--json"][..], words].concat()), b"");
    assert!(said.status.success(), "{said:?}");
    let plan = objects(&said).remove(0);
    let called = |name: &serde_json::Value| match name.as_str().expect("a name") {
        "new1" => new.to_owned(),
        name => name.to_owned(),
    };
    let mut shards = places(state).0;
    for shard in plan["shards"].as_array().expect("shards") {
        let then = shard["then_on"].as_array().expect("names").iter().map(called).collect();
        shards.insert(shard["shard"].as_u64().expect("a number"), then);
    }
    let nodes = plan["nodes"].as_array().expect("nodes").iter();
    let counts = nodes.map(|node| (called(&node["name"]), node["replicas_then"].as_u64().expect("a number")));
    (shards, counts.filter(|(_, count)| *count > 0).collect())
}

#[test]
fn what_is_planned_with_weights_and_zones_is_what_happens() {
    let runtime = runtime();
    let mut members = Members::start(&[]);
    let first = members.address(0);
    for flags in
        [["--zone", "a", "--weight", "3"], ["--zone", "b", "--weight", "1"], ["--zone", "b", "--weight", "2"]]
    {
        members.add(&[&["--join", &first][..], &flags[..]].concat());
    }
    let client = connect(&runtime, members.addresses(&[0, 1]));
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3]);
    let state = || runtime.block_on(client.cluster_state()).expect("it answers");
    let known: Vec<_> = state().nodes.iter().map(|node| (node.weight, node.zone.clone())).collect();
    assert_eq!(known, [(1, String::new()), (3, "a".into()), (1, "b".into()), (2, "b".into())]);

    // Its number is given to nobody again.
    members.add(&["--join", &first]);
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3, 4]);
    let before = state();
    let then = planned(&members, &before, &["remove", "node5"], "");
    stand(&runtime, &client, 4, Standing::Leaving);
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3]);
    assert_eq!(places(&state()), then, "it has left as it was planned");

    let words = ["join", "1", "--weight", "3", "--zone", "c"];
    let then = planned(&members, &state(), &words, "node6");
    let light = planned(&members, &state(), &words[..2], "node6");
    assert!(light.1["node6"] < then.1["node6"], "{light:?} {then:?}");
    members.add(&["--join", &first, "--weight", "3", "--zone", "c"]);
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3, 5]);
    assert_eq!(places(&state()), then, "it has joined as it was planned");

    let then = planned(&members, &state(), &["remove", "node2"], "");
    stand(&runtime, &client, 1, Standing::Leaving);
    wait_for(&runtime, &client, 3, &[0, 2, 3, 5]);
    assert_eq!(places(&state()), then, "its zone has left as it was planned");
}

#[test]
fn how_far_moves_are_is_shown_while_they_go_on() {
    const ROWS: u64 = 64;
    const ROW_BYTES: u64 = 128 * 1024;
    let runtime = runtime();
    // The log is too short to bring anybody up to date, and tables are sent slowly.
    let mut members = Members::start(&["--log-mb", "1", "--snapshot-mb-per-s", "1"]);
    let client = connect(&runtime, members.addresses(&[0]));
    let mut dice = Dice(7);
    for number in 0..ROWS {
        let value: Vec<u8> = (0..ROW_BYTES).map(|_| dice.roll(256) as u8).collect();
        runtime.block_on(client.put(format!("row{number}"), value)).expect("it is taken");
    }
    let moves = |members: &Members| {
        let said = run(&mut members.cli(0, &["status", "--json"]), b"");
        objects(&said).remove(0)["moves"].as_array().expect("moves").clone()
    };
    assert!(moves(&members).is_empty());
    members.join();
    let number = |of: &serde_json::Value, what: &str| of[what].as_u64().expect("a number");
    let mut seen: Vec<serde_json::Value> = Vec::new();
    let (mut texts, until) = (String::new(), Instant::now() + MOVED_MAX);
    loop {
        let state = runtime.block_on(client.cluster_state()).expect("it answers");
        if is_placed(&state, 2, &[0, 1]) {
            break;
        }
        let said = run(&mut members.cli(0, &["status"]), b"");
        texts.push_str(&stdout(&said));
        seen.extend(moves(&members));
        assert!(Instant::now() < until, "it takes too long: {seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    eventually("nothing moves any more", || moves(&members).is_empty());
    let (all, last) = (ROWS * ROW_BYTES, seen.last().expect("it took seconds"));
    for one in &seen {
        assert_eq!((&one["name"], number(one, "node")), (&"node2".into(), 2));
        assert!(number(one, "bytes_done") <= number(one, "bytes"), "{one}");
        let replicas = one["replicas"].as_array().expect("replicas");
        let done: u64 = replicas.iter().map(|replica| number(replica, "bytes_done")).sum();
        assert_eq!(done, number(one, "bytes_done"));
        assert!(replicas.iter().all(|replica| replica["from"].is_null() || replica["from"] == 1), "{one}");
    }
    let most = seen.iter().max_by_key(|one| number(one, "bytes")).expect("there is one");
    assert!((all * 8 / 10..all * 2).contains(&number(most, "bytes")), "{most}");
    assert!(number(last, "bytes") < number(most, "bytes"), "what is there is not counted: {last}");
    let goes = seen.iter().find(|one| number(one, "bytes_per_s") > 0).expect("it is seen to go on");
    let (left, per_s) = (goes["seconds_left"].as_f64().expect("a time"), number(goes, "bytes_per_s"));
    let to_do = (number(goes, "bytes") - number(goes, "bytes_done")) as f64;
    assert!((left * per_s as f64 - to_do).abs() <= per_s as f64, "{goes}");
    assert!(texts.contains("node2 is being given 1") && texts.contains(" MB/s, ~"), "{texts}");
    let rows = run(&mut members.cli(1, &["list", "--prefix", "row", "--keys-only"]), b"");
    assert_eq!(stdout(&rows).lines().count() as u64, ROWS);
}

#[test]
fn a_node_that_is_killed_for_good_is_made_up_for_by_the_others() {
    let runtime = runtime();
    let mut members = Members::start(&["--replace-after", "5s"]);
    for _ in 1..4 {
        members.join();
    }
    let client = connect(&runtime, members.addresses(&[0, 1]));
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3]);
    let load = Load::start(&runtime, &client);
    members.kill(2);
    wait_for(&runtime, &client, 3, &[0, 1, 3]);
    // It was only away: what it has is nobody's any more, and it is given replicas anew.
    members.start_node(2, &[]);
    wait_for(&runtime, &client, 3, &[0, 1, 2, 3]);
    load.end(&runtime, &client);
    let checked = run(&mut members.cli(2, &["check"]), b"");
    assert!(stdout(&checked).contains("all replicas agree"), "{checked:?}");
}

#[test]
fn a_lost_disk_is_made_up_for_by_the_command_that_the_refusal_names() {
    let runtime = runtime();
    let mut members = Members::start(&[]);
    members.join();
    members.join();
    let client = connect(&runtime, members.addresses(&[0, 1]));
    wait_for(&runtime, &client, 3, &[0, 1, 2]);
    runtime.block_on(client.put("key", "value")).expect("it is taken");
    let member = members.address(0);

    // While it is up, nobody takes its place.
    let thief = |members: &Members, flags: &[&str]| {
        let elsewhere = members.directory.path().join("elsewhere");
        let address = format!("127.0.0.1:{}", members.base + 7);
        let mut command = ringfort(&["start", "--id", "node3", "--addr", &address, "--data-dir"]);
        command.arg(elsewhere).args(["--join", &member]).args(flags);
        refusal(&run(&mut command, b""))
    };
    let (code, told) = thief(&members, &[]);
    assert_eq!(code, Some(2));
    assert!(told.contains("a member of the cluster is called node3"), "{told}");
    let (code, told) = thief(&members, &["--replace"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("node3 is up"), "{told}");
    assert!(!members.directory.path().join("elsewhere").exists(), "nothing is left of it");

    members.kill(2);
    std::fs::remove_dir_all(members.data(2)).expect("it is lost");
    let (code, told) = refusal(&run(&mut members.command(2, &["--join", &member]), b""));
    assert_eq!(code, Some(2));
    assert!(told.contains("say --replace"), "{told}");
    eventually("it is known to be down", || {
        let state = runtime.block_on(client.cluster_state()).expect("it answers");
        state.nodes.iter().any(|node| node.presence == ringfort_types::Presence::Down)
    });
    members.start_node(2, &["--join", &member, "--replace"]);
    wait_for(&runtime, &client, 3, &[0, 1, 3]);
    let checked = run(&mut members.cli(0, &["check"]), b"");
    assert!(stdout(&checked).contains("all replicas agree"), "{checked:?}");
    let row = runtime.block_on(client.get("key")).expect("it answers");
    assert_eq!(row.expect("it is there").value, "value");
}

/// It makes a cluster of its own out of nothing, where clients and nodes look for the member that it was.
#[test]
fn a_founder_whose_disk_is_lost_gives_way_to_its_cluster() {
    let mut members = Members::start(&[]);
    members.join();
    members.join();
    let runtime = runtime();
    // It was never told of the first one, and knows it from the others.
    let client = connect(&runtime, members.addresses(&[1, 2]));
    wait_for(&runtime, &client, 3, &[0, 1, 2]);
    let keys: Vec<String> = (0..200).map(|n| format!("key{n}")).collect();
    for key in &keys {
        runtime.block_on(client.put(key.clone(), "value")).expect("it is stored");
    }
    members.kill(0);
    std::fs::remove_dir_all(members.data(0)).expect("it is lost");
    members.spawn_node(0, &["--bootstrap"]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        for key in &keys {
            let row = runtime.block_on(client.get(key.clone())).expect("it is there");
            assert!(row.is_some(), "{key} is told not to be there");
        }
    }
    members.has_ended(0, 2);
    let said = members.said(0);
    assert!(said.contains("looks for a member of its cluster at") && said.contains("--replace"), "{said}");
    for node in [1, 2] {
        assert!(!members.said(node).contains("belongs to: start it"), "{}", members.said(node));
    }
    // It does not go on by being started again, and the command that it names helps.
    members.spawn_node(0, &["--bootstrap"]);
    members.has_ended(0, 2);
    std::fs::remove_dir_all(members.data(0)).expect("it is emptied");
    let other = members.address(1);
    members.start_node(0, &["--join", &other, "--replace"]);
    wait_for(&runtime, &client, 3, &[1, 2, 3]);
}

#[test]
fn a_directory_of_a_cluster_of_its_own_joins_no_other() {
    let members = Members::start(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let own = format!("127.0.0.1:{}", free_ports(1));
    let start = |more: &[&str]| {
        let mut command = ringfort(&["start", "--id", "own", "--addr", &own, "--data-dir"]);
        command.arg(directory.path()).args(more).stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let mut alone = start(&[]).spawn().expect("starts");
    eventually("it serves", || run(&mut ringfort(&["health", "--addr", &own]), b"").status.success());
    ask_to_stop(&alone);
    assert!(ended(&mut alone).success());
    let (code, why) = refusal(&run(&mut start(&["--join", &members.address(0)]), b""));
    assert!(
        code == Some(2) && why.contains("holds a cluster of its own") && why.contains("--data-dir"),
        "{why}"
    );
    // The numbers that it was born with need not be said again, and are not changed.
    let (code, why) = refusal(&run(&mut start(&["--shards", "7"]), b""));
    assert!(code == Some(2) && why.contains("number of shards 64, but the flags say 7"), "{why}");
}

#[test]
fn a_node_waits_for_the_cluster_that_it_is_to_join_and_can_be_stopped_meanwhile() {
    let members = Members::start(&[]);
    let nobody = format!("127.0.0.1:{}", members.base + 6);
    let mut command = members.command(5, &["--join", &nobody]);
    let mut waiting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    std::thread::sleep(Duration::from_secs(7));
    ask_to_stop(&waiting);
    assert!(ended(&mut waiting).success());
    let mut told = String::new();
    std::io::Read::read_to_string(&mut waiting.stderr.take().expect("piped"), &mut told).expect("text");
    assert!(told.contains(&format!("can't join the cluster yet: {nobody}")), "{told}");

    for (flags, told) in [
        (&["--join", "x"][..], "--join"),
        (&["--bootstrap", "--join", &nobody], "--bootstrap"),
        (&["--peers", &nobody, "--join", &nobody], "--join"),
        (&["--replace"], "--join"),
        (&["--join", &nobody, "--weight", "0"], "--weight"),
        (&["--join", &nobody, "--zone", "a b"], "zone"),
        (&["--replace-after", "1s"], "replace"),
    ] {
        let refused = run(&mut members.command(4, flags), b"");
        let (code, line) = (refused.status.code(), String::from_utf8_lossy(&refused.stderr).into_owned());
        assert_eq!(code, Some(2), "{flags:?}: {line}");
        assert!(line.contains(told), "{flags:?}: {line}");
    }
}
