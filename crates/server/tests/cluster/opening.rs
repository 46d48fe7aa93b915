//! A start with much to replay for one shard and next to nothing for the others.

use std::collections::BTreeMap;
use std::time::Duration;

use ringfort_proto::v1;
use ringfort_proto::v1::write_part::Change;
use tokio::task::JoinSet;

use crate::nodes::{Nodes, get, put};

/// Rows of the shard that has much, all of them in its memtable: replaying them takes a hundred times as long as all
/// that the other shards need.
const ROWS: usize = 400_000;
const ROWS_A_WRITE: usize = 1_000;

async fn write_much(nodes: &Nodes) {
    let mut writing = JoinSet::new();
    for n in 0..ROWS / ROWS_A_WRITE {
        let mut kv = nodes.kv(0).await;
        let part = |row| {
            let (key, value) = (format!("{{big}}{n}/{row}").into(), format!("{row:->40}").into());
            v1::WritePart { key, condition: None, change: Some(Change::Put(value)) }
        };
        let parts = (0..ROWS_A_WRITE).map(part).collect();
        let write = v1::WriteRequest { parts, ..v1::WriteRequest::default() };
        writing.spawn(async move { kv.write(write).await.unwrap() });
        if writing.len() == 16 {
            writing.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_ready_is_served_while_another_is_replayed() {
    let mut nodes = Nodes::new(1, 4);
    nodes.configs[0].memtable_bytes = 1 << 30;
    nodes.start(0).await;
    nodes.all_serving().await;
    let mut kv = nodes.kv(0).await;
    let big = kv.put(put("{big}", "value")).await.unwrap().into_inner().receipt.unwrap().shard;
    let mut keys = BTreeMap::from([(big, "{big}".to_owned())]);
    for n in 0.. {
        let key = format!("key{n}");
        let receipt = kv.put(put(&key, "value")).await.unwrap().into_inner().receipt.unwrap();
        keys.entry(receipt.shard).or_insert(key);
        if keys.len() == 4 {
            break;
        }
    }
    // What is committed is recorded within a second: then the others are ready where the log has their few entries.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    write_much(&nodes).await;
    nodes.drop(0);

    // Asked of a node that has opened nothing yet, each waits for its shard.
    nodes.start(0).await;
    let mut asking = JoinSet::new();
    for (shard, key) in keys.clone() {
        let mut kv = nodes.kv(0).await;
        let mut request = tonic::Request::new(get(&key));
        request.set_timeout(Duration::from_mins(1));
        asking.spawn(async move { (shard, kv.get(request).await.unwrap().into_inner().found) });
    }
    let mut order = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let (shard, found) = answer.unwrap();
        assert!(found, "shard {shard} has lost its row");
        order.push(shard);
    }
    assert_eq!((order.len(), order.last()), (4, Some(&big)), "the others are answered before");
    nodes.all_serving().await;
    let mut kv = nodes.kv(0).await;
    for n in [0, ROWS / ROWS_A_WRITE - 1] {
        let last = kv.get(get(format!("{{big}}{n}/{}", ROWS_A_WRITE - 1))).await.unwrap().into_inner();
        assert!(last.found);
    }
}
