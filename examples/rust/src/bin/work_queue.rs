//! A work queue: each item is taken by one worker and done once, also if a worker falls over.
//!
//! An item is in one of three places: `todo/ID`, `taken/WORKER/ID`, `done/ID`. It goes from one to the next by an atomic
//! write under the condition that it is still where it was; of several workers that want it, one has its way. What a worker
//! has taken is not in its memory but in the store, so a worker that starts again goes on with it, and somebody else can
//! put back what a lost worker has.
//!
//! `cargo run -p example-rust --bin work_queue -- 127.0.0.1:50051`

use anyhow::{Context, Result, ensure};
use ringfort_client::{Client, Condition, Decision, List, Options, Write, parse_addresses};
use ringfort_types::{Failure, Outcome};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

/// The same part in braces: of one shard, so that an item can move in one write.
const TODO: &str = "{jobs}todo/";
const DONE: &str = "{jobs}done/";
const ITEMS: usize = 100;
const WORKERS: usize = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".into());
    let client = Client::connect(Options::new(parse_addresses(&addresses)?)).await?;
    for (key, _) in rows(&client, "{jobs}", 0).await? {
        client.delete(key).await?;
    }
    for number in 0..ITEMS {
        client.put(format!("{TODO}{number:03}"), format!("{number}")).await?;
    }

    // One takes an item and is not heard of again; the item is put back.
    ensure!(moved(take(&client, "lost", "000", "0").await)?, "nobody else wants it yet");
    let back =
        Write::new().delete_if(taken("lost", "000"), Condition::Present).put(format!("{TODO}000"), "0");
    ensure!(moved(client.write(back).await)?, "it was still there");

    let mut working = JoinSet::new();
    for number in 0..WORKERS {
        let client = client.clone();
        working.spawn(async move { work(&client, &format!("worker-{number}")).await });
    }
    let (mut done, mut sum) = (0, 0);
    while let Some(worked) = working.join_next().await {
        let (count, part) = worked??;
        println!("a worker has done {count} items");
        done += count;
        sum += part;
    }
    ensure!((done, sum) == (ITEMS, ITEMS * (ITEMS - 1) / 2), "{done} items are done, with sum {sum}");
    ensure!(rows(&client, DONE, 0).await?.len() == ITEMS, "all are where what is done is");
    ensure!(rows(&client, "{jobs}", 0).await?.len() == ITEMS, "and nowhere else");

    // The lost one comes back and thinks that it has the item still.
    ensure!(!moved(finish(&client, "lost", "000").await)?, "what was put back is not done twice");
    println!("all {ITEMS} items are done, each once");
    Ok(())
}

/// Works until nothing is left; how many items, and what came of them.
async fn work(client: &Client, me: &str) -> Result<(usize, usize)> {
    let (mut done, mut sum) = (0, 0);
    loop {
        for (key, item) in rows(client, &taken(me, ""), 0).await? {
            // The work itself. A worker that falls over here does it again: it should bear that, or be part of the write
            // that finishes it.
            let product: usize = item.parse()?;
            if moved(finish(client, me, id(&key)?).await)? {
                done += 1;
                sum += product;
            }
        }
        let open = rows(client, TODO, 5).await?;
        if open.is_empty() {
            return Ok((done, sum));
        }
        for (key, item) in open {
            // Whether it is ours is seen by where it is, the next time round.
            moved(take(client, me, id(&key)?, &item).await)?;
        }
    }
}

async fn take(client: &Client, me: &str, id: &str, item: &str) -> Result<Decision, Failure> {
    let todo = format!("{TODO}{id}");
    client.write(Write::new().delete_if(todo, Condition::Present).put(taken(me, id), item.to_owned())).await
}

async fn finish(client: &Client, me: &str, id: &str) -> Result<Decision, Failure> {
    let (taken, done) = (taken(me, id), format!("{DONE}{id}"));
    client.write(Write::new().delete_if(taken, Condition::Present).put(done, me.to_owned())).await
}

/// Whether an item has moved. If that is not known, the next look at the queue will show it.
fn moved(outcome: Result<Decision, Failure>) -> Result<bool, Failure> {
    match outcome {
        Ok(decision) => Ok(matches!(decision, Decision::Done(_))),
        Err(failure) if failure.outcome == Outcome::Unknown => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn taken(worker: &str, id: &str) -> String {
    format!("{{jobs}}taken/{worker}/{id}")
}

/// An item's name is what follows the last slash.
fn id(key: &str) -> Result<&str> {
    key.rsplit('/').next().context("a key of the queue")
}

/// Keys and values, in order.
async fn rows(client: &Client, prefix: &str, limit: u64) -> Result<Vec<(String, String)>> {
    let wanted = List { prefix: prefix.to_owned().into(), limit, ..List::default() };
    let mut listed = client.list(wanted).await?;
    let mut rows = Vec::new();
    while let Some((key, row)) = listed.next().await.transpose()? {
        rows.push((String::from_utf8(key.into())?, String::from_utf8(row.value.into())?));
    }
    Ok(rows)
}
