//! Writes that go in one after another while something happens: each is answered before the next one is sent, and every
//! answer has to be a success.
//!
//! It is the shipped binary's `shell`, which prints a line a command.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::cluster::Cluster;

/// Between two writes, so that a story has some thousands of rows and not a million.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest that a feed may go on.
const FEED_MAX: Duration = Duration::from_mins(2);

/// Writes under way.
pub(super) struct Feed {
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writer: JoinHandle<Result<()>>,
}

/// What a key has.
pub(super) fn value_of(key: &str) -> String {
    format!("value of {key}")
}

impl Feed {
    /// Starts it, through what is published of these services.
    pub(super) fn start(cluster: &Cluster, services: &[&str], prefix: &str, timeout: &str) -> Result<Feed> {
        let mut shell = cluster.client(services, &["shell", "--timeout", timeout]);
        let mut shell =
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("can't run docker")?;
        let (mut orders, answers) = (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (told, count, name) = (stop.clone(), acknowledged.clone(), prefix.to_owned());
        let writer = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut answers = BufReader::new(answers).lines();
            while !told.load(Ordering::Relaxed) && begun.elapsed() < FEED_MAX {
                let key = key(&name, count.load(Ordering::Relaxed));
                writeln!(orders, "put {key} {}", value_of(&key)).context("the client has ended")?;
                let answer = answers.next().context("the client has ended")??;
                if answer != "Stored and replicated" {
                    bail!("{key} after {:.1} s: {answer}", begun.elapsed().as_secs_f64());
                }
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            drop(orders);
            let ended = shell.wait().context("can't wait for docker")?;
            if !ended.success() {
                bail!("the client ended with {ended}");
            }
            Ok(())
        });
        Ok(Feed { prefix: prefix.to_owned(), stop, acknowledged, writer })
    }

    /// Waits until so many more have been acknowledged.
    pub(super) fn goes_on(&self, more: u64) -> Result<()> {
        let (begun, from) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
        while self.acknowledged.load(Ordering::Relaxed) < from + more {
            if self.writer.is_finished() || begun.elapsed() > FEED_MAX {
                bail!("the writes of {} do not go on", self.prefix);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends it; the keys that were acknowledged, which are all.
    pub(super) fn finish(self) -> Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.join().map_err(|_| anyhow!("the writer panicked"))?.context("a write failed")?;
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        Ok((0..acknowledged).map(|number| key(&self.prefix, number)).collect())
    }
}

fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}-{number:06}")
}
