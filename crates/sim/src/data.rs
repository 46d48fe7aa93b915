//! A process's log and tables: what the server's threads do with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_node::{ApplyJob, Event, ReadJob, TableStats};
use ringfort_shard::Shard;
use ringfort_storage::Log;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Code, DiskState, Failure, Index, LogEntry, Record, Reply, Request, ShardId, Token};

use crate::host::{Trap, Work};
use crate::judges::{NODE_GOES_ON, digests};
use crate::network::node;
use crate::world::{Next, World};

/// Until a batch is tried again for which there was no room, in microseconds; as in the server.
const FULL_RETRY_US: u64 = 1_000_000;
/// How long a sync may take before the node is told that the disk hangs, in microseconds; as in the server.
pub(crate) const HUNG_US: u64 = 3_000_000;
/// What a sync of a slow disk takes, in microseconds.
const SLOW_US: (u64, u64) = (50_000, 400_000);
/// Between two looks at whether a disk still hangs, in microseconds.
const HUNG_LOOK_US: u64 = 50_000;
/// How long nothing must have been written before the log is sealed, in microseconds; as in the server.
const IDLE_US: u64 = 200_000;

impl World {
    pub(crate) fn sync(&mut self, at: usize, number: u64, records: Vec<Record>) {
        if self.now_us < self.hosts[at].hangs_until_us {
            return self.wait_for_hung_disk(at, number, records);
        }
        self.disk_goes_on(at);
        let trap = self.hosts[at].trap.take();
        match trap {
            Some((Trap::Kill | Trap::PowerLoss, _)) => self.hosts[at].disk.unplug(true),
            Some((Trap::FailedSync, _)) => self.hosts[at].disk.disk.fail_syncs(true),
            None => {}
        }
        let process = self.hosts[at].process.as_mut().expect("only processes write");
        let log = process.log.as_mut().expect("a node persists after it was opened");
        match (log.append(&records), trap) {
            (Ok(()), None) => {
                let batch = log.last_batch();
                let had_no_room = std::mem::replace(&mut process.is_full, false);
                self.log(format_args!("n{} batch {number} of {} is durable", at + 1, records.len()));
                let broken = self.judges.synced(at, &records);
                self.find_of(at, broken);
                if had_no_room {
                    self.hear(at, Event::Disk(DiskState::Working));
                }
                let is_slow = self.now_us < self.hosts[at].slow_until_us;
                let after_us =
                    if is_slow { self.random.between(SLOW_US.0, SLOW_US.1) } else { self.random.below(100) };
                self.later(at, after_us, Work::Hear(Event::Persisted { number, batch }));
                self.later(at, IDLE_US, Work::Seal { after: number });
                let process = self.hosts[at].process.as_mut().expect("it goes on");
                process.last_batch = number;
                if process.log.as_ref().is_some_and(Log::is_over_budget) {
                    let after_us = self.random.below(10_000);
                    self.later(at, after_us, Work::Collect);
                }
            }
            (Err(error), None) if error.is_disk_full() => {
                if !std::mem::replace(&mut process.is_full, true) {
                    self.log(format_args!("n{} has no room for batch {number}", at + 1));
                    self.hear(at, Event::Disk(DiskState::Full));
                }
                // It waits, and works no more than before: however slow it is, this takes no longer.
                let life = self.hosts[at].life;
                let again = Work::Sync { number, records };
                self.schedule(FULL_RETRY_US, Next::Work { host: at, life, work: again });
            }
            (Err(error), None) => {
                self.find(NODE_GOES_ON, format_args!("n{} can't write its log: {error}", at + 1));
                self.restart_after(at, false, 0);
            }
            // There may have been no room, so that no sync was tried.
            (outcome, Some((trap, for_us))) => {
                let full = outcome.as_ref().is_err_and(ringfort_storage::StorageError::is_disk_full);
                if outcome.is_ok() {
                    self.find(NODE_GOES_ON, format_args!("n{} did not notice {trap:?}", at + 1));
                }
                let why = if full { " (and there was no room)" } else { "" };
                self.log(format_args!("n{} dies of {trap:?} in batch {number}{why}", at + 1));
                self.restart_after(at, trap == Trap::PowerLoss, for_us);
            }
        }
    }

    /// The batch is as good as not written until the disk goes on.
    fn wait_for_hung_disk(&mut self, at: usize, number: u64, records: Vec<Record>) {
        let process = self.hosts[at].process.as_mut().expect("only processes write");
        let since_us = *process.hangs_since_us.get_or_insert(self.now_us);
        if self.now_us - since_us >= HUNG_US && !std::mem::replace(&mut process.is_hung, true) {
            self.log(format_args!("n{} sees that its disk hangs", at + 1));
            self.hear(at, Event::Disk(DiskState::Hung));
        }
        let life = self.hosts[at].life;
        let again = Work::Sync { number, records };
        self.schedule(HUNG_LOOK_US, Next::Work { host: at, life, work: again });
    }

    fn disk_goes_on(&mut self, at: usize) {
        let process = self.hosts[at].process.as_mut().expect("only processes write");
        process.hangs_since_us = None;
        if std::mem::replace(&mut process.is_hung, false) {
            let disk = if process.is_full { DiskState::Full } else { DiskState::Working };
            self.hear(at, Event::Disk(disk));
        }
    }

    pub(crate) fn seal_log(&mut self, at: usize, after: u64) {
        let hangs = self.now_us < self.hosts[at].hangs_until_us;
        let process = self.hosts[at].process.as_mut().expect("only processes seal");
        if process.last_batch != after || process.is_full || hangs {
            return;
        }
        let log = process.log.as_mut().expect("it has written before");
        if let Err(error) = log.seal()
            && !error.is_disk_full()
        {
            self.find(NODE_GOES_ON, format_args!("n{} can't seal its log: {error}", at + 1));
        }
    }

    pub(crate) fn apply(&mut self, at: usize, jobs: Vec<ApplyJob>) {
        let mut applied: BTreeMap<ShardId, Index> = BTreeMap::new();
        let mut held = Vec::new();
        for job in jobs {
            let (shard, index) = (job.shard, job.entry.index);
            if self.apply_one(at, job, &mut held) {
                applied.insert(shard, index);
            }
        }
        for id in applied.keys() {
            if self.random.chance(30) {
                self.seal_table(at, *id);
            }
        }
        if !held.is_empty() {
            self.hear(at, Event::Replied(held));
        }
        self.hear(at, Event::Applied(applied.into_iter().collect()));
    }

    /// Whether it could be applied. Replies that are held are the node's.
    fn apply_one(&mut self, at: usize, job: ApplyJob, held: &mut Vec<(ShardId, Token, Reply)>) -> bool {
        let ApplyJob { shard: id, ref entry, copies, .. } = job;
        let (index, term, waiting) = (entry.index, entry.term, job.waiters.len());
        let process = self.hosts[at].process.as_mut().expect("only processes apply");
        if process.lost.contains(&id) {
            self.leave_in_doubt(at, job);
            return false;
        }
        self.log(format_args!("n{} applies {index} of term {term} in shard {id} for {waiting}", at + 1));
        let broken = self.judges.applied(at, id, entry);
        self.find_of(at, broken);
        let process = self.hosts[at].process.as_mut().expect("only processes apply");
        let shard = process.shards.get_mut(&id).expect("only what was opened is applied to");
        let loses = planted::is(Bug::RowsLost) && at == 1 && index.0.is_multiple_of(32) && waiting == 0;
        let outcome = if loses {
            shard.apply(&LogEntry { payload: Bytes::new(), ..entry.clone() }, copies)
        } else {
            shard.apply(entry, copies)
        };
        let replies = match outcome {
            Ok(outcome) => {
                if let Some(layout) = outcome.layout {
                    self.hear(at, Event::Layout(layout));
                }
                outcome.replies
            }
            Err(error) => {
                self.meet_damage(at, id, error.to_string(), false);
                self.leave_in_doubt(at, job);
                return false;
            }
        };
        if !loses {
            self.judge_applied(at, id, index, &replies);
        }
        if waiting > 0 && waiting != replies.len() {
            let what = format_args!("n{}: {waiting} wait for {} replies", at + 1, replies.len());
            self.find(crate::judges::ANSWERED_ONCE, what);
        }
        for (token, reply) in job.waiters.into_iter().zip(replies) {
            if job.held.contains(&token) {
                held.push((id, token, reply));
            } else {
                self.answer(at, token, reply);
            }
        }
        true
    }

    fn judge_applied(&mut self, at: usize, id: ShardId, index: Index, replies: &[Reply]) {
        // Who decided alone when the disk was as it is again may go on by itself until it is told.
        if self.hosts[at].is_older {
            return;
        }
        let broken = self.judges.reads.replied(at, id, index, replies);
        self.find_all(broken.into_iter().collect());
        if !digests::is_due(index) {
            return;
        }
        let process = self.hosts[at].process.as_ref().expect("only processes apply");
        let shard = &process.shards[&id];
        let request = Request::DigestAt { node: node(at), shard: id, index };
        if let Reply::Digest { hash, rows, .. } = shard.reader().query(&request, index) {
            let digests = &mut self.judges.digests;
            let rows = digests.taken(at, id, index, (hash, rows));
            let sessions = digests.sessions_taken(at, id, index, shard.sessions_hash());
            self.find_all(rows.into_iter().chain(sessions).collect());
        }
    }

    /// Answers who waits for an entry that is committed and can't be applied here.
    fn leave_in_doubt(&mut self, at: usize, job: ApplyJob) {
        for token in job.waiters.into_iter().filter(|token| !job.held.contains(token)) {
            let message = "the replica that took this is damaged; the write may have taken effect";
            self.answer(at, token, Reply::Failed(Failure::unknown(Code::Unavailable, message)));
        }
    }

    pub(crate) fn read(&mut self, at: usize, job: &ReadJob) {
        let process = self.hosts[at].process.as_ref().expect("only processes read");
        let reply = match process.shards.get(&job.shard) {
            Some(shard) => shard.reader().query(&job.request, job.at),
            // Its replica has come to its end meanwhile.
            None => Reply::Failed(Failure::rejected(Code::Unavailable, "this node has no replica of it")),
        };
        if let Reply::Failed(failure) = &reply
            && failure.code == Code::DataLoss
        {
            self.meet_damage(at, job.shard, failure.message.clone(), true);
        }
        self.answer(at, job.token, reply);
    }

    /// A process that ends in good order records how far its log goes, if its disk takes that.
    pub(crate) fn close_log(&mut self, at: usize) {
        let hangs = self.now_us < self.hosts[at].hangs_until_us;
        let process = self.hosts[at].process.as_mut().expect("only processes close");
        if let Some(log) = process.log.as_mut().filter(|_| !hangs && !process.is_full)
            && let Err(error) = log.close()
        {
            self.log(format_args!("n{} can't record how far its log goes: {error}", at + 1));
        }
    }

    /// Makes it possible that a crash leaves a table as it is now, and perhaps sure that it leaves no less.
    fn seal_table(&mut self, at: usize, id: ShardId) {
        let flush = self.random.chance(30);
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes seal");
        let shard = process.shards.get_mut(&id).expect("only what was opened is sealed");
        shard.seal();
        let generation = process.generations.get(&id).copied().unwrap_or_default();
        let sealed = host.sealed.entry((id, generation)).or_default();
        if flush {
            shard.table().flush(Index(0)).expect("memory takes everything");
            sealed.clear();
        } else {
            sealed.push(shard.applied());
        }
    }

    pub(crate) fn report_stats(&mut self, at: usize) {
        let process = self.hosts[at].process.as_ref().expect("only processes report");
        let stats = |shard: &Shard| TableStats {
            shard: shard.id(),
            revision: shard.revision(),
            keys_estimate: shard.keys_estimate(),
            bytes_estimate: shard.table().bytes_estimate(),
        };
        let stats = process.shards.values().map(stats).collect();
        self.hear(at, Event::Stats(stats));
        self.later(at, 1_000_000, Work::Stats);
    }
}
