//! Lists that nobody reads, against a real process.

use std::fmt::Write;
use std::time::{Duration, Instant};

use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use rustix::process::Signal;
use tonic::transport::Endpoint;

use crate::node::Node;
use crate::solo::Solo;
use crate::support::{eventually, objects, ringfort, run, stderr, stdout};
use crate::trio::Trio;

/// Lists at once.
const LISTS: usize = 1_000;
/// What a node may take.
const MEMORY_MB: u64 = 512;

/// A field of a process's status that is in kB, in MB.
fn memory_mb(process: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn a_thousand_lists_that_nobody_reads_stay_within_their_memory() {
    let trio = Trio::start();
    let mut rows = String::new();
    for number in 0..40_000 {
        writeln!(
            rows,
            "row{number:06}\t{}",
            "v".repeat(if number % 10_000 == 0 { 1_000_000 } else { 1_000 })
        )
        .expect("memory");
    }
    let imported = run(&mut trio.command(&["import", "-"]), rows.as_bytes());
    assert!(imported.status.success());
    let process = trio.nodes[0].as_ref().expect("runs").id();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let lists = runtime.block_on(async {
        let mut lists = Vec::new();
        for _ in 0..LISTS / 100 {
            let endpoint = Endpoint::from_shared(format!("http://{}", trio.address(0))).expect("an address");
            let mut client = KvClient::new(endpoint.connect().await.expect("connects"))
                .max_decoding_message_size(16 * 1024 * 1024);
            for _ in 0..100 {
                lists.push(client.list(v1::ListRequest::default()).await.expect("a list").into_inner());
            }
        }
        lists
    });
    // One is read, and is whole, while the others are not.
    let listed = run(&mut trio.command(&["list", "--timeout", "60s", "--keys-only"]), b"");
    assert_eq!(stdout(&listed).lines().count(), 40_000);
    for _ in 0..100 {
        assert!(trio.command(&["get", "row000001"]).output().expect("runs").status.success());
    }
    let most = memory_mb(process, "VmHWM");
    println!("{LISTS} unread lists: {most} MB at most");
    assert!(most < MEMORY_MB, "{most} MB");
    drop(lists);
    drop(runtime);
    std::thread::sleep(Duration::from_secs(1));
    eventually("it serves on", || {
        trio.command(&["get", "row000001"]).output().expect("runs").status.success()
    });
}

/// What `status` says a node has: keys and bytes.
fn told(node: &Node) -> (u64, u64) {
    told_at(&node.address)
}

fn told_at(address: &str) -> (u64, u64) {
    let status = run(&mut ringfort(&["--addr", address, "status", "--json"]), b"");
    let state = &objects(&status)[0];
    let of = |name: &str| state["nodes"][0][name].as_u64().expect("a number");
    (of("keys_estimate"), of("bytes_estimate"))
}

/// Keys are told once, however often they were written: at once, after a restart, and when the table has been flushed.
#[test]
fn keys_that_are_written_again_are_told_once() {
    const KEYS: u64 = 1_200;
    let mut solo = Solo::new();
    let start = |solo: &mut Solo| {
        let mut command = solo.command();
        command.args(["--memtable-mb", "1"]);
        solo.spawn(command);
    };
    start(&mut solo);
    let told = |solo: &Solo| told_at(&solo.address).0;
    for round in 0..5 {
        let rows: Vec<_> = (0..KEYS).map(|row| format!("o{row:05}\t{round}{}\n", "v".repeat(500))).collect();
        solo.ask(&["import", "-"], rows.concat().as_bytes());
        eventually("each is told once", || told(&solo) == KEYS);
    }
    for signal in [Signal::KILL, Signal::TERM] {
        solo.stop(signal);
        start(&mut solo);
        eventually("and after a restart", || told(&solo) == KEYS);
    }
    // Of one shard, that has more than it tells apart.
    let rows: Vec<_> = (0..4_000).map(|row| format!("{{s}}{:05}\tv\n", row % 2_000)).collect();
    solo.ask(&["import", "-"], rows.concat().as_bytes());
    eventually("about as many more", || (KEYS + 1_700..KEYS + 2_300).contains(&told(&solo)));
    let keys: Vec<_> = (0..2_000).map(|row| format!("delete\t{{s}}{row:05}\n")).collect();
    for keys in keys.chunks(1_000) {
        solo.ask(&["write"], keys.concat().as_bytes());
    }
    eventually("and deleted ones not", || told(&solo) < KEYS + 300);
}

/// A consumer who lists the head of its queue again and again is not in the way of what it has removed.
#[test]
fn deleted_rows_go_while_somebody_lists_all_the_time() {
    const ROWS: usize = 20_000;
    let node = Node::start();
    let lines = |from: usize, count: usize, line: &dyn Fn(usize) -> String| -> String {
        (from..from + count).map(line).collect()
    };
    let ask = |arguments: &[&str], input: &str| {
        let output = run(&mut ringfort(&[&["--addr", &node.address], arguments].concat()), input.as_bytes());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    ask(&["import", "-"], &lines(0, ROWS, &|row| format!("{{q}}{row:06}\t{}\n", "v".repeat(200))));
    eventually("they are counted", || told(&node).0 >= ROWS as u64 * 8 / 10);
    let full = told(&node).1;
    let head = || ask(&["list", "--prefix", "{q}", "--limit", "1", "--keys-only"], "");
    for from in (0..ROWS).step_by(1_000) {
        assert_eq!(head(), format!("{{q}}{from:06}\n"));
        ask(&["write"], &lines(from, 1_000, &|row| format!("delete\t{{q}}{row:06}\n")));
    }
    // Long before an index that was held once is held no longer, which takes 30 s.
    let begun = Instant::now();
    while told(&node).1 >= full / 4 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}, {full} bytes before", told(&node));
        assert_eq!(head(), "");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{:?} after the last", begun.elapsed());
}

/// Rows that were deleted stop costing whoever lists where they were.
#[test]
fn deleted_rows_go_from_disk_and_from_what_is_told() {
    const ROWS: usize = 20_000;
    let node = Node::start();
    let lines = |from: usize, count: usize, line: &dyn Fn(usize) -> String| -> String {
        (from..from + count).map(line).collect()
    };
    let rows = lines(0, ROWS, &|row| format!("{{q}}{row:06}\t{}\n", "v".repeat(200)));
    assert!(run(&mut ringfort(&["--addr", &node.address, "import", "-"]), rows.as_bytes()).status.success());
    eventually("they are counted", || told(&node).0 >= ROWS as u64 * 8 / 10);
    let full = told(&node).1;
    for from in (0..ROWS).step_by(1_000) {
        let changes = lines(from, 1_000, &|row| format!("delete\t{{q}}{row:06}\n"));
        let written = run(&mut ringfort(&["--addr", &node.address, "write"]), changes.as_bytes());
        assert!(written.status.success(), "{}", stderr(&written));
    }
    let mut last = (0, 0);
    let is_gone = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        last = told(&node);
        last.0 < 4_000 && last.1 < full / 4
    });
    assert!(is_gone, "keys and bytes {last:?}, {full} bytes before");
    let listed = run(&mut ringfort(&["--addr", &node.address, "list", "--keys-only"]), b"");
    assert_eq!(stdout(&listed), "");
}

/// A few removals in each of many shards are many for a list, which asks all: those that lists have stepped over again and again
/// go, though no shard has many.
#[test]
fn deleted_rows_go_that_lists_step_over_in_many_shards() {
    const TAGS: usize = 250;
    const ROWS_A_TAG: usize = 40;
    let mut solo = Solo::new();
    let mut command = ringfort(&["start", "--addr", &solo.address, "--shards", "64", "--data-dir"]);
    command.arg(solo.data());
    solo.spawn(command);
    let rows_of = |tag: usize, line: &dyn Fn(&str) -> String| -> String {
        (0..ROWS_A_TAG).map(|row| line(&format!("q/{{{tag:03}}}{row:02}"))).collect()
    };
    let value = "v".repeat(200);
    let rows: Vec<_> = (0..TAGS).map(|tag| rows_of(tag, &|key| format!("{key}\t{value}\n"))).collect();
    solo.ask(&["import", "-"], rows.concat().as_bytes());
    solo.ask(&["put", "q/zz", "the last"], b"");
    let full = (TAGS * ROWS_A_TAG * value.len()) as u64;
    eventually("they are told", || told_at(&solo.address).1 > full);
    for tag in 0..TAGS {
        solo.ask(&["write"], rows_of(tag, &|key| format!("delete\t{key}\n")).as_bytes());
    }
    let begun = Instant::now();
    let mut lists = 0;
    while told_at(&solo.address).1 >= full / 4 {
        assert!(begun.elapsed() < Duration::from_mins(1), "{lists} lists: {:?}", told_at(&solo.address));
        for _ in 0..20 {
            assert_eq!(solo.ask(&["list", "--prefix", "q/", "--limit", "1", "--keys-only"], b""), "q/zz\n");
            lists += 1;
        }
    }
    println!("{:?} and {lists} lists", begun.elapsed());
}
