//! Numbers that are given out once, and names that have one owner.
//!
//! Numbers: an increment by 20 is a block of 20 of them, for its client to use as it likes. A block whose answer was lost is
//! lost with it; it is never given out again. Names: a put of a key that must not be there.
//!
//! `cargo run -p example-rust --bin unique_id -- 127.0.0.1:50051`

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use ringfort_client::{Client, Condition, Decision, Options, parse_addresses};
use ringfort_types::{Failure, Outcome};
use tokio::task::JoinSet;

const CLIENTS: usize = 4;
const BLOCKS: usize = 25;
const BLOCK: i64 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".into());
    let options = Options::new(parse_addresses(&addresses)?);
    let client = Client::connect(options.clone()).await?;

    let mut drawing = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(options.clone()).await?;
        drawing.spawn(async move {
            let mut drawn = Vec::new();
            for _ in 0..BLOCKS {
                drawn.extend(block(&client).await?);
            }
            anyhow::Ok(drawn)
        });
    }
    let mut orders = BTreeSet::new();
    while let Some(drawn) = drawing.join_next().await {
        for id in drawn?? {
            ensure!(orders.insert(id), "{id} was given out twice");
        }
    }
    // The counter is not reset: whoever runs this again gets other numbers.
    println!(
        "{} numbers were given out, each once: {:?} to {:?}",
        orders.len(),
        orders.first(),
        orders.last()
    );
    ensure!(orders.len() == CLIENTS * BLOCKS * BLOCK as usize);

    client.delete("user/ada").await?;
    let mut claiming = JoinSet::new();
    for number in 0..10 {
        let client = client.clone();
        claiming.spawn(async move { claim(&client, "user/ada", &format!("account {number}")).await });
    }
    let mut owners = 0;
    while let Some(claimed) = claiming.join_next().await {
        owners += usize::from(claimed??);
    }
    println!("of ten that wanted the name user/ada, {owners} has it");
    ensure!(owners == 1, "a name has one owner");
    println!("done");
    Ok(())
}

/// The next numbers that are nobody else's.
async fn block(client: &Client) -> Result<RangeInclusive<i64>, Failure> {
    loop {
        match client.increment("order/last", BLOCK).await {
            Ok(counted) => return Ok(counted.value - BLOCK + 1..=counted.value),
            // A gap does no harm.
            Err(failure) if failure.outcome == Outcome::Unknown => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether the name is this owner's.
async fn claim(client: &Client, name: &'static str, owner: &str) -> Result<bool, Failure> {
    match client.put_if(name, owner.to_owned(), Condition::Absent).await {
        Ok(decision) => Ok(matches!(decision, Decision::Done(_))),
        // It may have been done: the name says whose it is.
        Err(failure) if failure.outcome == Outcome::Unknown => {
            Ok(client.get(name).await?.is_some_and(|row| row.value == owner.as_bytes()))
        }
        Err(failure) => Err(failure),
    }
}
