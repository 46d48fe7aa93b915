//! What a shard's entries come to, worked out a second time, as plainly as can be: one command after the other on one
//! map, and sessions as a list with the longest unused first (DESIGN §4: an entry's commands see the effects of the
//! earlier ones; §10: exactly once). It says what each command must be answered, on every replica that applies it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::limits::TOMBSTONE_MS;
use ringfort_types::{
    Change, Code, Command, Condition, Entry, Failure, HybridClock, Index, LogEntry, Part, Receipt, Reply,
    Revision, ShardId, Stamp, Stamped, Term, Version,
};

use crate::sessions::LIMITS;

/// A value, and the revision that set it; `None` if the key is not there.
pub(crate) type Found = Option<(Bytes, Revision)>;

/// One shard.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    shard: ShardId,
    rows: BTreeMap<Bytes, (Bytes, Revision)>,
    /// Where callers have put keys in orders of their own, those that were deleted too.
    versions: BTreeMap<Bytes, Place>,
    revision: Revision,
    /// The meta group's layout, as its own crate changes it.
    pub(crate) layout: Option<Layout>,
    pub(crate) clock: HybridClock,
    /// The longest unused first.
    sessions: Vec<Session>,
    forgotten: HybridClock,
    /// The entry under way.
    term: Term,
    index: Index,
    /// What it has changed so far, in order.
    changes: Vec<(Bytes, Found)>,
    /// The stamps of commands that have changed something.
    done: Vec<Stamp>,
}

/// A key's place in its caller's order.
#[derive(Clone, Copy, Debug)]
struct Place {
    version: Version,
    /// Until when it counts, in milliseconds, if the key was deleted.
    until_ms: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    client: u128,
    last: u64,
    floor: u64,
    used_at: HybridClock,
    told: Vec<(u64, Reply)>,
}

impl Replay {
    /// Applies the next entry: what its commands must be answered, and what it changes.
    pub(crate) fn apply(&mut self, shard: ShardId, entry: &LogEntry) -> (Vec<Reply>, Vec<(Bytes, Found)>) {
        (self.shard, self.term, self.index) = (shard, entry.term, entry.index);
        let Ok(Entry { clock, commands }) = Entry::decode(entry.payload.clone()) else {
            return (Vec::new(), Vec::new());
        };
        self.clock = clock;
        let replies = commands.iter().map(|stamped| self.execute(stamped)).collect();
        (replies, std::mem::take(&mut self.changes))
    }

    /// The stamps of the commands of the last entry that have changed something.
    pub(crate) fn take_done(&mut self) -> Vec<Stamp> {
        std::mem::take(&mut self.done)
    }

    fn execute(&mut self, stamped: &Stamped) -> Reply {
        let Some(stamp) = &stamped.stamp else { return self.run(&stamped.command) };
        let Stamp { client, sequence, prev, floor, opened } = *stamp;
        let at = self.sessions.iter().position(|session| session.client == client);
        if at.is_none() && opened < self.forgotten {
            return failed(Code::SessionExpired);
        }
        let fresh = Session { client, ..Session::default() };
        let mut session = at.map_or(fresh, |at| self.sessions[at].clone());
        let told = session.told.iter().find(|(of, _)| *of == sequence).map(|(_, reply)| reply.clone());
        if told.is_none() {
            if sequence <= session.floor {
                return failed(Code::FailedPrecondition);
            }
            if prev != session.last {
                return failed(Code::SessionGap);
            }
        }
        session.floor = session.floor.max(floor);
        session.told.retain(|(of, _)| *of > session.floor);
        if told.is_none() && session.told.len() >= LIMITS.session_outcomes {
            return failed(Code::ResourceExhausted);
        }
        session.used_at = self.clock;
        let reply = told.unwrap_or_else(|| {
            let reply = self.run(&stamped.command);
            if matches!(reply, Reply::Written(_)) {
                self.done.push(*stamp);
            }
            session.last = sequence;
            session.told.push((sequence, reply.clone()));
            reply
        });
        if let Some(at) = at {
            self.sessions.remove(at);
        }
        self.sessions.push(session);
        let outcomes = |sessions: &[Session]| sessions.iter().map(|one| one.told.len()).sum::<usize>();
        while self.sessions.len() > LIMITS.sessions || outcomes(&self.sessions) > LIMITS.outcomes {
            self.forgotten = self.forgotten.max(self.sessions.remove(0).used_at);
        }
        reply
    }

    fn run(&mut self, command: &Command) -> Reply {
        let parts = match command {
            Command::Write { parts } => parts,
            Command::Layout(change) => {
                if let Some(next) = self.layout.as_ref().and_then(|layout| layout.after(change)) {
                    self.layout = Some(next);
                    self.revision.0 += 1;
                } else if self.layout.as_ref().is_some_and(|layout| layout.void(change).is_some()) {
                    return failed(Code::FailedPrecondition);
                }
                return Reply::Written(self.receipt(Vec::new()));
            }
            Command::Digest => return Reply::Written(self.receipt(Vec::new())),
        };
        for (part, asked) in (0..).zip(parts) {
            if !self.is_met(asked) {
                let revision = self.rows.get(&asked.key).map(|(_, revision)| *revision);
                return Reply::NotMet { part, key: asked.key.clone(), revision, at: self.index };
            }
        }
        let mut sums = Vec::new();
        for part in parts {
            let Change::Add(by) = part.change else { continue };
            let before = match self.rows.get(&part.key) {
                None => Some(0),
                Some((value, _)) => number(value).filter(|before| value == before.to_string().as_bytes()),
            };
            let Some(before) = before else { return failed(Code::FailedPrecondition) };
            let Some(sum) = before.checked_add(by) else { return failed(Code::OutOfRange) };
            sums.push(sum);
        }
        self.revision.0 += u64::from(parts.iter().any(|part| part.change != Change::Keep));
        let mut left = sums.iter();
        for Part { key, change, .. } in parts {
            let (value, version) = match change {
                Change::Keep => continue,
                Change::Put(new) => (Some(new.value.clone()), new.version),
                Change::Delete { version } => (None, *version),
                Change::Add(_) => (left.next().map(|sum| Bytes::from(sum.to_string())), None),
            };
            self.set(key, value, version);
        }
        Reply::Written(self.receipt(sums))
    }

    fn is_met(&self, part: &Part) -> bool {
        let row = self.rows.get(&part.key);
        match &part.condition {
            None => true,
            Some(Condition::Absent) => row.is_none(),
            Some(Condition::Present) => row.is_some(),
            Some(Condition::Revision(is)) => row.is_some_and(|(_, revision)| revision == is),
            Some(Condition::Value(is)) => row.is_some_and(|(value, _)| value == is),
            Some(Condition::NotNewerThan(asked)) => {
                let place = self.versions.get(&part.key);
                let counts = |place: &&Place| place.until_ms.is_none_or(|until| self.clock.wall_ms() < until);
                place.filter(counts).is_none_or(|place| place.version <= *asked)
            }
        }
    }

    fn set(&mut self, key: &Bytes, value: Option<Bytes>, version: Option<Version>) {
        let until_ms = value.is_none().then(|| self.clock.wall_ms() + TOMBSTONE_MS);
        match version {
            Some(version) => self.versions.insert(key.clone(), Place { version, until_ms }),
            None => self.versions.remove(key),
        };
        let found = value.map(|value| (value, self.revision));
        match &found {
            Some(found) => self.rows.insert(key.clone(), found.clone()),
            None => self.rows.remove(key),
        };
        self.changes.push((key.clone(), found));
    }

    /// Without the number of copies, which is not the shard's to say.
    fn receipt(&self, sums: Vec<i64>) -> Receipt {
        let (shard, term, index, revision) = (self.shard, self.term, self.index, self.revision);
        Receipt { shard, term, index, revision, sums, ..Receipt::default() }
    }
}

fn failed(code: Code) -> Reply {
    Reply::Failed(Failure::rejected(code, ""))
}

/// A decimal number.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A reply without what two tellings of it may differ in: how many copies there were and who lacks one, and how a failure is put.
pub(crate) fn bare(reply: &Reply) -> Reply {
    match reply.clone() {
        Reply::Written(receipt) => Reply::Written(Receipt { copies: 0, lacking: Vec::new(), ..receipt }),
        Reply::Failed(failure) => Reply::Failed(Failure { message: String::new(), ..failure }),
        other => other,
    }
}
