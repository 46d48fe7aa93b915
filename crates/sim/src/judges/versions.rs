//! Where clients have an order of their own, the newest write of a key stays, whichever comes first, also once the key was
//! deleted (DESIGN §4). Judged by what clients hear of keys that are only written with versions, under the condition that
//! the key is not newer:
//!
//! - a read that began after a write of a version was acknowledged shows no older one; if it shows nothing, there was a
//!   delete that is not older;
//! - no write is done that began after a newer one was acknowledged;
//! - none is refused unless there is a newer one.
//!
//! A tombstone counts for a day; no run is that long.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{Change, Condition, Part, Reply, Request, Version};

use super::{Broken, broken};

const NAME: &str = "a newer version stays, whichever comes first";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    Unknown,
}

#[derive(Debug)]
struct Write {
    version: Version,
    /// `None` for a delete.
    value: Option<Bytes>,
    outcome: Outcome,
    invoked_us: u64,
    /// `u64::MAX` if it is not known to be over.
    returned_us: u64,
}

#[derive(Debug)]
struct Read {
    seen: Option<Bytes>,
    invoked_us: u64,
    returned_us: u64,
}

#[derive(Debug, Default)]
struct Key {
    writes: Vec<Write>,
    reads: Vec<Read>,
}

#[derive(Debug, Default)]
pub(crate) struct Versions {
    keys: BTreeMap<Bytes, Key>,
}

impl Versions {
    /// A client knows what came of a write, or that it never will (`None`).
    pub(crate) fn wrote(
        &mut self,
        request: &Request,
        reply: Option<&Reply>,
        invoked_us: u64,
        returned_us: Option<u64>,
    ) {
        let Request::Write { parts } = request else { return };
        let [Part { key, condition: Some(Condition::NotNewerThan(version)), change }] = &parts[..] else {
            return;
        };
        let value = if let Change::Put(new) = change { Some(new.value.clone()) } else { None };
        let outcome = match reply {
            Some(Reply::Written(_)) => Outcome::Done,
            Some(Reply::NotMet { .. }) => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        let returned_us = returned_us.unwrap_or(u64::MAX);
        let write = Write { version: *version, value, outcome, invoked_us, returned_us };
        self.keys.entry(key.clone()).or_default().writes.push(write);
    }

    /// A client has read a key.
    pub(crate) fn read(&mut self, key: &Bytes, seen: Option<&Bytes>, invoked_us: u64, returned_us: u64) {
        let read = Read { seen: seen.cloned(), invoked_us, returned_us };
        self.keys.entry(key.clone()).or_default().reads.push(read);
    }

    /// What is broken in a finished history.
    pub(crate) fn find(&self) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (key, Key { writes, reads }) in &self.keys {
            let floor = |before_us: u64| {
                let done = writes.iter().filter(|write| write.outcome == Outcome::Done);
                done.filter(|write| write.returned_us < before_us).map(|write| write.version).max()
            };
            for read in reads {
                let Some(floor) = floor(read.invoked_us) else { continue };
                let may_show = |write: &Write| {
                    write.value == read.seen
                        && write.version >= floor
                        && write.outcome != Outcome::Refused
                        && write.invoked_us <= read.returned_us
                };
                if !writes.iter().any(may_show) {
                    broken.push(broken!(
                        NAME,
                        "{key:?} is older than version {floor} when it is read: {read:?}"
                    ));
                }
            }
            for write in writes {
                let is_newer = |other: &Write| {
                    other.version > write.version
                        && other.outcome != Outcome::Refused
                        && other.invoked_us <= write.returned_us
                };
                match write.outcome {
                    Outcome::Done if floor(write.invoked_us) > Some(write.version) => {
                        broken.push(broken!(NAME, "{key:?} is written after a newer version: {write:?}"));
                    }
                    Outcome::Refused if !writes.iter().any(is_newer) => {
                        broken.push(broken!(
                            NAME,
                            "{key:?} has no newer version than what is refused: {write:?}"
                        ));
                    }
                    _ => {}
                }
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Index, NewValue, Receipt};

    use super::*;

    fn key() -> Bytes {
        "k".into()
    }

    /// A put, or a delete without a value.
    fn write(version: u64, value: Option<&'static str>) -> Request {
        let version = Version(version);
        let change = match value {
            Some(value) => Change::Put(NewValue { value: value.into(), version: Some(version) }),
            None => Change::Delete { version: Some(version) },
        };
        Request::Write {
            parts: vec![Part { key: key(), condition: Some(Condition::NotNewerThan(version)), change }],
        }
    }

    fn done() -> Reply {
        Reply::Written(Receipt::default())
    }

    fn refused() -> Reply {
        Reply::NotMet { part: 0, key: key(), revision: None, at: Index(1) }
    }

    /// Writes one after the other, ten apart, and then a read.
    fn found(writes: &[(Request, Option<Reply>)], seen: Option<&'static str>) -> usize {
        let mut judge = Versions::default();
        for (at, (request, reply)) in (1..).zip(writes) {
            let returned_us = reply.as_ref().map(|_| at * 10 + 5);
            judge.wrote(request, reply.as_ref(), at * 10, returned_us);
        }
        judge.read(&key(), seen.map(Bytes::from).as_ref(), 1_000, 1_005);
        judge.find().len()
    }

    #[test]
    fn a_read_shows_nothing_older_than_what_was_acknowledged() {
        let writes = [(write(2, Some("b")), Some(done())), (write(1, Some("a")), Some(refused()))];
        assert_eq!(found(&writes, Some("b")), 0);
        assert_eq!(found(&writes, Some("a")), 1);
        assert_eq!(found(&writes, None), 1, "nobody has deleted it");
        let in_doubt = [(write(2, Some("b")), Some(done())), (write(3, None), None)];
        assert_eq!((found(&in_doubt, Some("b")), found(&in_doubt, None)), (0, 0));
    }

    #[test]
    fn a_deleted_key_does_not_come_back() {
        let revived = [(write(2, None), Some(done())), (write(1, Some("late")), Some(done()))];
        assert_eq!(found(&revived, Some("late")), 2, "it was done, and it is seen");
        let kept = [(write(2, None), Some(done())), (write(1, Some("late")), Some(refused()))];
        assert_eq!((found(&kept, None), found(&kept, Some("late"))), (0, 1));
    }

    #[test]
    fn nothing_is_refused_without_a_newer_one() {
        assert_eq!(found(&[(write(2, Some("a")), Some(refused()))], None), 1);
        assert_eq!(found(&[(write(2, None), Some(done())), (write(2, Some("a")), Some(refused()))], None), 1);
        assert_eq!(found(&[(write(3, None), None), (write(2, Some("a")), Some(refused()))], None), 0);
    }
}
