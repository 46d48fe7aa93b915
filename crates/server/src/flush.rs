//! The one thread that writes sealed memtables to disk and compacts.
//!
//! One after the other, so that a burst of writes does not become a burst of disk traffic from as many threads
//! as there are shards. A compaction can drop versions only if nobody reads below what is on disk. What has just been
//! flushed is younger than that, so the table is visited again once the horizon has passed it. A table that is
//! flushed so often that this never comes, or that somebody holds far back, is compacted anyway ([`horizon_of`]).
//!
//! Held reads cost disk. After each flush it is looked at how much; beyond the bound the one that costs most is given up.
//!
//! It is also where the log learns how far each table is durable, and says whose table keeps it from letting go of what
//! is old: that one is flushed next.
//!
//! A second thread merges tables in which many rows are gone, or were kept for a read that has ended
//! ([`is_worth_merging`]), or in which scans have stepped over removals again and again ([`is_felt_by_scans`]: few of them, in each
//! of many shards, are many for a list, which asks all), one at a time, with pauses: scans would meet each removal, and what is out of date takes room. It waits for
//! reads that are in the way. (The first page of a short list that has all it may want holds nothing, so a consumer that lists the
//! head of a queue again and again is not.)
//! A table of more than [`MERGE_BYTES_MAX`] is left to ordinary compaction.
//!
//! A failed flush ends the process, because a failed sync can't be repaired; a full disk is waited out, as the log
//! still has everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringfort_storage::{Dead, Durable, StorageError, Table};
use ringfort_types::{Index, ShardId, count};

use crate::disk_watch::Work;
use crate::error::die;
use crate::horizon::{HELD, RECENT, Reason};
use crate::queue::{Queue, Taken};
use crate::shared::{Part, Shared};

/// How often a flush is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// When a flushed table is visited again to be compacted: once what was newest then is behind the horizon, and once nothing
/// can be held any more that was then.
const VISITS: [Duration; 2] =
    [RECENT.saturating_add(Duration::from_millis(200)), HELD.saturating_add(Duration::from_secs(2))];
/// Most compactions of one table in a row.
const COMPACTIONS_MAX: usize = 64;

/// So many removals are felt by scans.
const DEAD_MANY: u64 = 16 * 1024;
/// A table is flushed and merged once its scans have stepped over so many removals, and one for each of its items and for so many
/// of its bytes: that has cost them about as much as it costs. So neither ever costs much more than the other, whatever is
/// written and listed, and with however many shards.
const STEPPED_OVER_MANY: u64 = 16 * 1024;
const BYTES_A_STEP: u64 = 128;
/// A table is merged if one in so many of its items is a removal, which hides another one.
const DEAD_SHARE: u64 = 8;
/// A table is merged if one in so many of its bytes was kept for reads that have ended, and these are so many.
const UNDROPPED_SHARE: u64 = 4;
const UNDROPPED_BYTES_MANY: u64 = 1024 * 1024;
/// A merge holds up the end of a node, and reads and writes all of the table.
const MERGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How often it is looked for tables to merge.
const MERGE_EVERY: Duration = Duration::from_secs(1);
/// When to try again after it has failed.
const MERGE_AGAIN: Duration = Duration::from_mins(1);
/// Between two looks at whether the node ends.
const PAUSE: Duration = Duration::from_millis(50);
/// Beyond every entry.
const EVERYTHING: Index = Index(u64::MAX - 1);

/// How often it is said that reads are given up.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// When to visit which table.
type Visit = (Instant, ShardId, Arc<dyn Table>);

/// The flush thread's queue, and which shards it has in hand.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    queue: Queue<(ShardId, Arc<dyn Table>)>,
    /// With the bytes that were sealed.
    busy: Mutex<BTreeMap<ShardId, u64>>,
    /// All tables in use, of shards that the node knows to be open.
    tables: Mutex<BTreeMap<ShardId, Arc<dyn Table>>>,
    /// The tables of shards that are still replayed.
    expected: Mutex<BTreeMap<ShardId, Arc<dyn Table>>>,
    /// Shards that nothing more is applied to: the log keeps nothing for them.
    given_up: Mutex<BTreeSet<ShardId>>,
    /// Shards whose replicas take no part any more, though their tables can be written to.
    retired: Mutex<BTreeSet<ShardId>>,
    /// Those that the log waits for.
    wanted: Mutex<Vec<ShardId>>,
    ended: AtomicBool,
    ended_reads: Mutex<EndedReads>,
}

/// Long reads that were given up.
#[derive(Debug, Default)]
struct EndedReads {
    /// Since the last line about them.
    count: u64,
    /// When that was.
    at: Option<Instant>,
}

impl Flusher {
    /// Hands a table over, in which so many bytes are sealed. Its shard is busy until they are written.
    pub(crate) fn push(&self, shard: ShardId, table: Arc<dyn Table>, bytes: u64) {
        self.busy().insert(shard, bytes);
        self.queue.push((shard, table));
    }

    pub(crate) fn is_busy_with(&self, shard: ShardId) -> bool {
        self.busy().contains_key(&shard)
    }

    /// Bytes that are sealed and not yet written; none once the thread has ended.
    pub(crate) fn bytes(&self) -> u64 {
        if self.ended.load(Ordering::Acquire) { 0 } else { self.busy().values().sum() }
    }

    /// This table is being replayed, and will be handed over to the apply thread.
    pub(crate) fn expect(&self, shard: ShardId, table: Arc<dyn Table>) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, table);
    }

    /// This shard's table has been handed over.
    pub(crate) fn has_come(&self, shard: ShardId) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
    }

    /// What the tables that are being replayed take in memory, in bytes.
    pub(crate) fn expected_bytes(&self) -> u64 {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.values().map(|table| table.memory_bytes()).sum()
    }

    /// This is the table that the shard was opened with, unless it has another one already.
    pub(crate) fn keep_first(&self, shard: ShardId, table: Arc<dyn Table>) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).entry(shard).or_insert(table);
    }

    /// This is the shard's table from now on.
    pub(crate) fn keep(&self, shard: ShardId, table: Arc<dyn Table>) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(shard, table);
    }

    /// How far each table is durable. Of a shard that is not named here, the log has to keep all that it has.
    pub(crate) fn durable(&self) -> Durable {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut durable: Durable = tables.iter().map(|(shard, table)| (*shard, table.durable())).collect();
        drop(tables);
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        durable.extend(given_up.iter().map(|shard| (*shard, EVERYTHING)));
        durable
    }

    /// This shard's table is damaged, and no entry will ever be applied to it. A log that kept what it lacks could grow
    /// without a bound, as nothing ever makes it durable.
    pub(crate) fn give_up(&self, shard: ShardId) {
        self.has_come(shard);
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
    }

    /// There is no replica of this shard here any more.
    pub(crate) fn end(&self, shard: ShardId) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        self.give_up(shard);
    }

    /// The replica of this shard takes no part any more: nothing will be applied to its table.
    pub(crate) fn retire(&self, shard: ShardId) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
    }

    /// The log has outgrown its budget, because it keeps what these tables lack. Those of them that will never have it are given up:
    /// their entries would stay for ever.
    pub(crate) fn give_up_retired(&self, holding: &[ShardId]) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in holding.iter().filter(|shard| retired.remove(shard)) {
            self.give_up(*shard);
        }
    }

    /// The log waits for these tables.
    pub(crate) fn want(&self, shards: Vec<ShardId>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = shards;
    }

    /// The tables that the log waits for.
    pub(crate) fn take_wanted(&self) -> Vec<ShardId> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the thread after the table in hand.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Runs until closed. Held reads may cost so many bytes on disk.
    pub(crate) fn run(&self, shared: &Shared, held_reads_bytes: u64) {
        self.write_what_comes(shared, held_reads_bytes);
        self.ended.store(true, Ordering::Release);
    }

    fn write_what_comes(&self, shared: &Shared, held_reads_bytes: u64) {
        let mut waiting = Vec::new();
        let mut visits: [VecDeque<Visit>; VISITS.len()] = Default::default();
        loop {
            let due = visits.iter().filter_map(|visits| visits.front()).map(|(due, _, _)| *due).min();
            if self.queue.take(&mut waiting, due) == Taken::Closed {
                return;
            }
            for (shard, table) in waiting.drain(..) {
                if shared.is_stopping() {
                    return;
                }
                let keep_from = shared.readers.horizon.keep_from(shard);
                let bytes = self.busy().get(&shard).copied().unwrap_or_default();
                let begun = Instant::now();
                retry("flush", shard, shared, || {
                    shared.disk_watch.during(Work::Flush, bytes, || table.flush(keep_from))
                });
                shared.metrics.flushes.record(begun.elapsed());
                self.busy().remove(&shard);
                self.bound_held_reads(shared, held_reads_bytes);
                let now = Instant::now();
                for (visits, after) in visits.iter_mut().zip(VISITS) {
                    visits.push_back((now + after, shard, table.clone()));
                }
                compact(shard, &*table, shared);
            }
            // One at a time: what is to be flushed comes first.
            if let Some((shard, table)) = take_due(&mut visits) {
                compact(shard, &*table, shared);
            }
        }
    }

    /// Gives up held reads, while what was written since costs more than this many bytes.
    fn bound_held_reads(&self, node: &Shared, bytes_max: u64) {
        let horizon = &node.readers.horizon;
        let old = horizon.give_up_old().into_iter();
        let mut given_up: Vec<_> = old.map(|(shard, index)| (shard, index, Reason::Time)).collect();
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let cost =
            |shard, table: &Arc<dyn Table>| horizon.held(shard).map_or(0, |held| table.written_since(held));
        let mut costs: BTreeMap<_, _> =
            tables.iter().map(|(shard, table)| (*shard, cost(*shard, table))).collect();
        while costs.values().sum::<u64>() > bytes_max
            && let Some((shard, most)) = costs.iter_mut().max_by_key(|(_, bytes)| **bytes)
        {
            let reason = Reason::Disk(bytes_max);
            given_up.extend(horizon.give_up(*shard, reason).map(|index| (*shard, index, reason)));
            *most = tables.get(shard).map_or(0, |table| cost(*shard, table));
        }
        drop(tables);
        self.tell_given_up(node, &given_up);
    }

    /// A line in [`TOLD_EVERY`] at most: whoever reads can cause many.
    fn tell_given_up(&self, node: &Shared, given_up: &[(ShardId, Index, Reason)]) {
        let Some((shard, index, reason)) = given_up.last() else { return };
        let mut told = self.ended_reads.lock().unwrap_or_else(PoisonError::into_inner);
        told.count += given_up.len() as u64;
        if told.at.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            let reads = count(told.count, "long read of a shard is", "long reads of shards are");
            node.notice(format!(
                "{reads} given up, the last one of shard {shard} at index {index}: {reason}"
            ));
            *told = EndedReads { count: 0, at: Some(Instant::now()) };
        }
    }

    /// Merges tables, until the node ends.
    pub(crate) fn run_merges(&self, shared: &Shared) {
        let (mut next, mut last) = (Instant::now() + MERGE_EVERY, ShardId::META);
        while !shared.is_stopping() && !self.ended.load(Ordering::Acquire) {
            thread::sleep(PAUSE);
            let now = Instant::now();
            if now < next {
                continue;
            }
            let mut rest = MERGE_EVERY;
            if let Some((shard, table, keep_from)) = self.to_merge(shared, last) {
                last = shard;
                if is_felt_by_scans(&*table) {
                    // It is paid for, and so is the next one.
                    rest = PAUSE;
                }
                let bytes = table.bytes_estimate();
                match shared.disk_watch.during(Work::Merge, bytes, || table.merge(keep_from)) {
                    Ok(_) => {
                        shared.metrics.compactions.record(now.elapsed());
                        tracing::debug!("shard {shard}: merged for its removals in {:?}", now.elapsed());
                    }
                    // It is as it was, and goes on as it is.
                    Err(error) => {
                        tracing::warn!("the table of shard {shard} can't be merged: {error}");
                        next = Instant::now() + MERGE_AGAIN;
                        continue;
                    }
                }
            }
            // As long as it took, so that other work gets its share of the disk.
            next = Instant::now() + now.elapsed().max(rest);
        }
    }

    /// The next table after this one that is to be merged, and for which it is no use to wait: all that is on disk is older than any read
    /// asks for.
    fn to_merge(&self, shared: &Shared, last: ShardId) -> Option<(ShardId, Arc<dyn Table>, Index)> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let after = tables.range((Bound::Excluded(last), Bound::Unbounded));
        after.chain(tables.range(..=last)).find_map(|(shard, table)| {
            let bytes = table.bytes_estimate();
            let dead = table.dead();
            let is_felt = dead.removals > 0 && is_felt_by_scans(&**table);
            let is_wanted = (is_felt || is_worth_merging(dead, bytes)) && bytes <= MERGE_BYTES_MAX;
            let keep_from = is_wanted.then(|| shared.readers.horizon.keep_from(*shard))?;
            (table.durable() <= keep_from).then(|| (*shard, table.clone(), keep_from))
        })
    }

    fn busy(&self) -> MutexGuard<'_, BTreeMap<ShardId, u64>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether scans have stepped over so many removals in this table that it is worth it to do away with these.
fn is_felt_by_scans(table: &dyn Table) -> bool {
    let steps = table.stepped_over();
    steps >= STEPPED_OVER_MANY
        && steps >= STEPPED_OVER_MANY + table.dead().items + table.bytes_estimate() / BYTES_A_STEP
}

/// Whether the removals in this table's active memtable had better be on disk, where a merge does away with them. Those that scans feel
/// are sealed once before each merge, which may have to wait for whoever reads what they hide: as long as some are on disk, that merge is
/// yet to come. After it scans may feel what was removed meanwhile at once.
pub(crate) fn is_full_of_removals(table: &dyn Table) -> bool {
    let removals = table.active_removals();
    removals >= DEAD_MANY || (removals > 0 && table.dead().removals == 0 && is_felt_by_scans(table))
}

fn is_worth_merging(dead: Dead, bytes: u64) -> bool {
    let Dead { removals, items, undropped_bytes } = dead;
    (removals >= DEAD_MANY && removals * DEAD_SHARE >= items)
        || (undropped_bytes >= UNDROPPED_BYTES_MANY && undropped_bytes * UNDROPPED_SHARE >= bytes)
}

/// From where on a table has to be readable after its next compaction. `None` if it had better be compacted later.
fn horizon_of(shard: ShardId, table: &dyn Table, node: &Shared) -> Option<Index> {
    let horizon = &node.readers.horizon;
    let (keep_from, durable) = (horizon.keep_from(shard), table.durable());
    if durable <= keep_from {
        return Some(keep_from);
    }
    match horizon.held(shard) {
        // All versions are kept.
        Some(held) if held < durable => Some(held),
        // Reads that are on their way are given a later index.
        _ if table.is_crowded() => Some(durable),
        _ => None,
    }
}

fn compact(shard: ShardId, table: &dyn Table, node: &Shared) {
    for _ in 0..COMPACTIONS_MAX {
        let Some(keep_from) = horizon_of(shard, table, node) else { return };
        let bytes = table.bytes_estimate();
        let round = || node.disk_watch.during(Work::Compaction, bytes, || table.compact(keep_from));
        let compact = || match round() {
            Err(error) if error.is_damage() => {
                node.notice(format!("the table of shard {shard} is compacted no more: {error}"));
                Ok(false)
            }
            compacted => compacted,
        };
        let begun = Instant::now();
        let more = retry("compact", shard, node, compact).unwrap_or(false);
        if more {
            node.metrics.compactions.record(begun.elapsed());
        }
        if !more || node.is_stopping() {
            return;
        }
    }
}

/// A table whose time has come.
fn take_due(visits: &mut [VecDeque<Visit>; VISITS.len()]) -> Option<(ShardId, Arc<dyn Table>)> {
    let now = Instant::now();
    let due = |visits: &mut VecDeque<Visit>| visits.pop_front_if(|(due, _, _)| *due <= now);
    visits.iter_mut().find_map(due).map(|(_, shard, table)| (shard, table))
}

/// Does it, again and again while the disk is full. `None` if the node ends meanwhile.
fn retry<T>(
    what: &str,
    shard: ShardId,
    node: &Shared,
    mut act: impl FnMut() -> Result<T, StorageError>,
) -> Option<T> {
    let mut full = false;
    let done = loop {
        let error = match act() {
            Ok(done) => break done,
            Err(error) => error,
        };
        if node.is_stopping() {
            // The node ends, and the log has everything: the next start does it again, or says what is wrong.
            tracing::warn!("the table of shard {shard} is left as it was: {error}");
            return None;
        }
        if !error.is_disk_full() {
            die(&format!("can't {what} the table of shard {shard}"), &error);
        }
        if !full {
            node.notice(format!(
                "no room to {what} the table of shard {shard} ({error}): trying again each second"
            ));
            let held = node.readers.horizon.give_up_all(Reason::DiskFull);
            if held > 0 {
                node.notice(format!("{held} reads of older rows are given up: {}", Reason::DiskFull));
            }
            node.disk_full(Part::Tables, true);
            full = true;
        }
        thread::sleep(FULL_RETRY);
    };
    if full {
        node.notice(format!("there is room for the table of shard {shard} again"));
        node.disk_full(Part::Tables, false);
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use bytes::Bytes;
    use ringfort_storage::{FileDisk, LsmTables, MemoryTables, TableOptions, Tables};
    use ringfort_types::Incarnation;

    use super::*;

    #[test]
    fn a_table_is_merged_for_removals_or_for_what_long_reads_have_left() {
        let dead = |removals, undropped_bytes| Dead { removals, items: 8 * DEAD_MANY, undropped_bytes };
        assert!(!is_worth_merging(dead(DEAD_MANY - 1, 0), 0));
        assert!(is_worth_merging(dead(DEAD_MANY, 0), 0));
        let mib = UNDROPPED_BYTES_MANY;
        assert!(is_worth_merging(dead(0, mib), 4 * mib));
        assert!(!is_worth_merging(dead(0, mib), 5 * mib), "it is a small part of it");
        assert!(!is_worth_merging(dead(0, mib - 1), mib), "it is little");
    }

    /// A queue whose head is listed all the time, with a merge of its removals as soon as there can be one, and nobody who looks in between.
    #[test]
    fn what_scans_step_over_stays_bounded_however_soon_they_feel_it_again() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let table = LsmTables::new(disk, Incarnation(1), TableOptions::default()).open(ShardId(1)).unwrap();
        let key = |job: u64| Bytes::from(format!("q{job:06}"));
        let (mut index, mut merges, mut met_max) = (0, 0, 0);
        let mut write = |key: Bytes, value: Option<Bytes>| {
            index += 1;
            table.write(Index(index), &[(key, value)]);
            Index(index)
        };
        for job in 0..100 {
            write(key(job), Some("job".into()));
            let at = write(key(job), None);
            let before = table.stepped_over();
            for _ in 0..8 {
                table.scan(b"q", Some(b"r"), at, &mut |_, _| ControlFlow::Break(())).unwrap();
            }
            // One of eight is counted, for all of them.
            met_max = met_max.max((table.stepped_over() - before) / 8);
            if is_full_of_removals(&*table) {
                let at = write("state".into(), Some("of the shard".into()));
                table.rotate();
                // Meanwhile the queue goes on.
                let later = write(key(job), None);
                table.flush(at).unwrap();
                assert!(!is_full_of_removals(&*table), "it waits for its merge");
                assert!(table.merge(at).unwrap());
                for _ in 0..STEPPED_OVER_MANY {
                    table.scan(b"q", Some(b"r"), later, &mut |_, _| ControlFlow::Break(())).unwrap();
                }
                merges += 1;
            }
        }
        assert!(merges > 4 && met_max < 80, "{merges} merges, {met_max} removals met at once");
    }

    #[test]
    fn the_log_hears_of_a_table_once_it_is_kept_and_of_the_latest_one() {
        let (flusher, tables, shard) = (Flusher::default(), MemoryTables::new(), ShardId(1));
        let [first, later] = [0, 1].map(|generation| tables.open_generation(shard, generation).unwrap());
        for (table, index) in [(&first, 5), (&later, 9)] {
            table.write(Index(index), &[("key".into(), Some("value".into()))]);
            table.rotate();
            table.flush(Index(0)).unwrap();
            table.write(Index(index + 1), &[("key".into(), Some("in memory".into()))]);
        }
        flusher.expect(shard, first.clone());
        assert!(first.memory_bytes() > 0);
        assert_eq!((flusher.durable(), flusher.expected_bytes()), (Durable::new(), first.memory_bytes()));
        flusher.has_come(shard);
        assert_eq!(
            (flusher.durable(), flusher.expected_bytes()),
            (Durable::new(), 0),
            "not known to be open"
        );
        flusher.keep_first(shard, first.clone());
        assert_eq!(flusher.durable(), Durable::from([(shard, Index(5))]));
        // Another one may have come before the first is said to be there.
        flusher.keep(shard, later);
        flusher.keep_first(shard, first);
        assert_eq!(flusher.durable(), Durable::from([(shard, Index(9))]));
    }
}
