//! Lists that nobody reads, against a real process.

use std::fmt::Write;
use std::time::Duration;

use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use tonic::transport::Endpoint;

use crate::support::{eventually, run, stdout};
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
