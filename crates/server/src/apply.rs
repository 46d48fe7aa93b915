//! The thread that owns the shards: applies committed entries, answers their waiters, and decides what to flush.
//!
//! Each shard is handed over to it once it is open (`open`). It also looks at a table for a snapshot, and puts one that
//! has arrived in place of another: both between entries.
//!
//! **The log.** What keeps its oldest segment from going is sealed and handed over first.
//!
//! **Removals.** A memtable with so many that scans would feel it is sealed and handed over, for its table to be merged.
//!
//! **Memory.** When the active memtables' sum passes the budget, the largest is sealed and handed to the flush
//! thread, one after the other. If flushing falls so far behind that twice the budget is not yet on disk, applying
//! waits; then entries pile up in the node, which refuses new writes at its own bounds. Flushed memtables that
//! snapshots still go through come on top: at [`MEMORY_FACTOR`] times the budget, applying slows down. While other shards
//! are still replayed, what these have in memory is taken off the budget, down to a [`SHARE_LEAST`]th of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringfort_node::{ApplyJob, Event, Opened, TableStats};
use ringfort_ring::Layout;
use ringfort_shard::{SessionLimits, Shard};
use ringfort_storage::{SnapshotReader, Tables};
use ringfort_types::{Base, Code, Configuration, Failure, Index, PeerId, Reply, ShardId, Token};

use crate::delivery::Delivery;
use crate::error::die;
use crate::flush::{Flusher, is_full_of_removals};
use crate::horizon::Reading;
use crate::queue::{Queue, Taken};
use crate::shared::Shared;
use crate::snapshots::{self, Snapshots};

/// How often sizes are reported.
const SECOND: Duration = Duration::from_secs(1);
/// How often indexes are remembered while entries are applied.
const REMEMBERED: Duration = Duration::from_millis(100);
/// Sizes are reported at least this often, in seconds, even if nothing changes.
const STATS_IDLE_SECONDS: u32 = 5;
/// Answers are handed over after at most this many, however many entries wait.
const ANSWERS_MAX: usize = 1024;
/// Memory is looked at after so many parts of the budget have been applied.
const LOOKS_PER_BUDGET: u64 = 16;
/// What a row in a memtable takes besides its key and value, in bytes, roughly.
const ROW_OVERHEAD_BYTES: u64 = 128;
/// Times the budget that memtables may take in all: active, being flushed, and flushed but still needed.
const MEMORY_FACTOR: u64 = 3;
/// What is left of the budget, however much others take of it: one in so many parts.
const SHARE_LEAST: u64 = 4;
/// How long one look at memory holds applying up at most while too much is still needed.
const PRESSED_MAX: Duration = Duration::from_millis(500);
/// Between two looks while applying waits.
const PAUSE: Duration = Duration::from_millis(2);

/// Something to be done, in order.
#[derive(Debug)]
pub(crate) enum Task {
    /// Take this shard over, with its table of this generation.
    Open { shard: Box<Shard>, generation: u64 },
    /// Apply these.
    Apply(Vec<ApplyJob>),
    /// Hold the shard's table for a snapshot with this number.
    Snapshot { shard: ShardId, transfer: u64 },
    /// Put the table of this generation in place.
    Install { shard: ShardId, base: Base },
    /// Begin anew, as this replica, with an empty table.
    Begin { shard: ShardId, peer: PeerId, generation: u64, replaces: Option<u64>, born: Arc<Layout> },
    /// Close the shard for good, and remove its table of this generation.
    End { shard: ShardId, generation: u64 },
}

/// A shard and what it has in its active memtable.
struct Open {
    shard: Shard,
    /// Of its table.
    generation: u64,
    /// Roughly, since it was last sealed.
    active_bytes: u64,
}

/// The apply thread's state.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    /// By number; the meta group first.
    shards: Vec<Option<Open>>,
    flusher: Arc<Flusher>,
    tables: Arc<dyn Tables>,
    snapshots: Arc<Snapshots>,
    memtable_bytes: u64,
    /// Of shards that were closed, since nothing more can be applied to them, the generation of the table that counts.
    closed: BTreeMap<ShardId, u64>,
    /// Applied since memory was last looked at.
    applied_bytes: u64,
    next_second: Instant,
    /// When to remember how far the shards are; `None` if nothing has changed since that was done.
    next_remembered: Option<Instant>,
    quiet_seconds: u32,
}

impl Applier {
    pub(crate) fn new(
        shared: Arc<Shared>,
        flusher: Arc<Flusher>,
        tables: Arc<dyn Tables>,
        snapshots: Arc<Snapshots>,
        memtable_bytes: u64,
    ) -> Applier {
        Applier {
            shared,
            shards: Vec::new(),
            flusher,
            tables,
            snapshots,
            memtable_bytes,
            closed: BTreeMap::new(),
            applied_bytes: 0,
            next_second: Instant::now() + SECOND,
            next_remembered: None,
            quiet_seconds: STATS_IDLE_SECONDS,
        }
    }

    /// Runs until the queue is closed.
    pub(crate) fn run(mut self, tasks: &Queue<Task>) {
        let mut waiting = Vec::new();
        loop {
            let deadline = self.next_remembered.map_or(self.next_second, |next| next.min(self.next_second));
            match tasks.take(&mut waiting, Some(deadline)) {
                Taken::Closed => return,
                Taken::Nothing => {}
                Taken::Items => {
                    self.shared.metrics.apply_wait.record(tasks.waited());
                    self.quiet_seconds = STATS_IDLE_SECONDS;
                    let mut applied = BTreeMap::new();
                    let mut jobs = Vec::new();
                    for task in waiting.drain(..) {
                        match task {
                            Task::Open { shard, generation } => self.open(*shard, generation),
                            Task::Apply(more) => jobs.extend(more),
                            Task::Snapshot { shard, transfer } => {
                                self.apply(jobs.drain(..), &mut applied);
                                self.hold(shard, transfer);
                            }
                            Task::Install { shard, base } => {
                                self.apply(jobs.drain(..), &mut applied);
                                self.install(shard, base);
                            }
                            Task::Begin { shard, peer, generation, replaces, born } => {
                                self.apply(jobs.drain(..), &mut applied);
                                // Of the replica before it.
                                applied.remove(&shard);
                                self.begin(shard, peer, generation, &born);
                                if let Some(replaces) = replaces {
                                    snapshots::remove(&*self.tables, shard, replaces);
                                }
                            }
                            Task::End { shard, generation } => {
                                self.apply(jobs.drain(..), &mut applied);
                                applied.remove(&shard);
                                self.end(shard, generation);
                            }
                        }
                    }
                    self.apply(jobs.into_iter(), &mut applied);
                    let event = Event::Applied(applied.into_iter().collect());
                    self.shared.inbox.push_quietly(event, &self.shared.tables_awaited);
                }
            }
            let now = Instant::now();
            if self.next_remembered.is_some_and(|next| now >= next) {
                self.remember();
            }
            if now >= self.next_second {
                self.next_second = now + SECOND;
                self.report_sizes();
                self.balance();
            } else if self.applied_bytes > self.memtable_bytes / LOOKS_PER_BUDGET {
                self.balance();
            }
        }
    }

    /// Takes a shard over.
    fn open(&mut self, shard: Shard, generation: u64) {
        let id = shard.id();
        let at = id.0 as usize;
        self.shards.resize_with(self.shards.len().max(at + 1), || None);
        let active_bytes = shard.table().memory_bytes();
        self.applied_bytes += active_bytes;
        self.shared.readers.horizon.come(id, shard.applied());
        self.shards[at] = Some(Open { shard, generation, active_bytes });
        self.flusher.has_come(id);
    }

    fn shard(&mut self, id: ShardId) -> Option<&mut Open> {
        self.shards.get_mut(id.0 as usize)?.as_mut()
    }

    fn apply(&mut self, jobs: impl Iterator<Item = ApplyJob>, applied: &mut BTreeMap<ShardId, Index>) {
        let mut answers: Vec<(Token, Delivery)> = Vec::new();
        let mut held = Vec::new();
        self.next_remembered.get_or_insert_with(|| Instant::now() + REMEMBERED);
        for job in jobs {
            let open = self.shards.get_mut(job.shard.0 as usize).and_then(Option::as_mut);
            let Some(open) = open else {
                // What it was to do with its damaged table is done elsewhere.
                answers.extend(without_answer(job));
                continue;
            };
            let replies = match open.shard.apply(&job.entry, job.copies) {
                Ok(outcome) => {
                    self.shared.has_layout(outcome.layout.as_ref());
                    outcome.replies
                }
                Err(error) if error.is_unread() => {
                    self.close(job.shard);
                    self.shared.unread(job.shard, error.to_string());
                    answers.extend(without_answer(job));
                    continue;
                }
                Err(error) if error.is_damage() => {
                    self.lose(job.shard, &error);
                    answers.extend(without_answer(job));
                    continue;
                }
                Err(error) => die("an entry can't be applied", &error),
            };
            if open.shard.marked() == job.entry.index {
                // It is the newest; none that is given up is as high.
                let _held = self.shared.readers.horizon.hold(job.shard, job.entry.index, Reading::Begins);
            }
            self.shared.metrics.applied.add(1);
            let bytes = job.entry.payload.len() as u64 + ROW_OVERHEAD_BYTES * replies.len() as u64;
            open.active_bytes += bytes;
            self.applied_bytes += bytes;
            applied.insert(job.shard, job.entry.index);
            for (token, reply) in job.waiters.into_iter().zip(replies) {
                if job.held.contains(&token) {
                    held.push((job.shard, token, reply));
                } else {
                    answers.push((token, Delivery::reply(reply)));
                }
            }
            if answers.len() >= ANSWERS_MAX {
                self.shared.answers.deliver(answers.drain(..));
            }
        }
        if !answers.is_empty() {
            self.shared.answers.deliver(answers);
        }
        if !held.is_empty() {
            self.shared.inbox.push(Event::Replied(held));
        }
    }

    /// Holds a shard's table as it is now.
    fn hold(&mut self, id: ShardId, transfer: u64) {
        let Some(open) = self.shard(id) else { return };
        open.shard.seal();
        let index = open.shard.applied();
        match SnapshotReader::new(id, &**open.shard.table(), index) {
            Ok(reader) => self.snapshots.hold(transfer, reader),
            // Whoever asks for its first chunk is told that there is none.
            Err(error) if error.is_damage() => self.shared.damaged(id, error.to_string(), true),
            Err(error) => die("a table can't be read for a snapshot", &error),
        }
        self.shared.inbox.push(Event::SnapshotTaken { transfer, index });
    }

    /// Nothing more can be applied to this shard.
    fn lose(&mut self, id: ShardId, error: &dyn std::fmt::Display) {
        self.close(id);
        self.shared.damaged(id, error.to_string(), false);
    }

    fn close(&mut self, id: ShardId) {
        if let Some(open) = self.shards[id.0 as usize].take() {
            self.closed.insert(id, open.generation);
        }
        self.flusher.give_up(id);
    }

    /// The same for one whose new table, of this generation, can't be used. Its old one counts no more.
    fn lose_installed(&mut self, id: ShardId, generation: u64, error: &dyn std::fmt::Display) {
        self.lose(id, error);
        self.forget_closed(id, generation);
    }

    /// Removes the table of a shard that was closed: this generation counts in its place, and goes when the replica is made anew.
    fn forget_closed(&mut self, id: ShardId, generation: u64) {
        if let Some(old) = self.closed.insert(id, generation).filter(|old| *old != generation) {
            snapshots::remove(&*self.tables, id, old);
        }
    }

    /// Puts another table in place.
    fn install(&mut self, id: ShardId, base: Base) {
        if self.shard(id).is_none() {
            // Its old table has turned out to be damaged, and the node has no replica any more. A start finds the new one.
            return self.forget_closed(id, base.generation);
        }
        let table = match self.tables.open_generation(id, base.generation) {
            Ok(table) => table,
            Err(error) if error.is_damage() => return self.lose_installed(id, base.generation, &error),
            Err(error) => die("a snapshot's table can't be opened", &error),
        };
        self.flusher.keep(id, table.clone());
        let (nobody, sessions) = (Configuration::default(), SessionLimits::default());
        let shard = match Shard::open_of_cluster(id, table, &nobody, None, sessions) {
            Ok(shard) => shard,
            Err(error) if error.is_damage() => return self.lose_installed(id, base.generation, &error),
            Err(error) => die("a snapshot's table can't be used", &error),
        };
        assert_eq!(shard.applied(), base.index, "shard {id}: a table is put in place whole, or not at all");
        self.shared.has_layout(shard.layout());
        self.shared.readers.set(shard.reader());
        let (index, revision, clock) = (shard.applied(), shard.revision(), shard.clock());
        let open = self.shard(id).expect("the node installs only where it had a shard opened");
        let old = std::mem::replace(open, Open { shard, generation: base.generation, active_bytes: 0 });
        snapshots::remove(&*self.tables, id, old.generation);
        // What is asked for at earlier indexes can be read at this one only.
        self.remember();
        tracing::info!("shard {id} goes on from a snapshot at index {index}");
        self.shared.inbox.push(Event::Installed { shard: id, index, revision, clock });
    }

    /// Closes a shard for good.
    fn end(&mut self, id: ShardId, generation: u64) {
        if let Some(open) = self.shards.get_mut(id.0 as usize) {
            *open = None;
        }
        self.shared.readers.close(id);
        self.closed.remove(&id);
        self.shared.forget_damage(id);
        self.flusher.end(id);
        snapshots::remove(&*self.tables, id, generation);
        tracing::info!("shard {id} is elsewhere now, and its table here is removed");
    }

    /// Begins a replica that has nothing yet, in place of the one that was here.
    fn begin(&mut self, id: ShardId, peer: PeerId, generation: u64, born: &Arc<Layout>) {
        if let Some(old) = self.shards.get_mut(id.0 as usize) {
            *old = None;
        }
        self.closed.remove(&id);
        self.shared.forget_damage(id);
        let configuration = born.shard(id).expect("a shard of the cluster").born();
        let table = match self.tables.open_generation(id, generation) {
            Ok(table) => table,
            Err(error) if error.is_damage() => return self.lose(id, &error),
            Err(error) => die("a new table can't be made", &error),
        };
        let (reached, sessions) = (table.clone(), SessionLimits::default());
        let shard = match Shard::open_of_cluster(id, table, &configuration, Some(born), sessions) {
            Ok(shard) => shard,
            Err(error) if error.is_damage() => return self.lose(id, &error),
            Err(error) => die("a new table can't be used", &error),
        };
        self.flusher.keep(id, reached);
        self.shared.readers.set(shard.reader());
        self.open(shard, generation);
        let base = Base { generation, ..Base::default() };
        let opened = Opened { peer, base, configuration, ..Opened::default() };
        self.shared.inbox.push(Event::Opened([(id, opened)].into()));
    }

    /// Keeps memory within its bounds: seals and hands over, waits.
    fn balance(&mut self) {
        self.applied_bytes = 0;
        for shard in self.flusher.take_wanted() {
            if !self.flusher.is_busy_with(shard) {
                self.hand_over(shard);
            }
        }
        for shard in self.full_of_removals() {
            self.hand_over(shard);
        }
        let expected = self.flusher.expected_bytes();
        let budget = self.memtable_bytes.saturating_sub(expected).max(self.memtable_bytes / SHARE_LEAST);
        let mut pressed: Option<Instant> = None;
        while !self.shared.is_stopping() {
            let (mut active, mut total, mut largest) = (0, expected, None);
            for open in self.shards.iter().flatten() {
                let (id, bytes) = (open.shard.id(), open.active_bytes);
                active += bytes;
                total += open.shard.table().memory_bytes();
                if !self.flusher.is_busy_with(id) {
                    largest = largest.max(Some((bytes, id)));
                }
            }
            let sealed = self.flusher.bytes();
            if active > budget
                && let Some((bytes, shard)) = largest
                && bytes > 0
            {
                self.hand_over(shard);
            } else if sealed > 0 && active + sealed > 2 * self.memtable_bytes {
                thread::sleep(PAUSE);
            } else if total > MEMORY_FACTOR * self.memtable_bytes {
                let since = *pressed.get_or_insert_with(Instant::now);
                if since.elapsed() > PRESSED_MAX {
                    return;
                }
                thread::sleep(PAUSE);
            } else {
                return;
            }
        }
    }

    /// Shards whose removals had better be on disk, where a merge does away with them.
    fn full_of_removals(&self) -> Vec<ShardId> {
        let shards = self.shards.iter().flatten().map(|open| &open.shard);
        let full = shards
            .filter(|shard| !self.flusher.is_busy_with(shard.id()) && is_full_of_removals(&**shard.table()));
        full.map(Shard::id).collect()
    }

    fn hand_over(&mut self, id: ShardId) {
        let Some(open) = self.shards.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        open.shard.seal();
        let bytes = std::mem::take(&mut open.active_bytes);
        self.flusher.push(id, open.shard.table().clone(), bytes);
    }

    /// Remembers how far the shards are.
    fn remember(&mut self) {
        self.next_remembered = None;
        let applied = |open: &Option<Open>| open.as_ref().map_or(Index(0), |open| open.shard.applied());
        self.shared.readers.horizon.remember(self.shards.iter().map(applied).collect());
    }

    /// Every second while entries are applied, and now and then when not.
    fn report_sizes(&mut self) {
        self.quiet_seconds += 1;
        if self.quiet_seconds <= STATS_IDLE_SECONDS {
            return;
        }
        self.quiet_seconds = 0;
        let stats = |open: &Open| TableStats {
            shard: open.shard.id(),
            revision: open.shard.revision(),
            keys_estimate: open.shard.keys_estimate(),
            bytes_estimate: open.shard.table().bytes_estimate(),
        };
        self.shared.inbox.push(Event::Stats(self.shards.iter().flatten().map(stats).collect()));
    }
}

/// Answers to who waits for an entry that is committed and not applied here. Those that are held are the node's.
fn without_answer(job: ApplyJob) -> impl Iterator<Item = (Token, Delivery)> {
    let waiters = job.waiters.into_iter().filter(move |token| !job.held.contains(token));
    waiters.map(|token| {
        let message = "the replica that took this is damaged; the write may have taken effect";
        (token, Delivery::reply(Reply::Failed(Failure::unknown(Code::Unavailable, message))))
    })
}
