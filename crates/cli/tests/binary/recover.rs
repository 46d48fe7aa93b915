//! Clusters that have lost their majority for good, and what `ringfort recover` makes of what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use serde_json::Value;

use crate::solo::Solo;
use crate::support::{copy, eventually, free_ports, objects, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

const SHARDS: usize = 16;
const KEYS: usize = 3_000;
/// Until there are three copies of everything again.
const COPIED_MAX: Duration = Duration::from_mins(1);

fn key(number: usize) -> String {
    format!("key{number:05}")
}

fn rows(value: &str) -> Vec<u8> {
    let row = |number| format!("{}\t{value}\n", key(number));
    (0..KEYS).map(row).collect::<Vec<_>>().concat().into_bytes()
}

/// Writes all keys, and waits until all three nodes have them in their logs.
fn load(trio: &Trio, value: &str) {
    let output = run(&mut trio.command(&["import", "-"]), &rows(value));
    assert!(output.status.success(), "{}", stderr(&output));
    let checked = run(&mut trio.command(&["check"]), b"");
    assert!(checked.status.success(), "{}", stderr(&checked));
}

fn data(trio: &Trio, node: usize) -> PathBuf {
    trio.directory.path().join(format!("node{}", node + 1))
}

fn kill_all(trio: &mut Trio) {
    for node in 0..3 {
        trio.kill(node);
    }
}

/// All files below a directory: what is in them, and when that was written last.
fn contents(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let written = fs::metadata(&path).and_then(|about| about.modified()).expect("a file");
                found.insert(path.clone(), (fs::read(path).expect("a file"), written));
            }
        }
    }
    found
}

fn recover(directories: &[&Path], more: &[&str], typed: &str) -> Output {
    let mut command = ringfort(&["recover"]);
    for directory in directories {
        command.arg("--data-dir").arg(directory);
    }
    run(command.args(more), typed.as_bytes())
}

/// What it shows of these directories: of all shards, and of all in all.
fn shown(directories: &[&Path]) -> (Vec<Value>, Value, Option<i32>) {
    let output = recover(directories, &["--json"], "");
    let mut objects = objects(&output);
    let summary = objects.pop().unwrap_or_else(|| panic!("nothing: {}", stderr(&output)));
    let shards = objects.split_off(directories.len());
    assert_eq!(shards.len(), SHARDS);
    (shards, summary, output.status.code())
}

fn cluster_of(summary: &Value) -> String {
    summary["cluster"].as_str().expect("it has a name").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The arguments of the line that says how the new cluster is started.
fn start_line(output: &Output) -> Vec<String> {
    let said = stdout(output);
    let line = said.lines().find_map(|line| line.trim().strip_prefix("ringfort start "));
    line.unwrap_or_else(|| panic!("no line to start it: {said}")).split(' ').map(str::to_owned).collect()
}

/// Processes that are ended with the test.
#[derive(Default)]
struct Nodes(Vec<Child>);

impl Nodes {
    /// Starts one that serves.
    fn start(&mut self, directory: &Path, log: &str, arguments: &[String]) {
        let said = self.try_start(directory, log, arguments);
        eventually("it serves", || fs::read_to_string(&said).is_ok_and(|said| said.contains("serves on")));
    }

    /// Starts one, and says where its log is.
    fn try_start(&mut self, directory: &Path, log: &str, arguments: &[String]) -> PathBuf {
        let path = directory.join(log);
        let out = fs::File::create(&path).expect("a log");
        let errors = out.try_clone().expect("a log");
        let mut command = ringfort(&["start"]);
        let child = command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(errors).spawn();
        self.0.push(child.expect("starts"));
        path
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn at(address: &str, arguments: &[&str]) -> Command {
    let mut command = ringfort(arguments);
    command.env("RINGFORT_ADDR", address);
    command
}

/// All keys that a cluster has.
fn listed(address: &str) -> BTreeMap<String, String> {
    let mut output = run(&mut at(address, &["list"]), b"");
    eventually("it can be listed", || {
        output = run(&mut at(address, &["list"]), b"");
        output.status.success()
    });
    let row = |line: &str| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned()));
    stdout(&output).lines().filter_map(row).collect()
}

/// Adds 1 to a key as a client does that numbers its writes: the sum, and the write as it was sent. `sent` is sent as it is.
fn add_once(address: &str, sent: Option<v1::IncrementRequest>) -> (i64, v1::IncrementRequest) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = KvClient::connect(format!("http://{address}")).await.expect("it listens");
        let add =
            v1::IncrementRequest { key: "once".into(), by: 1, copies: 3, ..v1::IncrementRequest::default() };
        let sent = if let Some(sent) = sent {
            sent
        } else {
            let answer = client.increment(add.clone()).await.expect("added").into_inner();
            let shard = answer.receipt.expect("there is one").shard;
            let opened = client.open_session(v1::OpenSessionRequest { shard }).await.expect("opened");
            let opened = opened.into_inner().clock;
            let stamp =
                v1::SessionStamp { client_low: 7, sequence: 1, opened, ..v1::SessionStamp::default() };
            v1::IncrementRequest { stamp: Some(stamp), ..add }
        };
        (client.increment(sent.clone()).await.expect("added").into_inner().value, sent)
    })
}

/// Waits until all shards have so many copies, and nothing moves.
fn wait_for_copies(address: &str, copies: usize) {
    let until = Instant::now() + COPIED_MAX;
    loop {
        let output = run(&mut at(address, &["status", "--json"]), b"");
        let is_so = objects(&output).first().is_some_and(|state| {
            state["shards"].as_array().is_some_and(|shards| {
                shards.iter().all(|shard| {
                    shard["replicas"].as_array().is_some_and(|replicas| replicas.len() == copies)
                        && shard["moving"] == false
                })
            })
        });
        if is_so {
            return;
        }
        assert!(Instant::now() < until, "not {copies} copies: {}", stdout(&output));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_one_node_of_three_has_goes_on_as_a_new_cluster() {
    let mut trio = Trio::start();
    load(&trio, "first");
    load(&trio, "second");
    let (sum, sent) = add_once(&trio.address(1), None);
    assert_eq!(sum, 2);
    let survivor = data(&trio, 0);
    let (code, line) = refusal(&recover(&[&survivor], &[], ""));
    assert!(
        code == Some(2) && line.contains("in use by process") && line.contains("stop that node"),
        "{line}"
    );
    // Writes are under way when all of them are killed.
    let mut writing = trio.command(&["import", "-", "--give-up", "1s"]);
    writing.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut writing = writing.spawn().expect("starts");
    let mut stdin = writing.stdin.take().expect("piped");
    let feeding = std::thread::spawn(move || {
        use std::io::Write;
        (0..10_000_000)
            .map(|number| format!("more{number:07}\tunder way\n"))
            .all(|row| stdin.write_all(row.as_bytes()).is_ok())
    });
    eventually("they arrive", || {
        stdout(&run(&mut trio.command(&["get", "more0002000"]), b"")) == "under way\n"
    });
    kill_all(&mut trio);
    writing.wait().expect("it ends");
    assert!(!feeding.join().expect("no panic"));

    let before = contents(&survivor);
    let (shards, summary, code) = shown(&[&survivor]);
    assert_eq!(code, Some(0));
    for shard in &shards {
        assert!(shard["best"] == "node1" && shard["lost"] == "after" && shard["after"].is_u64(), "{shard}");
        let missing: Option<BTreeSet<_>> =
            shard["not_here"].as_array().map(|names| names.iter().filter_map(Value::as_str).collect());
        assert_eq!(missing, Some(BTreeSet::from(["node2", "node3"])), "{shard}");
        assert!(
            shard["copies"][0]["keys"].as_u64() > Some(0) && shard["copies"][0]["damage"].is_null(),
            "{shard}"
        );
    }
    assert_eq!((&summary["in_doubt"], &summary["lost"]), (&SHARDS.into(), &0.into()));
    let old = cluster_of(&summary);
    let said = stdout(&recover(&[&survivor], &[], ""));
    assert!(said.contains(&format!("cluster {old}")) && said.contains("writes after index"), "{said}");

    // Only with the cluster's name.
    let new = trio.directory.path().join("new");
    let out = ["--out", text(&new)];
    for (typed, more) in
        [("", &[][..]), ("node1\n", &[]), ("y\n", &[]), (&old, &["--confirm", "0000000000000000"])]
    {
        let output = recover(&[&survivor], &[&out, more].concat(), typed);
        assert!(
            output.status.code() == Some(2) && stderr(&output).contains("nothing was written"),
            "{typed:?}: {output:?}"
        );
        assert!(!new.exists(), "{typed:?}");
    }
    let made = recover(&[&survivor], &out, &format!("{old}\n"));
    assert!(made.status.success(), "{made:?}");
    assert_eq!(contents(&survivor), before, "nothing that was there has changed");
    let (code, line) = refusal(&recover(&[&survivor], &[&out[..], &["--confirm", &old]].concat(), ""));
    assert!(code == Some(2) && line.contains("is not empty"), "{line}");

    let (mut nodes, directory) = (Nodes::default(), trio.directory.path().to_owned());
    nodes.start(&directory, "new1.log", &start_line(&made));
    let first = trio.address(0);
    let there = listed(&first);
    assert!((0..KEYS).all(|number| there.get(&key(number)).is_some_and(|value| value == "second")));
    assert!(there.values().filter(|value| *value == "under way").count() > 1000);
    let again = v1::IncrementRequest { copies: 0, ..sent };
    assert_eq!(add_once(&first, Some(again)).0, 2, "a write that comes again is done once");

    assert_old_node_is_refused(&trio, &mut nodes, &old);
    // Others join, and the copies grow by themselves.
    for node in [2, 3] {
        let (address, data) = (trio.address(node - 1), directory.join(format!("new{node}")));
        let id = format!("node{node}");
        let arguments = ["--id", &id, "--addr", &address, "--join", &first, "--data-dir", text(&data)];
        nodes.start(&directory, &format!("new{node}.log"), &arguments.map(str::to_owned));
    }
    wait_for_copies(&first, 3);
    let checked = run(&mut at(&first, &["check"]), b"");
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(listed(&trio.address(2)).len(), there.len());
    assert!(run(&mut at(&first, &["put", "after", "all", "--copies", "3"]), b"").status.success());
}

/// A node of the old cluster that turns up again is told so, and changes nothing.
fn assert_old_node_is_refused(trio: &Trio, nodes: &mut Nodes, old: &str) {
    let command = trio.flags(1, &data(trio, 1), SHARDS as u32);
    let arguments = command.get_args().skip(1).map(|argument| argument.to_str().expect("text").to_owned());
    let said = nodes.try_start(trio.directory.path(), "old2.log", &arguments.collect::<Vec<_>>());
    eventually("it is refused", || {
        fs::read_to_string(&said)
            .is_ok_and(|said| said.contains("it is not of the cluster that node1 belongs to"))
    });
    let state = objects(&run(&mut at(&trio.address(0), &["status", "--json"]), b"")).remove(0);
    assert_eq!(state["nodes"].as_array().map(Vec::len), Some(1), "{state}");
    assert_ne!(state["cluster"], old);
    let mut gone = nodes.0.pop().expect("it was started");
    gone.kill().expect("it runs");
    gone.wait().expect("it ends");
}

/// A table's file of a shard, the largest.
fn table_of(directory: &Path, shard: u64) -> Option<PathBuf> {
    let tables = fs::read_dir(directory.join(format!("lane-0/shards/{shard}/tables"))).ok()?;
    tables
        .map(|entry| entry.expect("an entry").path())
        .max_by_key(|path| fs::metadata(path).map_or(0, |about| about.len()))
}

/// Changes some bytes of a table of a shard that has one; says which.
fn damage(directory: &Path) -> u64 {
    let shard = (1..=SHARDS as u64).find(|shard| table_of(directory, *shard).is_some());
    let shard = shard.expect("some table was flushed");
    let path = table_of(directory, shard).expect("just found");
    let mut bytes = fs::read(&path).expect("a file");
    bytes[64..128].fill(0xFF);
    fs::write(path, bytes).expect("written");
    shard
}

#[test]
fn a_whole_copy_is_taken_and_what_nobody_has_is_not_passed_over() {
    let mut trio = Trio::start_with(|_| vec!["--memtable-mb".into(), "1".into()]);
    let value = "v".repeat(2000);
    load(&trio, &value);
    let has_tables =
        |node| (1..=SHARDS as u64).filter(|shard| table_of(&data(&trio, node), *shard).is_some()).count();
    eventually("tables are on disk", || has_tables(0) > 1 && has_tables(1) > 0);
    kill_all(&mut trio);
    let (first, second) = (data(&trio, 0), data(&trio, 1));
    let damaged = damage(&first);
    let of = |shards: &[Value], shard: u64| {
        shards.iter().find(|found| found["shard"] == shard).cloned().expect("it is there")
    };

    // Alone, the first one lacks a shard.
    let (shards, summary, code) = shown(&[&first]);
    assert_eq!(
        (code, &summary["lost"], &of(&shards, damaged)["lost"]),
        (Some(1), &1.into(), &"everything".into())
    );
    let cluster = cluster_of(&summary);
    let new = trio.directory.path().join("new");
    let making = ["--out", text(&new), "--confirm", &cluster];
    let (code, line) = refusal(&recover(&[&first], &making, ""));
    let names_it =
        line.contains(&format!("no whole copy of shard {damaged}:")) && line.contains("--empty-lost-shards");
    assert!(code == Some(2) && names_it && !new.exists(), "{line}");

    // With the second one there are two of three, but for that shard.
    let (shards, summary, code) = shown(&[&first, &second]);
    assert_eq!(
        (code, &summary["complete"], &summary["in_doubt"]),
        (Some(0), &(SHARDS - 1).into(), &1.into())
    );
    let found = of(&shards, damaged);
    assert!(found["best"] == "node2" && found["lost"] == "after", "{found}");
    assert!(
        found["copies"][0]["damage"]
            .as_str()
            .is_some_and(|why| why.contains("is damaged at byte") && why.contains(text(&first))),
        "{found}"
    );
    let told = stdout(&recover(&[&first, &second], &[], ""));
    assert!(told.contains(&format!("shard {damaged} on node1 is damaged: ")), "{told}");
    let made = recover(&[&first, &second], &making, "");
    assert!(made.status.success(), "{made:?}");
    {
        let mut nodes = Nodes::default();
        nodes.start(trio.directory.path(), "new.log", &start_line(&made));
        let there = listed(&trio.address(0));
        assert!((0..KEYS).all(|number| there.get(&key(number)) == Some(&value)));
    }

    // What is lost begins empty if somebody says so.
    let (address, partly) = (format!("127.0.0.1:{}", free_ports(1)), trio.directory.path().join("partly"));
    let making = [
        "--out",
        text(&partly),
        "--confirm",
        &cluster,
        "--empty-lost-shards",
        "--id",
        "other",
        "--addr",
        &address,
    ];
    let made = recover(&[&first], &making, "");
    assert!(made.status.success(), "{made:?}");
    let line = start_line(&made);
    assert!(line.windows(2).any(|words| words == ["--id", "other"]), "{line:?}");
    let mut nodes = Nodes::default();
    nodes.start(trio.directory.path(), "partly.log", &line);
    let there = listed(&address);
    assert!(there.len() < KEYS && there.len() > KEYS / 2, "{}", there.len());
    let lost = (0..KEYS).map(key).find(|key| !there.contains_key(key)).expect("some are lost");
    assert!(run(&mut at(&address, &["put", &lost, "again"]), b"").status.success());
    assert_eq!(stdout(&run(&mut at(&address, &["get", &lost]), b"")), "again\n");
}

#[test]
fn what_is_no_stopped_node_of_one_cluster_is_refused() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(rustix::process::Signal::TERM);
    let mut other = Solo::new();
    other.start();
    other.stop(rustix::process::Signal::KILL);
    let directory = solo.directory.path();
    let (twin, empty) = (directory.join("twin"), directory.join("empty"));
    copy(&solo.data(), &twin);
    fs::create_dir(&empty).expect("made");
    let refused = |directories: &[&Path], more: &[&str], code: i32, says: &str| {
        let (got, line) = refusal(&recover(directories, more, ""));
        assert!(got == Some(code) && line.contains(says), "{line}");
    };
    refused(&[&empty], &[], 2, "holds no Ringfort data");
    refused(&[&directory.join("nowhere")], &[], 2, "nowhere");
    refused(&[&solo.data(), &twin], &[], 2, "are of one node");
    refused(&[&solo.data(), &other.data()], &[], 2, "give directories of one cluster");
    refused(&[&solo.data()], &["--id", "node1"], 2, "--out");
    let out = ["--out", text(&empty), "--confirm", "x"];
    refused(&[&solo.data()], &[&out[..], &["--id", "a b"]].concat(), 2, "not a name");
    refused(&[&solo.data()], &[&out[..], &["--addr", "here"]].concat(), 2, "not an address");
    let inside = solo.data().join("new");
    refused(&[&solo.data()], &["--out", text(&inside), "--confirm", "x"], 2, "not to be changed");
    let inside = solo.data().join("new");
    refused(&[&solo.data()], &["--out", text(&inside), "--confirm", "x"], 2, "not to be changed");
    assert_eq!(fs::read_dir(&empty).expect("a directory").count(), 0, "nothing was written");
    let (code, line) = refusal(&run(&mut ringfort(&["recover"]), b""));
    assert!(code == Some(2) && line.contains("--data-dir"), "{line}");

    // A cluster of one loses nothing; of a damaged log there is nothing.
    let object = objects(&recover(&[&solo.data()], &["--json"], "")).pop().expect("a summary");
    assert_eq!((&object["complete"], &object["shards"]), (&4.into(), &4.into()));
    let segment = solo.segment();
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[200] ^= 0xFF;
    fs::write(&segment, bytes).expect("written");
    let output = recover(&[&solo.data()], &["--json"], "");
    let found = objects(&output);
    assert_eq!((output.status.code(), &found.last().expect("a summary")["lost"]), (Some(1), &4.into()));
    assert!(found[0]["damage"].as_str().is_some_and(|why| why.contains(".log is damaged")), "{}", found[0]);
}
