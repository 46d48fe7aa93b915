//! A client in Rust: writes, reads, many writes in flight, and an ordered list.
//!
//! `cargo run -p example-rust -- 127.0.0.1:50051` beside a running `ringfort dev` or `ringfort start`.

use std::time::Instant;

use anyhow::{Result, ensure};
use ringfort_client::{Client, List, Options, parse_addresses};
use ringfort_types::Outcome;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> Result<()> {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".into());
    let client = Client::connect(Options::new(parse_addresses(&addresses)?)).await?;

    // One write. The receipt says where it went and on how many disks it was when it was acknowledged.
    let receipt = client.put("capital/ie", "Dublin").await?;
    println!(
        "stored at revision {} of shard {}, on {} disks",
        receipt.revision, receipt.shard, receipt.copies
    );

    // A read sees every write that was acknowledged before it began, whichever node answers.
    let row = client.get("capital/ie").await?;
    println!("capital/ie = {:?}", row.map(|row| String::from_utf8_lossy(&row.value).into_owned()));

    // Many at once: clones share their connections, and requests in flight together travel together.
    let began = Instant::now();
    let mut writes = JoinSet::new();
    for number in 0..1_000 {
        let client = client.clone();
        writes.spawn(async move { client.put(format!("city/{number:04}"), format!("no. {number}")).await });
    }
    let (mut stored, mut unknown) = (0, 0);
    while let Some(write) = writes.join_next().await {
        match write? {
            Ok(_) => stored += 1,
            // It may have happened: read before you write again, unless writing twice does no harm.
            Err(failure) if failure.outcome == Outcome::Unknown => unknown += 1,
            Err(failure) => return Err(failure.into()),
        }
    }
    println!("{stored} writes acknowledged, {unknown} unknown, in {:.0?}", began.elapsed());

    // In key order over all shards.
    let mut rows = client.list(List { prefix: "city/".into(), limit: 3, ..List::default() }).await?;
    let mut listed = 0;
    while let Some((key, row)) = rows.next().await.transpose()? {
        println!("{} = {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&row.value));
        listed += 1;
    }
    ensure!(listed == 3 || unknown > 0, "three rows were asked for, {listed} came");

    client.delete("capital/ie").await?;
    ensure!(client.get("capital/ie").await?.is_none(), "a deleted key is gone");
    println!("done");
    Ok(())
}
