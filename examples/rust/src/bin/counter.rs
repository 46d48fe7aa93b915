//! A counter that several clients add to at the same time: nothing is lost, and nothing is counted twice.
//!
//! `cargo run -p example-rust --bin counter -- 127.0.0.1:50051`

use std::str;

use anyhow::{Context, Result, ensure};
use ringfort_client::{Client, Options, parse_addresses};
use ringfort_types::{Failure, Outcome};
use tokio::task::JoinSet;

const VISITS: &str = "visits";
const CLIENTS: i64 = 4;
const EACH: i64 = 250;

#[tokio::main]
async fn main() -> Result<()> {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".into());
    let options = Options::new(parse_addresses(&addresses)?);
    let client = Client::connect(options.clone()).await?;
    // A key that is not there counts as 0.
    client.delete(VISITS).await?;

    let mut counting = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(options.clone()).await?;
        counting.spawn(async move { count(&client).await });
    }
    let (mut added, mut unknown) = (0, 0);
    while let Some(counted) = counting.join_next().await {
        let counted = counted??;
        added += counted.0;
        unknown += counted.1;
    }

    // The value is a decimal number, for everybody to read.
    let row = client.get(VISITS).await?.context("it is there")?;
    let sum: i64 = str::from_utf8(&row.value)?.parse()?;
    println!("{CLIENTS} clients counted to {sum}: {added} increments acknowledged, {unknown} unknown");
    ensure!(added + unknown == CLIENTS * EACH, "each increment has an answer");
    ensure!((added..=added + unknown).contains(&sum), "the sum is what was added");
    ensure!(client.increment(VISITS, -sum).await?.value == 0, "what is added may be negative");
    println!("done");
    Ok(())
}

/// How many increments were acknowledged, and of how many it is not known whether they were done. Those are not tried
/// again: a counter that must not miss any would rather count too much.
async fn count(client: &Client) -> Result<(i64, i64), Failure> {
    let (mut added, mut unknown) = (0, 0);
    for _ in 0..EACH {
        match client.increment(VISITS, 1).await {
            Ok(_) => added += 1,
            Err(failure) if failure.outcome == Outcome::Unknown => unknown += 1,
            Err(failure) => return Err(failure),
        }
    }
    Ok((added, unknown))
}
