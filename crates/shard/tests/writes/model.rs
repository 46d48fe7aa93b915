//! One map that does one command after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::limits::TOMBSTONE_MS;
use ringfort_types::{
    Change, Code, Command, Condition, Failure, HybridClock, Index, Part, Receipt, Reply, Revision, Stamp,
    Stamped, Version,
};

use crate::{ID, TERM};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Bytes, (Bytes, Revision)>,
    pub(crate) revision: u64,
    /// The versions of rows that have one.
    versions: BTreeMap<Bytes, Version>,
    /// The versions that deleted keys had, and until when that counts, in milliseconds.
    tombstones: BTreeMap<Bytes, (Version, u64)>,
}

impl Model {
    pub(crate) fn apply(&mut self, index: u64, clock: HybridClock, command: &Command) -> Reply {
        let Command::Write { parts } = command else { return Reply::Written(self.receipt(index)) };
        for (at, part) in (0..).zip(parts) {
            if part.condition.as_ref().is_some_and(|condition| !self.is_met(&part.key, condition, clock)) {
                let (key, revision) = (part.key.clone(), self.rows.get(&part.key).map(|row| row.1));
                return Reply::NotMet { part: at, key, revision, at: Index(index) };
            }
        }
        let mut sums = Vec::new();
        for part in parts {
            let Change::Add(by) = part.change else { continue };
            let before = match self.rows.get(&part.key) {
                None => 0,
                Some((value, _)) => match std::str::from_utf8(value).unwrap().parse::<i64>() {
                    Ok(number) if *value == number.to_string() => number,
                    _ => return failed(Code::FailedPrecondition),
                },
            };
            let Some(sum) = before.checked_add(by) else { return failed(Code::OutOfRange) };
            sums.push(sum);
        }
        self.revision += u64::from(parts.iter().any(|part| part.change != Change::Keep));
        let mut left = sums.iter();
        for part in parts {
            self.change(part, &mut left, clock);
        }
        Reply::Written(Receipt { sums, ..self.receipt(index) })
    }

    fn is_met(&self, key: &Bytes, condition: &Condition, clock: HybridClock) -> bool {
        let row = self.rows.get(key);
        match condition {
            Condition::Absent => row.is_none(),
            Condition::Present => row.is_some(),
            Condition::Revision(revision) => row.is_some_and(|row| row.1 == *revision),
            Condition::Value(value) => row.is_some_and(|row| row.0 == value),
            Condition::NotNewerThan(version) => {
                let tombstone = self.tombstones.get(key).filter(|(_, until)| clock.wall_ms() < *until);
                let is = self.versions.get(key).or(tombstone.map(|(version, _)| version));
                is.is_none_or(|is| is <= version)
            }
        }
    }

    fn change<'a>(&mut self, part: &Part, sums: &mut impl Iterator<Item = &'a i64>, clock: HybridClock) {
        let key = part.key.clone();
        if part.change == Change::Keep {
            return;
        }
        self.rows.remove(&key);
        self.versions.remove(&key);
        self.tombstones.remove(&key);
        match &part.change {
            Change::Put(new) => {
                self.versions.extend(new.version.map(|version| (key.clone(), version)));
                self.rows.insert(key, (new.value.clone(), Revision(self.revision)));
            }
            Change::Add(_) => {
                let sum = sums.next().unwrap().to_string();
                self.rows.insert(key, (sum.into(), Revision(self.revision)));
            }
            Change::Delete { version } => {
                let until = clock.wall_ms() + TOMBSTONE_MS;
                self.tombstones.extend(version.map(|version| (key, (version, until))));
            }
            Change::Keep => unreachable!("looked at above"),
        }
    }

    fn receipt(&self, index: u64) -> Receipt {
        let revision = Revision(self.revision);
        Receipt { shard: ID, term: TERM, index: Index(index), revision, copies: 1, ..Receipt::default() }
    }
}

/// Sessions as a list, the longest unused first.
#[derive(Clone, Debug)]
pub(crate) struct SessionModel {
    pub(crate) model: Model,
    sessions: Vec<Remembered>,
    forgotten: u64,
    limits: ringfort_shard::SessionLimits,
}

#[derive(Clone, Debug)]
struct Remembered {
    client: u128,
    last: u64,
    floor: u64,
    used_at: u64,
    replies: Vec<(u64, Reply)>,
}

impl SessionModel {
    pub(crate) fn new(limits: ringfort_shard::SessionLimits) -> SessionModel {
        SessionModel { model: Model::default(), sessions: Vec::new(), forgotten: 0, limits }
    }

    pub(crate) fn apply(&mut self, index: u64, clock: u64, stamped: &Stamped) -> Reply {
        let Some(stamp) = &stamped.stamp else {
            return self.model.apply(index, HybridClock(clock), &stamped.command);
        };
        let Stamp { client, sequence, prev, floor, opened } = *stamp;
        let at = self.sessions.iter().position(|session| session.client == client);
        if at.is_none() {
            if opened.0 > clock {
                return failed(Code::InvalidArgument);
            }
            if opened.0 < self.forgotten {
                return failed(Code::SessionExpired);
            }
        }
        let fresh = Remembered { client, last: 0, floor: 0, used_at: 0, replies: Vec::new() };
        let mut session = at.map_or(fresh, |at| self.sessions[at].clone());
        let known = session.replies.iter().find(|(of, _)| *of == sequence).map(|(_, reply)| reply.clone());
        if known.is_none() {
            if sequence <= session.floor {
                return failed(Code::FailedPrecondition);
            }
            if prev != session.last {
                return failed(Code::SessionGap);
            }
        }
        session.floor = session.floor.max(floor);
        session.replies.retain(|(of, _)| *of > session.floor);
        if known.is_none() && session.replies.len() >= self.limits.session_outcomes {
            return failed(Code::ResourceExhausted);
        }
        session.used_at = clock;
        let reply = known.unwrap_or_else(|| {
            session.last = sequence;
            let reply = self.model.apply(index, HybridClock(clock), &stamped.command);
            session.replies.push((sequence, reply.clone()));
            reply
        });
        if let Some(at) = at {
            self.sessions.remove(at);
        }
        self.sessions.push(session);
        let outcomes = |sessions: &[Remembered]| sessions.iter().map(|one| one.replies.len()).sum::<usize>();
        while self.sessions.len() > self.limits.sessions || outcomes(&self.sessions) > self.limits.outcomes {
            self.forgotten = self.forgotten.max(self.sessions.remove(0).used_at);
        }
        reply
    }
}

pub(crate) fn failed(code: Code) -> Reply {
    Reply::Failed(Failure::rejected(code, ""))
}

/// Without what a failure says to people.
pub(crate) fn terse(reply: Reply) -> Reply {
    match reply {
        Reply::Failed(failure) => Reply::Failed(Failure { message: String::new(), ..failure }),
        other => other,
    }
}
