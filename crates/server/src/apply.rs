//! The thread that owns the shards: applies committed entries, answers their waiters, and decides what to flush.
//!
//! When the memtables' sum passes the budget, the largest is sealed and handed to the flush thread, one after
//! the other. If flushing falls so far behind that twice the budget is in use, applying waits; then entries
//! pile up in the node, which refuses new writes at its own bounds.
//!
//! How far back a table must stay readable is decided here too: to where it was [`KEEP`] ago, and to the oldest
//! index that a scan has used since then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringfort_node::{ApplyJob, Event, TableStats};
use ringfort_shard::Shard;
use ringfort_types::{Index, ShardId, Token};

use crate::answers::What;
use crate::flush::{Flush, Flusher};
use crate::queue::{Queue, Taken};
use crate::readers::KEEP;
use crate::shared::Shared;

/// How often sizes are reported, and indexes remembered.
const SECOND: Duration = Duration::from_secs(1);
/// Sizes are reported at least this often, in seconds, even if nothing changes.
const STATS_IDLE_SECONDS: u32 = 5;
/// Answers are handed over after at most this many, however many entries wait.
const ANSWERS_MAX: usize = 1024;
/// Memory is looked at after so many parts of the budget have been applied.
const LOOKS_PER_BUDGET: u64 = 16;

/// The apply thread's state.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    /// By number; the meta group first.
    shards: Vec<Option<Shard>>,
    flusher: Arc<Flusher>,
    memtable_bytes: u64,
    /// Applied since memory was last looked at.
    applied_bytes: u64,
    /// Applied indexes, one set for each of the last [`KEEP`] seconds, oldest first.
    history: VecDeque<(Instant, Vec<Index>)>,
    next_second: Instant,
    quiet_seconds: u32,
}

impl Applier {
    pub(crate) fn new(
        shared: Arc<Shared>,
        opened: Vec<Shard>,
        flusher: Arc<Flusher>,
        memtable_bytes: u64,
    ) -> Applier {
        let mut shards: Vec<Option<Shard>> = Vec::new();
        for shard in opened {
            let at = shard.id().0 as usize;
            shards.resize_with(shards.len().max(at + 1), || None);
            shards[at] = Some(shard);
        }
        let mut applier = Applier {
            shared,
            shards,
            flusher,
            memtable_bytes,
            applied_bytes: 0,
            history: VecDeque::new(),
            next_second: Instant::now() + SECOND,
            quiet_seconds: STATS_IDLE_SECONDS,
        };
        applier.remember(Instant::now());
        applier
    }

    /// Runs until the queue is closed.
    pub(crate) fn run(mut self, jobs: &Queue<Vec<ApplyJob>>) {
        let mut waiting = Vec::new();
        loop {
            match jobs.take(&mut waiting, Some(self.next_second)) {
                Taken::Closed => return,
                Taken::Nothing => {}
                Taken::Items => {
                    self.quiet_seconds = STATS_IDLE_SECONDS;
                    let mut applied = BTreeMap::new();
                    self.apply(waiting.drain(..).flatten(), &mut applied);
                    let event = Event::Applied(applied.into_iter().collect());
                    self.shared.inbox.push_quietly(event, &self.shared.tables_awaited);
                }
            }
            let now = Instant::now();
            if now >= self.next_second {
                self.next_second = now + SECOND;
                self.remember(now);
                self.report_sizes();
                self.balance();
            } else if self.applied_bytes > self.memtable_bytes / LOOKS_PER_BUDGET {
                self.balance();
            }
        }
    }

    fn apply(&mut self, jobs: impl Iterator<Item = ApplyJob>, applied: &mut BTreeMap<ShardId, Index>) {
        let mut answers: Vec<(Token, What)> = Vec::new();
        for job in jobs {
            let shard = self.shards[job.shard.0 as usize].as_mut();
            let shard = shard.expect("the node applies only to shards that it had opened");
            let replies = shard.apply(&job.entry, job.copies);
            self.applied_bytes += job.entry.payload.len() as u64;
            applied.insert(job.shard, job.entry.index);
            answers.extend(job.waiters.into_iter().zip(replies.into_iter().map(What::reply)));
            if answers.len() >= ANSWERS_MAX {
                self.shared.answers.deliver(answers.drain(..));
            }
        }
        if !answers.is_empty() {
            self.shared.answers.deliver(answers);
        }
    }

    /// Seals and hands over tables until what is left in memory fits the budget.
    fn balance(&mut self) {
        self.applied_bytes = 0;
        loop {
            let sizes = self.shards.iter().flatten().map(|shard| (shard.table().memory_bytes(), shard.id()));
            let total: u64 = sizes.clone().map(|(bytes, _)| bytes).sum();
            let idle = sizes.filter(|(_, shard)| !self.flusher.is_flushing(*shard));
            let (idle_bytes, largest) =
                idle.fold((0, None), |(sum, most), size| (sum + size.0, most.max(Some(size))));
            match largest {
                Some((_, shard)) if idle_bytes > self.memtable_bytes => self.hand_over(shard),
                _ if total > 2 * self.memtable_bytes && !self.flusher.is_idle() => {
                    thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }

    fn hand_over(&mut self, id: ShardId) {
        let keep_from = self.keep_from(id);
        if let Some(shard) = self.shards[id.0 as usize].as_mut() {
            shard.seal();
            self.flusher.push(Flush { shard: id, table: shard.table().clone(), keep_from });
        }
    }

    fn keep_from(&self, shard: ShardId) -> Index {
        let (_, oldest) =
            self.history.front().expect("one set is there from the start, and one is always kept");
        let aged = oldest.get(shard.0 as usize).copied().unwrap_or_default();
        self.shared.readers.oldest_scan(shard).map_or(aged, |scanned| scanned.min(aged))
    }

    fn remember(&mut self, now: Instant) {
        let applied = |shard: &Option<Shard>| shard.as_ref().map_or(Index(0), Shard::applied);
        self.history.push_back((now, self.shards.iter().map(applied).collect()));
        while self.history.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= KEEP) {
            self.history.pop_front();
        }
    }

    /// Every second while entries are applied, and now and then when not.
    fn report_sizes(&mut self) {
        self.quiet_seconds += 1;
        if self.quiet_seconds <= STATS_IDLE_SECONDS {
            return;
        }
        self.quiet_seconds = 0;
        let stats = |shard: &Shard| TableStats {
            shard: shard.id(),
            revision: shard.revision(),
            keys_estimate: shard.table().rows_estimate(),
            bytes_estimate: shard.table().bytes_estimate(),
        };
        self.shared.inbox.push(Event::Stats(self.shards.iter().flatten().map(stats).collect()));
    }
}
