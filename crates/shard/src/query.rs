//! The readers: questions answered from the table at a named index.
//!
//! An index names a state: whatever is applied meanwhile, all pages of a scan and all replicas' digests at one
//! index are about the same rows.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_storage::{StorageError, Table};
use ringfort_types::limits::{GET_MANY_BYTES_MAX, SCAN_PAGE_BYTES, SCAN_PAGE_LOOKS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::Malformed;
use ringfort_types::{
    Code, Failure, HybridClock, Index, Page, Reply, Request, Revision, Row, Scan, ShardId, shown,
};
use xxhash_rust::xxh3::Xxh3;

use crate::row::{LookupKey, PREFIX_BYTES, ROWS_END, Stored};

/// What a row adds to an answer besides its key and value, in bytes. Bounds the rows of a page whose values are
/// left out.
const ROW_OVERHEAD_BYTES: usize = 16;

/// How far a shard has come, as its readers know it: as far as any index that they are given, or a little further.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    applied: AtomicU64,
    revision: AtomicU64,
    clock: AtomicU64,
}

impl Newest {
    pub(crate) fn set(&self, applied: Index, revision: Revision, clock: HybridClock) {
        self.applied.store(applied.0, Ordering::Release);
        self.revision.store(revision.0, Ordering::Release);
        self.clock.store(clock.0, Ordering::Release);
    }
}

/// Reads one shard's table. Cheap to clone; any number may be in use at once.
#[derive(Clone, Debug)]
pub struct ShardReader {
    shard: ShardId,
    table: Arc<dyn Table>,
    newest: Arc<Newest>,
}

impl ShardReader {
    pub(crate) fn new(shard: ShardId, table: Arc<dyn Table>, newest: Arc<Newest>) -> ShardReader {
        ShardReader { shard, table, newest }
    }

    /// Whose rows.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The lowest index at which it can be read.
    pub fn collected(&self) -> Index {
        self.table.collected()
    }

    /// How many commands have changed something so far.
    pub fn revision(&self) -> Revision {
        Revision(self.newest.revision.load(Ordering::Acquire))
    }

    /// Answers questions as of `at`, which must be applied. Orders are not a reader's business and are refused.
    pub fn query(&self, request: &Request, at: Index) -> Reply {
        // Only a replica that was made anew since the index was given: what it has not yet is not absent.
        if at.0 > self.newest.applied.load(Ordering::Acquire) {
            let why = format!(
                "the replica of shard {} here was made anew, and has not come to index {at}",
                self.shard
            );
            return Reply::Failed(Failure::rejected(Code::Unavailable, why));
        }
        let answer = match request {
            Request::Get { key, .. } => self.get(key, at),
            Request::GetMany { keys, .. } => self.get_many(keys, at),
            Request::Scan(scan) => self.scan(scan, at).map(Reply::Page),
            Request::DigestAt { index, .. } if *index > at => Err(Failure::rejected(
                Code::FailedPrecondition,
                format!(
                    "shard {} has no index {index}: its log ends at {at}; ask for a mark's index",
                    self.shard
                ),
            )),
            Request::DigestAt { .. } => self.digest(at),
            // Whatever is proposed from now on has a later clock than any entry that is applied.
            Request::OpenSession { .. } => {
                Ok(Reply::Opened { clock: HybridClock(self.newest.clock.load(Ordering::Acquire)) })
            }
            _ => Err(Failure::rejected(Code::InvalidArgument, "a reader answers questions only")),
        };
        answer.unwrap_or_else(Reply::Failed)
    }

    fn get(&self, key: &Bytes, at: Index) -> Result<Reply, Failure> {
        Ok(Reply::Value { row: self.row(key, at)?, at, revision: self.revision() })
    }

    fn row(&self, key: &Bytes, at: Index) -> Result<Option<Row>, Failure> {
        let row = match self.table.get(&LookupKey::new(key), at) {
            Err(error) if error.is_damage() && planted::is(Bug::DamageReadAsAbsent) => None,
            read => read.map_err(|e| self.unreadable(&e))?,
        };
        let stored = row.map(|row| Stored::decode(row).map_err(|e| self.damaged(key, e))).transpose()?;
        Ok(stored.and_then(Stored::into_row))
    }

    fn get_many(&self, keys: &[Bytes], at: Index) -> Result<Reply, Failure> {
        let mut rows = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        for key in keys {
            let row = self.row(key, at)?;
            bytes += row.as_ref().map_or(0, |row| row.value.len()) + ROW_OVERHEAD_BYTES;
            if bytes > GET_MANY_BYTES_MAX {
                return Err(Failure::rejected(
                    Code::FailedPrecondition,
                    format!(
                        "these {} rows take more than {GET_MANY_BYTES_MAX} bytes: ask for fewer keys at once",
                        keys.len()
                    ),
                ));
            }
            rows.push(row);
        }
        Ok(Reply::Values { rows, at, revision: self.revision() })
    }

    /// One page. It ends at the first of its bounds; where the first row alone is too large for it, before that one.
    fn scan(&self, scan: &Scan, at: Index) -> Result<Page, Failure> {
        let rows_max = scan.rows_max.max(1) as usize;
        let bytes_max = (scan.bytes_max as usize).min(SCAN_PAGE_BYTES);
        let first_bytes_max = if scan.bytes_max == u32::MAX { usize::MAX } else { scan.bytes_max as usize };
        let from = LookupKey::new(if scan.from > scan.prefix { &scan.from } else { &scan.prefix });
        let until = end_of_prefix(&scan.prefix);
        let mut page = Page { at, rows: Vec::new(), next: None };
        if *from >= *until {
            return Ok(page);
        }

        let (mut bytes, mut looks) = (0, 0);
        let mut damage = None;
        self.table
            .scan(&from, Some(&until), at, &mut |table_key, row| {
                let key = &table_key[PREFIX_BYTES..];
                if looks == SCAN_PAGE_LOOKS_MAX {
                    page.next = Some(Bytes::copy_from_slice(key));
                    return ControlFlow::Break(());
                }
                looks += 1;
                let mut row = match Stored::decode(row.clone()) {
                    Ok(stored) => match stored.into_row() {
                        Some(row) => row,
                        None => return ControlFlow::Continue(()),
                    },
                    Err(malformed) => {
                        damage = Some(self.damaged(key, malformed));
                        return ControlFlow::Break(());
                    }
                };
                if scan.keys_only {
                    row.value = Bytes::new();
                }
                bytes += key.len() + row.value.len() + ROW_OVERHEAD_BYTES;
                let is_first = page.rows.is_empty();
                let most = if is_first { first_bytes_max } else { bytes_max };
                if page.rows.len() == rows_max || bytes > most {
                    page.next = Some(match page.rows.last() {
                        Some((last, _)) => just_after(last),
                        None => Bytes::copy_from_slice(key),
                    });
                    return ControlFlow::Break(());
                }
                page.rows.push((Bytes::copy_from_slice(key), row));
                ControlFlow::Continue(())
            })
            .map_err(|e| self.unreadable(&e))?;
        match damage {
            Some(damage) => Err(damage),
            None => Ok(page),
        }
    }

    /// XXH3 over, for each row in key order, tombstones too: the key's length (u32, little-endian), the key, the row's length
    /// likewise, the row.
    fn digest(&self, at: Index) -> Result<Reply, Failure> {
        let mut hash = Xxh3::new();
        let mut rows = 0;
        self.table
            .scan(&LookupKey::new(b""), Some(&ROWS_END), at, &mut |table_key, row| {
                let key = &table_key[PREFIX_BYTES..];
                for part in [key, row] {
                    hash.update(&(part.len() as u32).to_le_bytes());
                    hash.update(part);
                }
                rows += 1;
                ControlFlow::Continue(())
            })
            .map_err(|e| self.unreadable(&e))?;
        Ok(Reply::Digest { at, hash: hash.digest(), rows })
    }

    fn unreadable(&self, error: &StorageError) -> Failure {
        match error {
            StorageError::Collected { .. } => Failure::rejected(
                Code::FailedPrecondition,
                format!("{error}; go on from the last key at a new index, or begin anew"),
            ),
            _ => Failure::rejected(
                Code::DataLoss,
                format!("shard {} can't be read on this node: {error}; ask another replica", self.shard),
            ),
        }
    }

    fn damaged(&self, key: &[u8], malformed: Malformed) -> Failure {
        Failure::rejected(
            Code::DataLoss,
            format!(
                "shard {}: the row of key \"{}\" in {} can't be read on this node ({malformed}); start it with the Ringfort \
                 version that wrote the row, or ask another replica",
                self.shard,
                shown(key),
                self.table.place()
            ),
        )
    }
}

/// Just past all keys that begin with `prefix`, as a table key.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX);
    match kept {
        Some(last) => {
            let mut end = LookupKey::new(&prefix[..=last]).to_vec();
            end[PREFIX_BYTES + last] += 1;
            end
        }
        None => ROWS_END.to_vec(),
    }
}

fn just_after(key: &Bytes) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
