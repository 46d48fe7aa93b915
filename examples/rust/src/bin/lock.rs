//! A lock with a fencing token: one write decides who has it, and who has lost it can do no harm.
//!
//! The lock is a key that is there as long as somebody has it. The revision of the write that took it is the token, and
//! whatever the lock protects is written under the condition that this is still the lock's revision. So a holder that
//! was away for too long, and does not know that the lock was taken from it, is refused by the store, whatever any clock
//! says. A system beside the store can do the same: tokens rise, so it refuses one lower than the highest it has seen.
//!
//! `cargo run -p example-rust --bin lock -- 127.0.0.1:50051`

use anyhow::{Result, bail, ensure};
use ringfort_client::{Client, Condition, Decision, Options, Write, parse_addresses};
use ringfort_types::{Failure, Outcome, Revision};
use tokio::task::JoinSet;

/// The same part in braces: of one shard, so that a write to one can depend on the other.
const LOCK: &str = "{door}lock";
const GUARDED: &str = "{door}book";

#[tokio::main]
async fn main() -> Result<()> {
    let addresses = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:50051".into());
    let client = Client::connect(Options::new(parse_addresses(&addresses)?)).await?;
    client.delete(LOCK).await?;

    // Ten want it at the same time.
    let mut wanting = JoinSet::new();
    for number in 0..10 {
        let client = client.clone();
        wanting.spawn(async move { take(&client, &format!("guest-{number}")).await });
    }
    let mut tokens = Vec::new();
    while let Some(taken) = wanting.join_next().await {
        tokens.extend(taken??);
    }
    let &[old] = &tokens[..] else { bail!("{} of ten have the lock", tokens.len()) };
    println!("one of ten has the lock, with token {old}");
    ensure!(write(&client, old, "written by the first").await?, "the holder writes");

    // The holder says nothing for too long. Others agree by one more write on who is next: of those that try, one finds
    // the lock as it was.
    let Decision::Done(taken) = client.put_if(LOCK, "guest-10", Condition::Revision(old)).await? else {
        bail!("nobody else has touched the lock");
    };
    let new = taken.revision;
    ensure!(new > old, "tokens rise");
    println!("it was taken over, with token {new}");
    ensure!(write(&client, new, "written by the second").await?, "the new holder writes");

    // Then the first comes back, and goes on as if nothing had happened.
    ensure!(!write(&client, old, "written too late").await?, "a late write is refused");
    ensure!(!release(&client, old).await?, "nobody gives up a lock that is another's");
    let book = client.get(GUARDED).await?.map(|row| row.value);
    ensure!(book.as_deref() == Some(b"written by the second"), "the book is {book:?}");
    println!("the first holder's late write was refused");

    ensure!(release(&client, new).await? && client.get(LOCK).await?.is_none(), "the lock is free");
    println!("done");
    Ok(())
}

/// Takes the lock if it is free; the token. `name` is nobody else's.
async fn take(client: &Client, name: &str) -> Result<Option<Revision>, Failure> {
    match client.put_if(LOCK, name.to_owned(), Condition::Absent).await {
        Ok(Decision::Done(receipt)) => Ok(Some(receipt.revision)),
        Ok(Decision::NotMet(_)) => Ok(None),
        // It may have been done: the lock says whose it is.
        Err(failure) if failure.outcome == Outcome::Unknown => {
            let row = client.get(LOCK).await?;
            Ok(row.filter(|row| row.value == name.as_bytes()).map(|row| row.revision))
        }
        Err(failure) => Err(failure),
    }
}

/// Writes what the lock protects, if the lock is still the one with this token.
async fn write(client: &Client, token: Revision, text: &'static str) -> Result<bool, Failure> {
    let write = Write::new().check(LOCK, Condition::Revision(token)).put(GUARDED, text);
    Ok(matches!(client.write(write).await?, Decision::Done(_)))
}

/// Gives the lock up, if it is still the one with this token.
async fn release(client: &Client, token: Revision) -> Result<bool, Failure> {
    Ok(matches!(client.delete_if(LOCK, Condition::Revision(token)).await?, Decision::Done(_)))
}
