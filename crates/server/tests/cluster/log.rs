//! A log with a small budget: what it takes on disk, and how a node comes back that was away for longer than that.

use std::path::Path;
use std::time::{Duration, Instant};

use ringfort_proto::v1;

use crate::nodes::{Nodes, get, put, replicas_agree};

const BUDGET: u64 = 1024 * 1024;

fn with_small_logs(count: usize, shards: u32) -> Nodes {
    let mut nodes = Nodes::new(count, shards);
    for config in &mut nodes.configs {
        config.log_bytes = BUDGET;
    }
    nodes
}

async fn start_all(nodes: &mut Nodes) {
    for at in 0..nodes.configs.len() {
        nodes.start(at).await;
    }
    nodes.all_serving().await;
}

/// Writes so many bytes over and over the same keys, through this node.
async fn write(nodes: &Nodes, at: usize, bytes: u64, round: &str) {
    const VALUE: u64 = 32 * 1024;
    let mut kv = nodes.kv(at).await;
    for n in 0..bytes / VALUE {
        let value = format!("{round} {n:->width$}", width = VALUE as usize - 20);
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(status) = kv.put(put(format!("key{}", n % 20), value.clone())).await {
            assert!(Instant::now() < until, "{status:?}");
        }
    }
}

fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().map_or(0, |found| found.len())).sum()
}

/// All tables: a shard's number each, and its generation if that is not the first.
fn tables(nodes: &Nodes, at: usize) -> Vec<String> {
    let names = std::fs::read_dir(nodes.dir(at).join("lane-0/shards")).unwrap();
    let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Tables that have taken the place of others.
fn later_generations(nodes: &Nodes, at: usize) -> Vec<String> {
    let mut names = tables(nodes, at);
    names.retain(|name| name.contains('.'));
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_settles_within_its_budget_and_a_start_finds_everything() {
    let mut nodes = with_small_logs(1, 4);
    start_all(&mut nodes).await;
    write(&nodes, 0, 20 * BUDGET, "first").await;
    let log = nodes.dir(0).join("lane-0/log");
    let until = Instant::now() + Duration::from_secs(20);
    // The budget, a segment that is being written and one that is ready: half as much again.
    while bytes_in(&log) > BUDGET + BUDGET / 2 {
        assert!(Instant::now() < until, "the log takes {} bytes", bytes_in(&log));
        write(&nodes, 0, 64 * 1024, "later").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!log.join("0000000000000001.log").exists());
    for _ in 0..2 {
        nodes.drop(0);
        nodes.start(0).await;
        nodes.all_serving().await;
        let mut kv = nodes.kv(0).await;
        for n in 0..20 {
            assert!(kv.get(get(format!("key{n}"))).await.unwrap().into_inner().found);
        }
        write(&nodes, 0, 2 * BUDGET, "again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_away_within_the_budget_comes_back_by_log_and_past_it_by_snapshot() {
    let mut nodes = with_small_logs(3, 4);
    start_all(&mut nodes).await;
    write(&nodes, 0, BUDGET / 4, "all").await;

    nodes.drop(2);
    write(&nodes, 0, BUDGET / 4, "two").await;
    nodes.start(2).await;
    nodes.all_serving().await;
    replicas_agree(&nodes).await;
    assert!(later_generations(&nodes, 2).is_empty(), "its log was enough");

    nodes.drop(2);
    write(&nodes, 0, 8 * BUDGET, "without").await;
    nodes.start(2).await;
    nodes.all_serving().await;
    replicas_agree(&nodes).await;
    let came = later_generations(&nodes, 2);
    assert!(!came.is_empty(), "it came back by snapshots");
    assert!(later_generations(&nodes, 0).is_empty());

    // What came is what there is from now on.
    write(&nodes, 1, BUDGET, "all again").await;
    nodes.drop(2);
    nodes.start(2).await;
    nodes.all_serving().await;
    replicas_agree(&nodes).await;
    assert_eq!(later_generations(&nodes, 2), came);
}

/// Whoever has the damaged replica goes on with the others, and its log with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_keeps_no_segment() {
    let mut nodes = with_small_logs(3, 2);
    start_all(&mut nodes).await;
    write(&nodes, 0, 4 * BUDGET, "before").await;
    let files = nodes.dir(2).join("lane-0/shards/1/tables");
    wait_until("a table is on disk", || std::fs::read_dir(&files).unwrap().count() > 0).await;
    nodes.release(2);
    for file in std::fs::read_dir(&files).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    nodes.start(2).await;
    nodes.all_serving().await;
    let state = nodes.cluster(2).await.get_cluster_state(v1::GetClusterStateRequest {}).await;
    let damaged: Vec<_> =
        state.unwrap().into_inner().nodes.into_iter().map(|node| node.damaged_shards).collect();
    assert_eq!(damaged, [vec![], vec![], vec![1]]);

    let log = nodes.dir(2).join("lane-0/log");
    let oldest = || std::fs::read_dir(&log).unwrap().map(|file| file.unwrap().file_name()).min();
    let before = oldest();
    write(&nodes, 0, 12 * BUDGET, "without it").await;
    wait_until("its log is within its budget, and begins later", || {
        bytes_in(&log) <= BUDGET + BUDGET / 2 && oldest() > before
    })
    .await;
}

/// For twenty seconds.
async fn wait_until(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < until, "not yet: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_in_pieces_goes_on_although_either_end_is_killed() {
    let mut nodes = with_small_logs(3, 1);
    for config in &mut nodes.configs {
        // So slow that it takes seconds.
        config.snapshot_bytes_per_s = 2 * BUDGET;
    }
    start_all(&mut nodes).await;
    nodes.drop(2);
    let mut kv = nodes.kv(0).await;
    for n in 0..200 {
        let value = format!("{n:->width$}", width = 32 * 1024);
        let until = Instant::now() + Duration::from_secs(20);
        while let Err(status) = kv.put(put(format!("row{n:03}"), value.clone())).await {
            assert!(Instant::now() < until, "{status:?}");
        }
    }
    nodes.start(2).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    nodes.drop(2);
    nodes.start(2).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    nodes.drop(0);
    nodes.start(0).await;
    nodes.all_serving().await;
    replicas_agree(&nodes).await;
    assert!(later_generations(&nodes, 2).iter().any(|name| name.starts_with("1.")), "it came by snapshot");
    // What was begun in vain goes too: the shard and the meta group have one table each.
    let until = Instant::now() + Duration::from_secs(20);
    while tables(&nodes, 2).len() > 2 {
        assert!(Instant::now() < until, "{:?}", tables(&nodes, 2));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
