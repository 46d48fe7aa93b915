//! Reads from the tables, by whoever asks.

use std::sync::{PoisonError, RwLock};

use ringfort_shard::ShardReader;
use ringfort_types::{Code, Failure, Index, Reply, Request, ShardId};

use crate::delivery::ReadAt;
use crate::horizon::{Horizon, Reading, Reason};

/// A list of at most so many rows is brief.
pub(crate) const BRIEF_ROWS_MAX: u32 = 128;

/// All local shards' tables, each once it is open.
#[derive(Debug)]
pub(crate) struct Readers {
    /// By number. Each can be replaced, when a snapshot becomes the shard's table, or go.
    shards: Vec<RwLock<Option<ShardReader>>>,
    pub(crate) horizon: Horizon,
}

impl Readers {
    /// For shards up to this number; none is open yet.
    pub(crate) fn new(last: u32) -> Readers {
        Readers { shards: (0..=last).map(|_| RwLock::default()).collect(), horizon: Horizon::default() }
    }

    /// A shard has this table from now on. Reads under way go on with the one before, if there was one.
    pub(crate) fn set(&self, reader: ShardReader) {
        let place = &self.shards[reader.shard().0 as usize];
        *place.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// A shard has none any more.
    pub(crate) fn close(&self, shard: ShardId) {
        *self.shards[shard.0 as usize].write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reader(&self, shard: ShardId) -> Option<ShardReader> {
        self.shards.get(shard.0 as usize)?.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this read may take so long that it should not hold up other work on its thread.
    pub(crate) fn is_long(request: &Request) -> bool {
        !matches!(request, Request::Get { .. } | Request::GetMany { .. } | Request::OpenSession { .. })
    }

    /// Whether a later index than the one that it was given will do as well: a get of several keys sees them all at the
    /// same, and a scan's first page names the one for its other pages.
    fn may_read_later(request: &Request) -> bool {
        match request {
            Request::Scan(scan) => scan.at.is_none(),
            _ => !Self::is_long(request),
        }
    }

    /// Does the read.
    pub(crate) fn query(&self, read: &ReadAt) -> Reply {
        match self.reader(read.shard) {
            Some(reader) => match self.query_at(&reader, read, read.at) {
                // Whoever asked has let so much time pass that its index is gone.
                Reply::Failed(gone)
                    if gone.code == Code::FailedPrecondition && Self::may_read_later(&read.request) =>
                {
                    // All three are applied.
                    let at = self.horizon.newest(read.shard).max(read.at).max(reader.collected());
                    self.query_at(&reader, read, at)
                }
                reply => reply,
            },
            None => {
                Reply::Failed(Failure::rejected(Code::Unavailable, "this node has no replica of that shard"))
            }
        }
    }

    /// Whether this is the first page of a list of so few rows that they fit into one frame, as a rule, so that whoever gets some of them
    /// gets them all. (A list with more rows may be continued at another node, which asks each shard again.)
    fn is_brief(request: &Request) -> bool {
        matches!(request, Request::Scan(scan) if scan.at.is_none() && scan.rows_max <= BRIEF_ROWS_MAX)
    }

    /// Whether a list that has got this page comes back to the shard for more.
    fn has_more(request: &Request, reply: &Reply) -> bool {
        match (request, reply) {
            (Request::Scan(scan), Reply::Page(page)) => {
                page.next.is_some() && page.rows.len() < scan.rows_max as usize
            }
            _ => false,
        }
    }

    /// Does it at this index, which is held if the read is long.
    fn query_at(&self, reader: &ShardReader, read: &ReadAt, at: Index) -> Reply {
        if !Self::is_long(&read.request) {
            return reader.query(&read.request, at);
        }
        if Self::is_brief(&read.request) {
            let reply = reader.query(&read.request, at);
            if !Self::has_more(&read.request, &reply) {
                return reply;
            }
            // Once more, held before it begins.
        }
        let begins = Self::may_read_later(&read.request);
        let reading = if begins { Reading::Begins } else { Reading::GoesOn };
        let is_by_itself = match self.horizon.hold(read.shard, at, reading) {
            Ok(is_by_itself) => is_by_itself,
            Err(reason) => return Reply::Failed(given_up(read.shard, at, reason)),
        };
        let reply = reader.query(&read.request, at);
        if is_by_itself && at < reader.collected() {
            self.horizon.release(read.shard, at);
        }
        reply
    }
}

fn given_up(shard: ShardId, at: Index, reason: Reason) -> Failure {
    Failure::rejected(
        Code::FailedPrecondition,
        format!(
            "shard {shard} can't be read at index {at} any more: {reason}; go on from the last key at a new index, or begin anew"
        ),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_shard::{SessionLimits, Shard};
    use ringfort_storage::{MemoryTables, Tables};
    use ringfort_types::{Configuration, Consistency, EntryKind, LogEntry, Scan, Term};

    use super::*;

    #[test]
    fn what_may_read_later_does_when_its_index_is_gone() {
        let shard = ShardId(1);
        let table = MemoryTables::new().open(shard).unwrap();
        let readers = Readers::new(1);
        let mut shard_of_rows =
            Shard::open(shard, table.clone(), &Configuration::default(), SessionLimits::default()).unwrap();
        readers.set(shard_of_rows.reader());
        for index in (1..=9).map(Index) {
            table.write(index, &[("row".into(), Some("value".into()))]);
            let (term, kind, payload) = (Term(1), EntryKind::Normal, Bytes::new());
            shard_of_rows.apply(&LogEntry { index, term, kind, payload }, 0).unwrap();
        }
        table.compact(Index(7)).unwrap();
        readers.horizon.remember(vec![Index(0), Index(9)]);

        let scan = |at: Option<u64>| {
            Request::Scan(Scan {
                shard,
                at: at.map(Index),
                from: Bytes::new(),
                prefix: Bytes::new(),
                rows_max: BRIEF_ROWS_MAX + 1,
                bytes_max: 1,
                keys_only: false,
            })
        };
        let brief = |rows_max, bytes_max| {
            let Request::Scan(scan) = scan(None) else { unreachable!("it is one") };
            let request = Request::Scan(Scan { rows_max, bytes_max, ..scan });
            readers.query(&ReadAt { shard, at: Index(9), request })
        };
        assert!(matches!(brief(1, 100), Reply::Page(page) if page.next.is_none()));
        assert_eq!(readers.horizon.held(shard), None, "nobody comes back for more");
        let page = |at: Option<u64>| readers.query(&ReadAt { shard, at: Index(3), request: scan(at) });
        assert!(
            matches!(page(None), Reply::Page(page) if page.at == Index(9)),
            "a first page names its index"
        );
        assert_eq!(readers.horizon.held(shard), Some(Index(9)), "what is gone is not held");
        assert!(matches!(page(Some(3)), Reply::Failed(gone) if gone.code == Code::FailedPrecondition));
        assert_eq!(readers.horizon.give_up(shard, Reason::DiskFull), Some(Index(9)));
        let gone = readers.query(&ReadAt { shard, at: Index(9), request: scan(Some(9)) });
        assert!(matches!(gone, Reply::Failed(gone) if gone.message.contains("the disk is full")));
        let get = Request::GetMany { keys: vec!["key".into()], consistency: Consistency::default() };
        let Reply::Values { at, .. } = readers.query(&ReadAt { shard, at: Index(3), request: get }) else {
            panic!("a get of several keys sees them at a later index");
        };
        assert_eq!(at, Index(9));
    }
}
