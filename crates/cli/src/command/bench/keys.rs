//! All keys of a run, many at a time: loaded before it, or deleted after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfort_client::{Client, Options};
use ringfort_types::Failure;
use tokio::task::JoinSet;

use super::load::{Dice, Load, key};
use crate::progress::Progress;
use crate::stop::Stop;

/// Requests in flight meanwhile.
const IN_FLIGHT: u32 = 256;
/// How often the progress is shown.
const LOOK: Duration = Duration::from_millis(200);

/// What becomes of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    Load,
    Delete,
}

/// Does this with every key, once.
pub(super) async fn with_every_key(each: Each, options: &Options, load: &Arc<Load>) -> Result<(), Stop> {
    let client = Client::connect(Options { in_flight_max: IN_FLIGHT as usize, ..options.clone() }).await?;
    let progress = Progress::new(None);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..u64::from(IN_FLIGHT) {
        tasks.spawn(work(each, client.clone(), load.clone(), next.clone(), Dice(task)));
    }
    let verb = if each == Each::Load { "load" } else { "delete" };
    loop {
        match tokio::time::timeout(LOOK, tasks.join_next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(done))) => done.map_err(|failure: Failure| {
                let stop = Stop::from(failure);
                Stop { message: format!("can't {verb} the keys: {}", stop.message), ..stop }
            })?,
            Ok(Some(Err(_))) => {
                return Err(Stop::unavailable(format!("can't {verb} the keys: a task broke down")));
            }
            Err(_) => {
                let rows = next.load(Ordering::Relaxed).min(load.keys);
                progress.set(rows * load.row_bytes(), rows);
            }
        }
    }
}

/// One task: a key at a time, until there are no more.
async fn work(
    each: Each,
    client: Client,
    load: Arc<Load>,
    next: Arc<AtomicU64>,
    mut dice: Dice,
) -> Result<(), Failure> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.keys {
            return Ok(());
        }
        match each {
            Each::Load => client.put(key(number), load.value(&mut dice)).await?,
            Each::Delete => client.delete(key(number)).await?,
        };
    }
}
