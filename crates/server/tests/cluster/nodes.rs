//! Nodes in this process, on free loopback ports and in temporary directories.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfort_proto::v1;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_server::{Config, Running, start};
use ringfort_storage::{Disk, FileDisk};
use tempfile::TempDir;
use tonic::transport::Channel;

/// A cluster whose nodes can be dropped and started again.
pub(crate) struct Nodes {
    pub(crate) configs: Vec<Config>,
    pub(crate) running: Vec<Option<Running>>,
    _dir: TempDir,
}

impl Drop for Nodes {
    /// The directory goes with them, so they have to let go of it first.
    fn drop(&mut self) {
        self.running.clear();
        for config in &self.configs {
            wait_until_free(&config.data_dir);
        }
    }
}

/// Waits until no node has this directory open.
fn wait_until_free(directory: &Path) {
    let is_free = || FileDisk::open(directory).is_ok_and(|disk| matches!(disk.lock("lock"), Ok(Ok(_))));
    let until = Instant::now() + Duration::from_secs(5);
    while !is_free() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Nodes {
    /// Not started yet.
    pub(crate) fn new(count: usize, shards: u32) -> Nodes {
        let dir = tempfile::tempdir().unwrap();
        let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
        addresses.sort();
        let configs = (0..count)
            .map(|me| {
                let peers = (0..count).filter(|other| *other != me);
                Config {
                    name: Some(format!("node{}", me + 1)),
                    peers: peers.map(|other| (None, addresses[other].clone())).collect(),
                    shards: Some(shards),
                    memtable_bytes: 4 * 1024 * 1024,
                    ..Config::new(&addresses[me], dir.path().join(format!("node{}", me + 1)))
                }
            })
            .collect();
        Nodes { configs, running: (0..count).map(|_| None).collect(), _dir: dir }
    }

    /// Started, all serving.
    pub(crate) async fn serving(count: usize, shards: u32) -> Nodes {
        let mut nodes = Nodes::new(count, shards);
        for at in 0..count {
            nodes.start(at).await;
        }
        nodes.all_serving().await;
        nodes
    }

    /// Starts one, as soon as its earlier life has let go of port and directory.
    pub(crate) async fn start(&mut self, at: usize) {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            match start(self.configs[at].clone()).await {
                Ok(running) => break self.running[at] = Some(running),
                Err(error) => {
                    assert!(error.to_string().contains("in use") && Instant::now() < until, "{error}");
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends one, and waits until it has let go of its directory.
    pub(crate) fn release(&mut self, at: usize) {
        self.drop(at);
        wait_until_free(&self.configs[at].data_dir);
    }

    /// Ends one and removes all that it had stored.
    pub(crate) fn wipe(&mut self, at: usize) {
        self.release(at);
        std::fs::remove_dir_all(self.dir(at)).unwrap();
    }

    /// Waits for those that are started.
    pub(crate) async fn all_serving(&mut self) {
        for running in self.running.iter_mut().flatten() {
            tokio::time::timeout(Duration::from_secs(10), running.serving()).await.unwrap().unwrap();
        }
        self.wait_for_leaders().await;
    }

    /// Waits until every shard is led, as the first running node sees it.
    pub(crate) async fn wait_for_leaders(&self) {
        let at = self.running.iter().position(Option::is_some).unwrap();
        let alive: Vec<_> = (0..self.running.len()).filter(|at| self.running[*at].is_some()).collect();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let state = self.cluster(at).await.get_cluster_state(v1::GetClusterStateRequest {}).await;
            let state = state.unwrap().into_inner();
            let led = |shard: &v1::ShardState| {
                shard.leader_node != 0 && alive.contains(&(shard.leader_node as usize - 1))
            };
            if !state.shards.is_empty() && state.shards.iter().all(led) {
                return;
            }
            assert!(Instant::now() < until, "no leaders: {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends one as a crash would.
    pub(crate) fn drop(&mut self, at: usize) {
        self.running[at] = None;
    }

    pub(crate) fn dir(&self, at: usize) -> PathBuf {
        self.configs[at].data_dir.clone()
    }

    pub(crate) async fn channel(&self, at: usize) -> Channel {
        Channel::from_shared(format!("http://{}", self.configs[at].listen)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self, at: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(at).await)
    }

    pub(crate) async fn cluster(&self, at: usize) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(at).await)
    }
}

pub(crate) fn put(key: impl Into<String>, value: impl Into<String>) -> v1::PutRequest {
    v1::PutRequest { key: key.into().into(), value: value.into().into(), ..v1::PutRequest::default() }
}

pub(crate) fn delete(key: impl Into<String>) -> v1::DeleteRequest {
    v1::DeleteRequest { key: key.into().into(), ..v1::DeleteRequest::default() }
}

pub(crate) fn get(key: impl Into<String>) -> v1::GetRequest {
    v1::GetRequest { key: key.into().into(), consistency: 0 }
}

pub(crate) fn list(prefix: impl Into<String>) -> v1::ListRequest {
    v1::ListRequest { prefix: prefix.into().into(), ..v1::ListRequest::default() }
}

/// All rows of a stream.
pub(crate) async fn rows(kv: &mut KvClient<Channel>, asked: v1::ListRequest) -> Vec<(String, String)> {
    let mut stream = kv.list(asked).await.unwrap().into_inner();
    let mut rows = Vec::new();
    let mut is_whole = false;
    while let Some(frame) = stream.message().await.unwrap() {
        assert!(!is_whole && (frame.last || !frame.rows.is_empty()));
        is_whole = frame.last;
        for row in frame.rows {
            rows.push((
                String::from_utf8(row.key.to_vec()).unwrap(),
                String::from_utf8(row.value.to_vec()).unwrap(),
            ));
        }
    }
    assert!(is_whole);
    rows
}

/// Asks all replicas of every shard for their digests, and compares.
pub(crate) async fn replicas_agree(nodes: &Nodes) {
    let mut cluster = nodes.cluster(0).await;
    let state = cluster.get_cluster_state(v1::GetClusterStateRequest {}).await.unwrap().into_inner();
    for shard in state.shards.iter().filter(|shard| shard.shard != 0) {
        let until = Instant::now() + Duration::from_secs(20);
        let answers = loop {
            // Who leads it may just be changing, before the mark or after it.
            match digests(&mut cluster, shard).await {
                Ok(answers) => break answers,
                Err(status) => assert!(Instant::now() < until, "{status:?}"),
            }
        };
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "shard {}: {answers:?}", shard.shard);
    }
}

/// What each replica of a shard has at one index: hash and rows.
async fn digests(
    cluster: &mut ClusterClient<Channel>,
    shard: &v1::ShardState,
) -> Result<Vec<(u64, u64)>, tonic::Status> {
    let mark = cluster.digest(v1::DigestRequest { shard: shard.shard }).await?.into_inner();
    let index = mark.receipt.expect("a mark has one").index;
    let mut answers = Vec::new();
    for replica in &shard.replicas {
        let asked = v1::DigestAtRequest { node: replica.node, shard: shard.shard, index };
        let answer = cluster.digest_at(asked).await?.into_inner();
        answers.push((answer.hash, answer.rows));
    }
    Ok(answers)
}
