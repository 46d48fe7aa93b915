//! What a shard's entries come to, worked out a second time, as plainly as can be: one command after the other on one
//! map, and sessions as a list with the longest unused first (DESIGN §4: an entry's commands see the effects of the
//! earlier ones; §10: exactly once). It says what each command must be answered, on every replica that applies it.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{
    Change, Code, Command, Condition, Entry, Failure, HybridClock, Index, LogEntry, Receipt, Reply, Revision,
    ShardId, Stamp, Stamped, Term,
};

use crate::sessions::LIMITS;

/// A value, and the revision that set it; `None` if the key is not there.
pub(crate) type Version = Option<(Bytes, Revision)>;

/// One shard.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    shard: ShardId,
    rows: BTreeMap<Bytes, (Bytes, Revision)>,
    revision: Revision,
    pub(crate) clock: HybridClock,
    /// The longest unused first.
    sessions: Vec<Session>,
    forgotten: HybridClock,
    /// The entry under way.
    term: Term,
    index: Index,
    /// What it has changed so far, in order.
    changes: Vec<(Bytes, Version)>,
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
    pub(crate) fn apply(&mut self, shard: ShardId, entry: &LogEntry) -> (Vec<Reply>, Vec<(Bytes, Version)>) {
        (self.shard, self.term, self.index) = (shard, entry.term, entry.index);
        let Ok(Entry { clock, commands }) = Entry::decode(entry.payload.clone()) else {
            return (Vec::new(), Vec::new());
        };
        self.clock = clock;
        let replies = commands.iter().map(|stamped| self.execute(stamped)).collect();
        (replies, std::mem::take(&mut self.changes))
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
        match command {
            Command::Digest => {}
            Command::Put { key, value } => self.set(vec![(key.clone(), Some(value.clone()))]),
            Command::Delete { key } => self.set(vec![(key.clone(), None)]),
            Command::Increment { key, by } => {
                let before = match self.rows.get(key) {
                    None => Some(0),
                    Some((value, _)) => number(value).filter(|before| value == before.to_string().as_bytes()),
                };
                let Some(before) = before else { return failed(Code::FailedPrecondition) };
                let Some(value) = before.checked_add(*by) else { return failed(Code::OutOfRange) };
                self.set(vec![(key.clone(), Some(Bytes::from(value.to_string())))]);
                return Reply::Counted { value, receipt: self.receipt() };
            }
            Command::Write { parts } => {
                for (part, asked) in (0..).zip(parts) {
                    let row = self.rows.get(&asked.key);
                    let is_met = match &asked.condition {
                        None => true,
                        Some(Condition::Absent) => row.is_none(),
                        Some(Condition::Present) => row.is_some(),
                        Some(Condition::Revision(is)) => row.is_some_and(|(_, revision)| revision == is),
                        Some(Condition::Value(is)) => row.is_some_and(|(value, _)| value == is),
                    };
                    if !is_met {
                        let (key, revision) = (asked.key.clone(), row.map(|(_, revision)| *revision));
                        return Reply::NotMet { part, key, revision, at: self.index };
                    }
                }
                let change = |part: &ringfort_types::Part| match &part.change {
                    Change::Put(value) => Some((part.key.clone(), Some(value.clone()))),
                    Change::Delete => Some((part.key.clone(), None)),
                    Change::Keep => None,
                };
                self.set(parts.iter().filter_map(change).collect());
            }
        }
        Reply::Written(self.receipt())
    }

    fn set(&mut self, changes: Vec<(Bytes, Option<Bytes>)>) {
        self.revision.0 += u64::from(!changes.is_empty());
        for (key, value) in changes {
            let version = value.map(|value| (value, self.revision));
            match &version {
                Some(version) => self.rows.insert(key.clone(), version.clone()),
                None => self.rows.remove(&key),
            };
            self.changes.push((key, version));
        }
    }

    /// Without the number of copies, which is not the shard's to say.
    fn receipt(&self) -> Receipt {
        let (shard, term, index, revision) = (self.shard, self.term, self.index, self.revision);
        Receipt { shard, term, index, revision, copies: 0 }
    }
}

fn failed(code: Code) -> Reply {
    Reply::Failed(Failure::rejected(code, ""))
}

/// A decimal number.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A reply without what two tellings of it may differ in: how many copies there were, and how a failure is put.
pub(crate) fn bare(reply: &Reply) -> Reply {
    match reply.clone() {
        Reply::Written(receipt) => Reply::Written(Receipt { copies: 0, ..receipt }),
        Reply::Counted { value, receipt } => {
            Reply::Counted { value, receipt: Receipt { copies: 0, ..receipt } }
        }
        Reply::Failed(failure) => Reply::Failed(Failure { message: String::new(), ..failure }),
        other => other,
    }
}
