//! A table on its way to another node: cut into chunks there, put together here.
//!
//! A snapshot is all rows of a shard's table at one index, in key order: whatever kinds of rows there are, the state
//! row among them, so that the new table knows which index it stands for. Chunks are numbered, and each carries a
//! checksum and says whose it is; drawn in `docs/formats/snapshot.md`.
//!
//! The reader holds one state of the table for as long as it takes. The writer makes a table of its own, writes it to disk as
//! it grows, and has all of it on disk when it has taken the last chunk. Nobody may use that table before the log
//! says so; a start removes all others.

use std::iter::Peekable;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Reader, put_bytes};
use ringfort_types::{Index, ShardId};

use crate::table::Rows;
use crate::{StorageError, Table, Tables};

const MAGIC: &[u8; 4] = b"RFSN";
const VERSION: u8 = 1;
const LAST: u8 = 1;
/// What the keys of sessions' rows begin with (`ringfort_shard`, `row`); for the bug on purpose only.
const SESSION: u8 = 2;
/// Bytes before the rows.
const HEADER_BYTES: usize = 28;
const SUM_BYTES: usize = 4;
/// Bytes of rows in memory before they are written to the new table.
const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A key and its value.
type Row = (Bytes, Bytes);

/// Part of a snapshot, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes, checksum included.
    pub bytes: Bytes,
    /// No other follows.
    pub is_last: bool,
}

/// Cuts one state of a table into chunks.
pub struct SnapshotReader {
    shard: ShardId,
    index: Index,
    number: u64,
    rows: Peekable<Rows>,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SnapshotReader { shard, index, number, .. } = self;
        f.debug_struct("SnapshotReader")
            .field("shard", shard)
            .field("index", index)
            .field("number", number)
            .finish_non_exhaustive()
    }
}

impl SnapshotReader {
    /// The table's state at this index, at which its state row was written.
    pub fn new(shard: ShardId, table: &dyn Table, index: Index) -> Result<SnapshotReader, StorageError> {
        Ok(SnapshotReader { shard, index, number: 0, rows: table.rows(index)?.peekable() })
    }

    /// Whose table it is.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The next chunk, of about so many bytes but at least one row. To be called until the last.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Chunk, StorageError> {
        let mut out = BytesMut::with_capacity(bytes_max + HEADER_BYTES + SUM_BYTES);
        out.put_slice(MAGIC);
        out.put_slice(&[VERSION, 0, 0, 0]);
        out.put_u32_le(self.shard.0);
        out.put_u64_le(self.index.0);
        out.put_u64_le(self.number);
        while let Some(row) = self.rows.next_if(|_| out.len() == HEADER_BYTES || out.len() < bytes_max) {
            let (key, value) = row?;
            if planted::is(Bug::SnapshotWithoutSessions) && key.first() == Some(&SESSION) {
                continue;
            }
            put_bytes(&mut out, &key);
            put_bytes(&mut out, &value);
        }
        let is_last = self.rows.peek().is_none();
        out[5] = if is_last { LAST } else { 0 };
        let sum = crc32c::crc32c(&out);
        out.put_u32_le(sum);
        self.number += 1;
        Ok(Chunk { bytes: out.freeze(), is_last })
    }
}

/// What came of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is part of the new table.
    More,
    /// It was the last one, and all of the new table is on disk.
    Complete,
    /// It is damaged, or not the next one. Nothing has changed.
    Refused,
}

/// Makes a new generation of a table out of chunks.
#[derive(Debug)]
pub struct SnapshotWriter {
    shard: ShardId,
    table: Arc<dyn Table>,
    /// Named by the first chunk.
    index: Option<Index>,
    next: u64,
    /// Rows that are not in the table yet, and about how many bytes they have.
    rows: Vec<Row>,
    row_bytes: usize,
}

impl SnapshotWriter {
    /// Begins an empty table, in the place of what there is of this generation.
    pub fn new(tables: &dyn Tables, shard: ShardId, generation: u64) -> Result<SnapshotWriter, StorageError> {
        tables.remove_generation(shard, generation)?;
        let table = tables.open_generation(shard, generation)?;
        Ok(SnapshotWriter { shard, table, index: None, next: 0, rows: Vec::new(), row_bytes: 0 })
    }

    /// The new table, as far as it is.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.table
    }

    /// Takes the next chunk. What fails for lack of room ([`StorageError::is_disk_full`]) leaves a table that is of
    /// no use: begin anew.
    pub fn take(&mut self, chunk: &Bytes) -> Result<Taken, StorageError> {
        let Some((index, is_last, rows)) = self.decode(chunk) else { return Ok(Taken::Refused) };
        self.index = Some(index);
        self.next += 1;
        self.rows.extend(rows);
        self.row_bytes += chunk.len();
        let is_last = is_last || planted::is(Bug::SnapshotInstalledHalf);
        if is_last || self.row_bytes > ROW_BYTES_MAX {
            self.row_bytes = 0;
            self.table.append(index, std::mem::take(&mut self.rows))?;
        }
        Ok(if is_last { Taken::Complete } else { Taken::More })
    }

    /// The chunk's index, whether it is the last one, and its rows; if it is whole, and the next one.
    fn decode(&self, chunk: &Bytes) -> Option<(Index, bool, Vec<Row>)> {
        let body = chunk.len().checked_sub(SUM_BYTES).filter(|body| *body >= HEADER_BYTES)?;
        let sum = u32::from_le_bytes(chunk[body..].try_into().ok()?);
        if sum != crc32c::crc32c(&chunk[..body]) || !chunk.starts_with(MAGIC) || chunk[4] != VERSION {
            return None;
        }
        let is_last = match chunk[5] {
            0 => false,
            LAST => true,
            _ => return None,
        };
        let mut reader = Reader::new(chunk.slice(8..body));
        let (shard, index, number) =
            (ShardId(reader.u32().ok()?), Index(reader.u64().ok()?), reader.u64().ok()?);
        let fits =
            shard == self.shard && number == self.next && self.index.is_none_or(|known| known == index);
        if !fits {
            return None;
        }
        let mut rows = Vec::new();
        while reader.remaining() > 0 {
            rows.push((reader.bytes(body).ok()?, reader.bytes(body).ok()?));
        }
        Some((index, is_last, rows))
    }
}
