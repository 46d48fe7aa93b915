//! Systems that speak gRPC: one unary call after the other.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use ringfort_proto::kv::key_value_client::KeyValueClient;
use ringfort_proto::kvstore::kv_store_client::KvStoreClient;
use ringfort_proto::{kv, kvstore, proto_kv, v1};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::{Keys, Workload, value};

#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// One system's client.
trait Caller: Send + 'static {
    fn put(&mut self, key: String) -> impl Future<Output = Result<(), Status>> + Send;
    fn get(&mut self, key: String) -> impl Future<Output = Result<(), Status>> + Send;
}

impl Caller for etcd::kv_client::KvClient<Channel> {
    async fn put(&mut self, key: String) -> Result<(), Status> {
        self.put(etcd::PutRequest { key: key.into(), value: value().into() }).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.range(etcd::RangeRequest { key: key.into() }).await.map(drop)
    }
}

impl Caller for v1::kv_client::KvClient<Channel> {
    async fn put(&mut self, key: String) -> Result<(), Status> {
        let request = v1::PutRequest { key: key.into(), value: value().into(), ..v1::PutRequest::default() };
        self.put(request).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.get(v1::GetRequest { key: key.into(), ..v1::GetRequest::default() }).await.map(drop)
    }
}

impl Caller for proto_kv::kv_client::KvClient<Channel> {
    async fn put(&mut self, key: String) -> Result<(), Status> {
        self.put(proto_kv::PutRequest { key, value: value() }).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.get(proto_kv::GetRequest { key }).await.map(drop)
    }
}

impl Caller for KvStoreClient<Channel> {
    async fn put(&mut self, key: String) -> Result<(), Status> {
        self.put(kvstore::KeyValue { key, value: value() }).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.get(kvstore::Key { key }).await.map(drop)
    }
}

impl Caller for KeyValueClient<Channel> {
    async fn put(&mut self, key: String) -> Result<(), Status> {
        self.set(kv::SetRequest { key, value: value().into(), version: 0 }).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.get(kv::GetRequest { key }).await.map(drop)
    }
}

/// The same with the caller's own order, so that each put is one under a condition.
struct Ordered(KeyValueClient<Channel>);

impl Caller for Ordered {
    /// Each version is newer than those before it.
    async fn put(&mut self, key: String) -> Result<(), Status> {
        let version =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as i64);
        self.0.set(kv::SetRequest { key, value: value().into(), version }).await.map(drop)
    }

    async fn get(&mut self, key: String) -> Result<(), Status> {
        self.0.get(kv::GetRequest { key }).await.map(drop)
    }
}

/// Starts one that calls until the end.
pub(crate) fn spawn(
    system: &str,
    channel: Channel,
    workload: Workload,
    task: u64,
    end: Instant,
) -> Result<JoinHandle<Result<Histogram<u64>>>> {
    let keys = Keys::of(task);
    Ok(match system {
        "etcd" => tokio::spawn(run(etcd::kv_client::KvClient::new(channel), workload, keys, end)),
        "v1" => tokio::spawn(run(v1::kv_client::KvClient::new(channel), workload, keys, end)),
        "proto" => tokio::spawn(run(proto_kv::kv_client::KvClient::new(channel), workload, keys, end)),
        "kvstore" => tokio::spawn(run(KvStoreClient::new(channel), workload, keys, end)),
        "kv" => tokio::spawn(run(KeyValueClient::new(channel), workload, keys, end)),
        "kv-ordered" => tokio::spawn(run(Ordered(KeyValueClient::new(channel)), workload, keys, end)),
        other => bail!("{other}: choose etcd, v1, proto, kvstore, kv, kv-ordered or text"),
    })
}

async fn run(
    mut caller: impl Caller,
    workload: Workload,
    mut keys: Keys,
    end: Instant,
) -> Result<Histogram<u64>> {
    let mut latencies = Histogram::new(3)?;
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(latencies);
        }
        let answer = match workload {
            Workload::Put => caller.put(keys.next()).await,
            Workload::Get => caller.get(keys.next()).await,
        };
        match answer {
            // What some say of a key that is not there.
            Err(status) if status.code() == Code::NotFound => {}
            answer => answer?,
        }
        latencies.record(began.elapsed().as_micros() as u64)?;
    }
}
