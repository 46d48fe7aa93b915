//! Opening what is on disk, in a thread of its own: that can take long, and each shard is served as soon as it is ready.
//!
//! Once the log is open, the threads that need it are started. The shards whose tables have everything are handed over
//! at once; then the log is replayed for the others, and each is handed over when it is up to date, while clients and
//! peers are busy with those before it. When the replay takes long, a line now and then says how far it is.
//!
//! Invariants: whoever hears of a shard finds it. So its reader and its place in the apply thread come first, then the
//! node is told, and the log hears last how much of it is durable: what it lets go of before that, the node would
//! not hear of. A node that ends waits for no replay.
//!
//! Memory: what is replayed was in memtables when the node ended, so it fits where it was. Until it is handed over the
//! apply thread counts it, and leaves it room (`Applier::balance`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringfort_node::Event;
use ringfort_node::recovery::{Begun, Progress, Ready, RecoveryError, Replay, Step, Wanted, begin};
use ringfort_ring::Layout;
use ringfort_shard::{SessionLimits, Shard};
use ringfort_storage::{DataDir, Log, LogOptions, Tables};
use ringfort_types::{Configuration, Epoch, ShardId, count};

use crate::StartError;
use crate::apply::{Applier, Task};
use crate::fetch::{self, Fetch};
use crate::flush::Flusher;
use crate::log::{self, Batch};
use crate::queue::Queue;
use crate::shared::{Report, Shared};
use crate::snapshots::Snapshots;
use crate::threads::spawn;

/// What comes of a layout that was kept and is no more, where there are no other nodes.
pub(crate) const LAYOUT_OF_TABLE: &str =
    "the cluster's layout is taken from the table of shard 0, and the file is written anew";

/// A start that takes longer than this says so, and again each time.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the opening thread works with.
pub(crate) struct Opening {
    pub(crate) shared: Arc<Shared>,
    pub(crate) data: Arc<DataDir>,
    pub(crate) tables: Arc<dyn Tables>,
    pub(crate) batches: Arc<Queue<Batch>>,
    pub(crate) tasks: Arc<Queue<Task>>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) fetches: Arc<Queue<Fetch>>,
    pub(crate) memtable_bytes: u64,
    pub(crate) held_reads_bytes: u64,
    pub(crate) log_options: LogOptions,
    pub(crate) snapshot_bytes_per_s: u64,
}

impl Opening {
    /// Opens the log and these shards, and brings the shards up to date. The threads that it has started.
    pub(crate) fn run(
        self,
        born: &Arc<Layout>,
        shards: &BTreeMap<ShardId, Configuration>,
    ) -> Vec<JoinHandle<()>> {
        let mut threads = Vec::new();
        if let Err(error) = self.open(born, shards, &mut threads) {
            self.shared.report(Report::Failed(error));
        }
        threads
    }

    fn open(
        &self,
        born: &Arc<Layout>,
        shards: &BTreeMap<ShardId, Configuration>,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> Result<(), StartError> {
        let started = Instant::now();
        let wanted = Wanted { me: self.shared.header.from, born, shards };
        let sessions = SessionLimits::default();
        let Begun { log, replicas, ready, replay, damaged } =
            begin(&self.data, &*self.tables, &wanted, self.log_options, sessions)?;
        for note in log.notes() {
            self.shared.notice(note.to_string());
        }
        self.shared.inbox.push(Event::Replicas { replicas, batch: log.last_batch() });
        for (shard, error) in damaged {
            self.damaged(shard, &error);
        }
        for shard in replay.shards() {
            self.flusher.expect(shard.id(), shard.table().clone());
        }
        self.start_threads(log, threads)?;
        self.hand_over(ready);
        let is_done = self.bring_up_to_date(replay, started)?;
        if is_done && started.elapsed() > PATIENCE {
            let opened = count(shards.len() as u64, "shard", "shards");
            tracing::info!("opened {opened} in {:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn start_threads(&self, log: Log, threads: &mut Vec<JoinHandle<()>>) -> Result<(), StartError> {
        let Opening { memtable_bytes, held_reads_bytes, snapshot_bytes_per_s, .. } = *self;
        let (reader, fetches, shared) = (log.reader(), self.fetches.clone(), self.shared.clone());
        threads.push(spawn("log-reads", move || fetch::run(&fetches, &reader, &shared))?);
        let (batches, data) = (self.batches.clone(), self.data.clone());
        let (shared, flusher) = (self.shared.clone(), self.flusher.clone());
        threads.push(spawn("log", move || {
            log::run(log, &batches, &shared, &flusher);
            // The directory stays locked until the log is closed.
            drop(data);
        })?);
        let (shared, flusher) = (self.shared.clone(), self.flusher.clone());
        threads.push(spawn("flush", move || flusher.run(&shared, held_reads_bytes))?);
        let (shared, flusher) = (self.shared.clone(), self.flusher.clone());
        threads.push(spawn("merge", move || flusher.run_merges(&shared))?);
        let (shared, flusher, tables) = (self.shared.clone(), self.flusher.clone(), self.tables.clone());
        let (tasks, snapshots) = (self.tasks.clone(), self.snapshots.clone());
        let applier = Applier::new(shared, flusher, tables, snapshots, memtable_bytes);
        threads.push(spawn("apply", move || applier.run(&tasks))?);
        let (shared, snapshots) = (self.shared.clone(), self.snapshots.clone());
        threads.push(spawn("snapshots-out", move || snapshots.run_reads(&shared, snapshot_bytes_per_s))?);
        let (shared, snapshots, tables) = (self.shared.clone(), self.snapshots.clone(), self.tables.clone());
        threads.push(spawn("snapshots-in", move || snapshots.run_writes(&shared, &*tables))?);
        Ok(())
    }

    /// Whether all are; else the node ends.
    fn bring_up_to_date(&self, mut replay: Replay, started: Instant) -> Result<bool, StartError> {
        let mut said = started;
        replay.go_on(&mut |step| match step {
            Step::Ready(ready) => {
                if started.elapsed() > PATIENCE {
                    tracing::info!("shard {} is ready", ready.shard.id());
                }
                self.hand_over(vec![*ready]);
                ControlFlow::Continue(())
            }
            Step::Damaged(shard, error) => {
                self.damaged(shard, &error);
                ControlFlow::Continue(())
            }
            Step::Applied(_) if self.shared.is_stopping() => ControlFlow::Break(()),
            Step::Applied(Progress { done, total, .. }) => {
                if said.elapsed() > PATIENCE {
                    said = Instant::now();
                    tracing::info!("replaying the log: {} % ({done} of {total} entries)", done * 100 / total);
                }
                ControlFlow::Continue(())
            }
        })?;
        Ok(replay.is_done())
    }

    /// A shard is not opened: its table is damaged, or its log of a later version.
    fn damaged(&self, shard: ShardId, error: &RecoveryError) {
        self.flusher.give_up(shard);
        if error.is_unread() {
            self.shared.unread(shard, error.to_string());
        } else {
            self.shared.damaged(shard, error.to_string(), false);
        }
    }

    /// These shards are the other threads' from now on.
    fn hand_over(&self, ready: Vec<Ready>) {
        let tables: Vec<_> =
            ready.iter().map(|ready| (ready.shard.id(), ready.shard.table().clone())).collect();
        let mut opened = Vec::new();
        for Ready { shard, opened: found } in ready {
            self.miss_layout(&shard);
            self.shared.has_layout(shard.layout());
            self.shared.readers.set(shard.reader());
            let (id, generation) = (shard.id(), found.base.generation);
            self.tasks.push(Task::Open { shard: Box::new(shard), generation });
            opened.push((id, found));
        }
        self.shared.inbox.push(Event::Opened(opened.into_iter().collect()));
        for (shard, table) in tables {
            self.flusher.keep_first(shard, table);
        }
    }

    /// A layout that is later than the first one is in its file, unless somebody has removed that (or the node was killed as it came).
    fn miss_layout(&self, shard: &Shard) {
        let is_later = shard.layout().is_some_and(|layout| layout.epoch > Epoch(1));
        if is_later && matches!(self.data.layout(), Ok(None)) {
            self.shared.notice(format!("{} is missing: {LAYOUT_OF_TABLE}", self.data.layout_place()));
        }
    }
}
