//! One map that does one command after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{
    Change, Code, Command, Condition, Failure, Index, Receipt, Reply, Revision, Stamp, Stamped,
};

use crate::{ID, TERM};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Bytes, (Bytes, Revision)>,
    pub(crate) revision: u64,
}

impl Model {
    pub(crate) fn apply(&mut self, index: u64, command: &Command) -> Reply {
        let is_met = |row: Option<&(Bytes, Revision)>, condition: &Condition| match condition {
            Condition::Absent => row.is_none(),
            Condition::Present => row.is_some(),
            Condition::Revision(revision) => row.is_some_and(|row| row.1 == *revision),
            Condition::Value(value) => row.is_some_and(|row| row.0 == value),
        };
        match command {
            Command::Digest => {}
            Command::Put { key, value } => self.set(&[(key.clone(), Some(value.clone()))]),
            Command::Delete { key } => self.set(&[(key.clone(), None)]),
            Command::Increment { key, by } => {
                let before = match self.rows.get(key) {
                    None => 0,
                    Some((value, _)) => match std::str::from_utf8(value).unwrap().parse::<i64>() {
                        Ok(number) if *value == number.to_string() => number,
                        _ => return failed(Code::FailedPrecondition),
                    },
                };
                let Some(value) = before.checked_add(*by) else { return failed(Code::OutOfRange) };
                self.set(&[(key.clone(), Some(value.to_string().into()))]);
                return Reply::Counted { value, receipt: self.receipt(index) };
            }
            Command::Write { parts } => {
                for (at, part) in (0..).zip(parts) {
                    let row = self.rows.get(&part.key);
                    if part.condition.as_ref().is_some_and(|condition| !is_met(row, condition)) {
                        let (key, revision) = (part.key.clone(), row.map(|row| row.1));
                        return Reply::NotMet { part: at, key, revision, at: Index(index) };
                    }
                }
                let mut changes = Vec::new();
                for part in parts {
                    match &part.change {
                        Change::Put(value) => changes.push((part.key.clone(), Some(value.clone()))),
                        Change::Delete => changes.push((part.key.clone(), None)),
                        Change::Keep => {}
                    }
                }
                self.set(&changes);
            }
        }
        Reply::Written(self.receipt(index))
    }

    fn set(&mut self, changes: &[(Bytes, Option<Bytes>)]) {
        self.revision += u64::from(!changes.is_empty());
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key.clone(), (value.clone(), Revision(self.revision))),
                None => self.rows.remove(key),
            };
        }
    }

    fn receipt(&self, index: u64) -> Receipt {
        let revision = Revision(self.revision);
        Receipt { shard: ID, term: TERM, index: Index(index), revision, copies: 1 }
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
        let Some(stamp) = &stamped.stamp else { return self.model.apply(index, &stamped.command) };
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
            let reply = self.model.apply(index, &stamped.command);
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
