//! Sessions: what a shard remembers of its clients' last writes, so that one that is sent again is not done again.
//!
//! A session is known by its client's number. Of its writes the shard keeps the outcomes above the *floor*, up to
//! which the client has said that it knows them. What comes with a stamp is one of these:
//!
//! | the session | the sequence | |
//! |---|---|---|
//! | known | has an outcome | told again, exactly |
//! | known | follows the last one (`prev`) | done, and remembered |
//! | known | at or below the floor | refused: its client knows what came of it |
//! | known | anything else | `SESSION_GAP`: an earlier one is missing |
//! | unknown, opened at or after the last use of any that was forgotten | its client's first (`prev` is 0) | done: the session begins |
//! | unknown, opened then | not the first | `SESSION_GAP` |
//! | unknown, opened before | | `SESSION_EXPIRED`: it may be one that was forgotten |
//!
//! **Forgetting.** Beyond a bound on sessions, or on outcomes over all of them, the session that was longest unused
//! goes, in the order of the log, so that all replicas forget the same. All that is kept of those who went is the
//! latest time at which any was last used. That suffices: a session is used after it was opened, so one that was
//! opened at that time or later was never forgotten. A session in use is forgotten too if there are too many; its
//! client learns it, and nothing is done twice.
//!
//! **Refusals leave no trace.** They change nothing, also not when the session was last used.
//!
//! In memory while the shard runs; [`Sessions::take_rows`] brings what has changed into the table whenever it is
//! sealed. What has changed since then is in the log, like all else.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_storage::{StorageError, Table};
use ringfort_types::limits::{SESSION_OUTCOMES_MAX, SHARD_OUTCOMES_MAX, SHARD_SESSIONS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{Code, Failure, HybridClock, Index, Stamp};
use xxhash_rust::xxh3::Xxh3;

use crate::outcome::{OUTCOME_BYTES_MIN, Outcome};
use crate::row::{PREFIX_BYTES, SESSIONS_END, SESSIONS_KEY, session_key};

const VERSION: u8 = 1;
/// Uses that are kept although they mean nothing, besides one for each session.
const USES_SPARE: usize = 64;

/// How much a shard remembers. All replicas of a cluster must have the same, or they would forget differently; that
/// is why no operator can set it, but only who simulates a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Most sessions of a shard.
    pub sessions: usize,
    /// Most outcomes of a shard, over all sessions. At least `session_outcomes`.
    pub outcomes: usize,
    /// Most outcomes of one session.
    pub session_outcomes: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            sessions: SHARD_SESSIONS_MAX,
            outcomes: SHARD_OUTCOMES_MAX,
            session_outcomes: SESSION_OUTCOMES_MAX,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    /// The last sequence that was done.
    last: u64,
    /// Outcomes up to here are forgotten.
    floor: u64,
    /// The shard's number for its last use, and when that was.
    used: u64,
    used_at: HybridClock,
    /// Of `last`, if that is above `floor`. Beside the others, because most sessions never have more.
    newest: Option<Outcome>,
    /// By sequence, rising; above `floor`, and below `last`.
    earlier: VecDeque<(u64, Outcome)>,
    /// The table has it otherwise, or not at all. Says nothing about the session itself.
    is_changed: bool,
}

/// All sessions of a shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: SessionLimits,
    by_client: BTreeMap<u128, Session>,
    /// Uses in their order, each with whose it was, and among them the last one of every session. The others mean nothing,
    /// and go now and then.
    by_use: VecDeque<(u64, u128)>,
    /// The number of the last use.
    uses: u64,
    /// Over all sessions.
    outcomes: usize,
    /// The latest last use of a session that was forgotten.
    forgotten: HybridClock,
    /// Those that the table has otherwise, or still has.
    changed: Vec<u128>,
}

/// Why sessions could not be read back.
pub(crate) enum Unread {
    Storage(StorageError),
    Malformed(Malformed),
}

impl Sessions {
    /// Reads what the table has of them at this index.
    pub(crate) fn open(table: &dyn Table, at: Index, limits: SessionLimits) -> Result<Sessions, Unread> {
        let mut all = Sessions {
            limits,
            by_client: BTreeMap::new(),
            by_use: VecDeque::new(),
            uses: 0,
            outcomes: 0,
            forgotten: HybridClock(0),
            changed: Vec::new(),
        };
        let mut malformed = None;
        let mut each = |key: &[u8], row: &Bytes| match all.read(key, row.clone()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                malformed = Some(why);
                ControlFlow::Break(())
            }
        };
        table.scan(&SESSIONS_KEY, Some(&SESSIONS_END), at, &mut each).map_err(Unread::Storage)?;
        all.by_use.make_contiguous().sort_unstable();
        malformed.map_or(Ok(all), |why| Err(Unread::Malformed(why)))
    }

    fn read(&mut self, key: &[u8], row: Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(row);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a session row"));
        }
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on a session row"));
        }
        if key == SESSIONS_KEY {
            self.uses = reader.varint()?;
            self.forgotten = HybridClock(reader.u64()?);
            return reader.finish();
        }
        let client = <[u8; 16]>::try_from(&key[PREFIX_BYTES..]);
        let client = u128::from_be_bytes(client.map_err(|_| Malformed("not the key of a session row"))?);
        let session = Session::decode(&mut reader)?;
        reader.finish()?;
        self.outcomes += session.outcomes();
        self.by_use.push_back((session.used, client));
        self.by_client.insert(client, session);
        Ok(())
    }

    /// Whether the command with this stamp, in an entry of this clock, is to be done; or what came of it before; or
    /// why neither.
    pub(crate) fn judge(&self, stamp: &Stamp, clock: HybridClock) -> Result<Option<Outcome>, Failure> {
        let Stamp { sequence, prev, floor, opened, .. } = *stamp;
        let Some(session) = self.by_client.get(&stamp.client) else {
            if opened > clock {
                return Err(Failure::rejected(
                    Code::InvalidArgument,
                    "the session claims to be of the future: open it at this shard before its first write",
                ));
            }
            if opened < self.forgotten && !planted::is(Bug::ForgottenSessionExecuted) {
                return Err(Failure::rejected(
                    Code::SessionExpired,
                    "the session is not known here, or not any more: open a new one. If this write was sent before, \
                     it may have been done then",
                ));
            }
            return if prev == 0 { Ok(None) } else { Err(gap(prev, 0)) };
        };
        if let Some(outcome) = session.outcome(sequence) {
            let forgets = planted::is(Bug::OutcomeNotRemembered);
            return Ok(Some(outcome).filter(|_| !forgets));
        }
        if sequence <= session.floor {
            return Err(Failure::rejected(
                Code::FailedPrecondition,
                format!(
                    "write {sequence} of this session was answered long ago: its client said that it knows everything \
                     up to {}",
                    session.floor
                ),
            ));
        }
        if prev != session.last {
            return Err(gap(prev, session.last));
        }
        let left = session.outcomes_above(floor);
        if left >= self.limits.session_outcomes {
            return Err(Failure::rejected(
                Code::ResourceExhausted,
                format!("{left} writes of this session are unanswered: wait for some, and then go on"),
            ));
        }
        Ok(None)
    }

    /// The command with this stamp was done, with this outcome.
    pub(crate) fn remember(&mut self, stamp: &Stamp, clock: HybridClock, outcome: Outcome) {
        let session = self.enter(stamp, clock);
        let before = session.newest.replace(outcome).map(|before| (session.last, before));
        session.earlier.extend(before.filter(|(sequence, _)| *sequence < stamp.sequence));
        session.last = stamp.sequence;
        self.outcomes += 1;
        while self.by_client.len() > self.limits.sessions || self.outcomes > self.limits.outcomes {
            self.forget_one();
        }
    }

    /// A command of the session has come again.
    pub(crate) fn touch(&mut self, stamp: &Stamp, clock: HybridClock) {
        self.enter(stamp, clock);
    }

    /// The session is in use, and its client knows what came of everything up to its floor.
    fn enter(&mut self, stamp: &Stamp, clock: HybridClock) -> &mut Session {
        self.uses += 1;
        if self.by_use.len() >= 2 * self.by_client.len() + USES_SPARE {
            let sessions = &self.by_client;
            self.by_use
                .retain(|(used, client)| sessions.get(client).is_some_and(|session| session.used == *used));
        }
        self.by_use.push_back((self.uses, stamp.client));
        let session = self.by_client.entry(stamp.client).or_default();
        if !std::mem::replace(&mut session.is_changed, true) {
            self.changed.push(stamp.client);
        }
        (session.used, session.used_at) = (self.uses, clock);
        session.floor = session.floor.max(stamp.floor);
        let floor = session.floor;
        while session.earlier.pop_front_if(|(sequence, _)| *sequence <= floor).is_some() {
            self.outcomes -= 1;
        }
        if session.last <= floor && session.newest.take().is_some() {
            self.outcomes -= 1;
        }
        session
    }

    /// Forgets the session that was longest unused. The one in use now is the last of all, and within the limits by
    /// itself, so it stays.
    fn forget_one(&mut self) {
        while let Some((used, client)) = self.by_use.pop_front() {
            if self.by_client.get(&client).is_none_or(|session| session.used != used) {
                continue;
            }
            if let Some(session) = self.by_client.remove(&client) {
                self.outcomes -= session.outcomes();
                self.forgotten = self.forgotten.max(session.used_at);
                if !session.is_changed {
                    self.changed.push(client);
                }
            }
            return;
        }
    }

    /// Rows for all that has changed since the last time.
    pub(crate) fn take_rows(&mut self, rows: &mut Vec<(Bytes, Option<Bytes>)>) {
        if self.changed.is_empty() {
            return;
        }
        // One that was forgotten and has begun anew may be named twice.
        self.changed.sort_unstable();
        self.changed.dedup();
        for client in std::mem::take(&mut self.changed) {
            let session = self.by_client.get_mut(&client);
            let row = session.map(|session| {
                session.is_changed = false;
                session.encode()
            });
            rows.push((session_key(client), row));
        }
        rows.push((Bytes::from_static(&SESSIONS_KEY), Some(self.encode())));
    }

    /// XXH3 over the row of all sessions together, and then, in the order of the clients' numbers, each one's number
    /// (big-endian) and row.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.encode());
        for (client, session) in &self.by_client {
            hash.update(&client.to_be_bytes());
            hash.update(&session.encode());
        }
        hash.digest()
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(20);
        out.put_slice(&[VERSION, 0]);
        put_varint(&mut out, self.uses);
        out.put_u64_le(self.forgotten.0);
        out.freeze()
    }
}

impl Session {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + 16 * self.outcomes());
        out.put_slice(&[VERSION, 0]);
        put_varint(&mut out, self.last);
        put_varint(&mut out, self.floor);
        put_varint(&mut out, self.used);
        out.put_u64_le(self.used_at.0);
        put_varint(&mut out, self.outcomes() as u64);
        let earlier = self.earlier.iter().map(|(sequence, outcome)| (*sequence, outcome));
        for (sequence, outcome) in earlier.chain(self.newest.as_ref().map(|newest| (self.last, newest))) {
            put_varint(&mut out, sequence);
            outcome.encode(&mut out);
        }
        out.freeze()
    }

    /// What came of this write, if it is remembered.
    fn outcome(&self, of: u64) -> Option<Outcome> {
        if of == self.last {
            return self.newest.clone();
        }
        let at = self.earlier.binary_search_by_key(&of, |(sequence, _)| *sequence).ok()?;
        Some(self.earlier[at].1.clone())
    }

    /// How many are remembered.
    fn outcomes(&self) -> usize {
        self.earlier.len() + usize::from(self.newest.is_some())
    }

    /// How many of them are of writes after this one.
    fn outcomes_above(&self, floor: u64) -> usize {
        let newest = self.newest.is_some() && self.last > floor;
        let known = self.earlier.partition_point(|(sequence, _)| *sequence <= floor);
        self.earlier.len() - known + usize::from(newest)
    }

    /// What comes after version and flags.
    fn decode(reader: &mut Reader) -> Result<Session, Malformed> {
        let mut session = Session {
            last: reader.varint()?,
            floor: reader.varint()?,
            used: reader.varint()?,
            used_at: HybridClock(reader.u64()?),
            newest: None,
            earlier: VecDeque::new(),
            is_changed: false,
        };
        for _ in 0..reader.count(1 + OUTCOME_BYTES_MIN)? {
            let (sequence, outcome) = (reader.varint()?, Outcome::decode(reader)?);
            if sequence == session.last {
                session.newest = Some(outcome);
            } else {
                session.earlier.push_back((sequence, outcome));
            }
        }
        Ok(session)
    }
}

fn gap(prev: u64, last: u64) -> Failure {
    let message = if last == 0 {
        format!(
            "nothing of this session has come here yet, and this write follows write {prev}: resend in order"
        )
    } else {
        format!(
            "this write follows write {prev} of its session, and the last one here is {last}: resend in order"
        )
    };
    Failure::rejected(Code::SessionGap, message)
}
