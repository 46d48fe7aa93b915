//! The line protocol: so many commands of a connection are under way at once, and answers come in their order.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::{Keys, Workload, value};

/// One connection, until the end; what is under way then is still answered.
pub(crate) async fn run(
    address: String,
    workload: Workload,
    task: u64,
    depth: u64,
    end: Instant,
) -> Result<Histogram<u64>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let (mut reader, mut keys) = (BufReader::new(reader), Keys::of(task));
    let (mut latencies, mut under_way) = (Histogram::new(3)?, VecDeque::new());
    let (mut commands, mut line) = (String::new(), String::new());
    let value = value();
    loop {
        let now = Instant::now();
        while now < end && (under_way.len() as u64) < depth {
            let key = keys.next();
            match workload {
                Workload::Put => commands.extend(["SET ", &key, " ", &value, "\n"]),
                Workload::Get => commands.extend(["GET ", &key, "\n"]),
            }
            under_way.push_back(now);
        }
        if under_way.is_empty() {
            return Ok(latencies);
        }
        writer.write_all(commands.as_bytes()).await?;
        commands.clear();
        // At least one answer, and all others that came with it.
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line).await? > 0, "the connection was closed");
            ensure!(!line.starts_with("ERROR"), "{}", line.trim_end());
            let began = under_way.pop_front().expect("one answer for each command");
            latencies.record(began.elapsed().as_micros() as u64)?;
            if under_way.is_empty() || !reader.buffer().contains(&b'\n') {
                break;
            }
        }
    }
}
