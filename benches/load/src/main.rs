//! One closed loop of puts or gets for many systems: what `compare.py` and `door_speed.py` measure with.
//!
//! `ringfort-load SYSTEM ADDR,ADDR,… put|get CONNECTIONS IN_FLIGHT SECONDS`: 16 B keys out of 100,000, 100 B values,
//! linearizable reads. Prints one line of JSON, like `ringfort bench --json`. Systems: `etcd`, and Ringfort's doors `v1`
//! (`ringfort.v1`, unary), `proto`, `kvstore`, `kv`, `kv-ordered` (each put
//! with a version, and so under a condition) and `text`. In flight are so many in all; on the text port each
//! connection pipelines its share of them.
//!
//! `ringfort-load unread-lists ADDR COUNT SECONDS` opens so many lists of all rows over `ringfort.v1`, a hundred on a connection,
//! says so in a line, and reads none of them for so long.

mod grpc;
mod lists;
mod text;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tonic::transport::{Channel, Endpoint};

const KEYS: u64 = 100_000;
const USAGE: &str = "usage: ringfort-load SYSTEM ADDR,ADDR,… put|get CONNECTIONS IN_FLIGHT SECONDS";

#[derive(Clone, Copy)]
enum Workload {
    Put,
    Get,
}

/// What one of those in flight asks for: the keys that it comes to, one after the other.
struct Keys {
    task: u64,
    number: u64,
}

impl Keys {
    fn of(task: u64) -> Keys {
        Keys { task, number: 0 }
    }

    fn next(&mut self) -> String {
        let key = (self.task * 7_919 + self.number * 104_729) % KEYS;
        self.number += 1;
        format!("key{key:013}")
    }
}

fn value() -> String {
    "x".repeat(100)
}

async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    endpoint.connect().await.with_context(|| address.to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, address, count, seconds] = &arguments[..]
        && mode == "unread-lists"
    {
        return lists::leave_unread(address, count.parse()?, Duration::from_secs(seconds.parse()?)).await;
    }
    let [system, addresses, workload, connections, in_flight, seconds] = &arguments[..] else {
        bail!(USAGE);
    };
    let workload = match workload.as_str() {
        "put" => Workload::Put,
        "get" => Workload::Get,
        other => bail!("{other}: choose put or get"),
    };
    let (connections, in_flight): (usize, u64) = (connections.parse()?, in_flight.parse()?);
    ensure!(connections > 0 && in_flight >= connections as u64, "at least one in flight for each connection");
    let addresses: Vec<&str> = addresses.split(',').collect();
    let mut tasks = Vec::new();
    let length = Duration::from_secs(seconds.parse()?);
    let began = Instant::now();
    let end = began + length;
    if system == "text" {
        for connection in 0..connections {
            let address = addresses[connection % addresses.len()].to_owned();
            let depth = in_flight / connections as u64;
            tasks.push(tokio::spawn(text::run(address, workload, connection as u64, depth, end)));
        }
    } else {
        let mut channels = Vec::new();
        for connection in 0..connections {
            channels.push(connect(addresses[connection % addresses.len()]).await?);
        }
        for task in 0..in_flight {
            let channel = channels[task as usize % connections].clone();
            tasks.push(grpc::spawn(system, channel, workload, task, end)?);
        }
    }
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
