//! The load of `ringfort bench`, for etcd: what `compare.py` measures Ringfort beside.
//!
//! `etcd-load ADDR,ADDR,… put|get CONNECTIONS IN_FLIGHT SECONDS`: 16 B keys out of 100,000, 100 B values, closed loop,
//! linearizable reads. Prints one line of JSON, like `ringfort bench --json`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tonic::transport::{Channel, Endpoint};

#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod etcd {
    tonic::include_proto!("etcdserverpb");
}

use etcd::kv_client::KvClient;

const KEYS: u64 = 100_000;

#[derive(Clone, Copy)]
enum Workload {
    Put,
    Get,
}

async fn work(channel: Channel, workload: Workload, task: u64, end: Instant) -> Result<Histogram<u64>> {
    let mut client = KvClient::new(channel);
    let mut latencies = Histogram::new(3)?;
    let value = Bytes::from(vec![b'x'; 100]);
    for number in 0u64.. {
        let began = Instant::now();
        if began >= end {
            break;
        }
        let key = Bytes::from(format!("key{:013}", (task * 7_919 + number * 104_729) % KEYS));
        match workload {
            Workload::Put => {
                client.put(etcd::PutRequest { key, value: value.clone() }).await?;
            }
            Workload::Get => {
                client.range(etcd::RangeRequest { key }).await?;
            }
        }
        latencies.record(began.elapsed().as_micros() as u64)?;
    }
    Ok(latencies)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, workload, connections, in_flight, seconds] = &arguments[..] else {
        bail!("usage: etcd-load ADDR,ADDR,… put|get CONNECTIONS IN_FLIGHT SECONDS");
    };
    let workload = match workload.as_str() {
        "put" => Workload::Put,
        "get" => Workload::Get,
        other => bail!("{other}: choose put or get"),
    };
    let (connections, in_flight): (usize, u64) = (connections.parse()?, in_flight.parse()?);
    let addresses: Vec<&str> = addresses.split(',').collect();
    let mut channels = Vec::new();
    for connection in 0..connections {
        let address = addresses[connection % addresses.len()];
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        channels.push(endpoint.connect().await.with_context(|| address.to_owned())?);
    }
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.parse()?);
    let tasks: Vec<_> = (0..in_flight)
        .map(|task| tokio::spawn(work(channels[task as usize % connections].clone(), workload, task, end)))
        .collect();
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks {
        all.add(task.await??)?;
    }
    let quantile = |q| all.value_at_quantile(q);
    println!(
        "{}",
        serde_json::json!({
            "ops_per_sec": all.len() as f64 / began.elapsed().as_secs_f64(),
            "latency_us": {
                "p50": quantile(0.5), "p99": quantile(0.99), "p999": quantile(0.999), "max": all.max(),
            },
        })
    );
    Ok(())
}
