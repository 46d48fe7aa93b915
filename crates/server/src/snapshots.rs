//! Tables on their way: the two threads that read and write them.
//!
//! One reads chunks for followers elsewhere, no faster than the operator allows. The other makes tables of the chunks
//! that arrive; a table is flushed before anybody hears that it is complete. When to do what is the node's business
//! (`ringfort_node`), and a table is put in place by the apply thread.
//!
//! A disk that is full refuses the table that arrives, and gives its room back; the log comes first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_node::{Event, Stored};
use ringfort_storage::{SnapshotReader, SnapshotWriter, Tables, Taken as Outcome};
use ringfort_types::ShardId;
use ringfort_types::limits::SNAPSHOT_CHUNK_BYTES;

use crate::error::die;
use crate::queue::{Queue, Taken};
use crate::shared::Shared;

/// Between two looks at whether the node ends, while the pace is kept.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What the reading thread is to do.
#[derive(Debug)]
enum Read {
    /// Report the next chunk of this snapshot.
    Chunk(u64),
    /// Let go of it.
    Drop(u64),
}

/// What the writing thread is to do.
#[derive(Debug)]
enum Write {
    Chunk { shard: ShardId, generation: u64, chunk: Bytes },
    Drop { shard: ShardId, generation: u64 },
}

/// The two threads' queues, and the states of tables that are held.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    reads: Queue<Read>,
    writes: Queue<Write>,
    /// With the number of the next chunk.
    held: Mutex<BTreeMap<u64, (SnapshotReader, u64)>>,
}

impl Snapshots {
    /// Holds a table's state under this number until it is dropped.
    pub(crate) fn hold(&self, transfer: u64, reader: SnapshotReader) {
        self.held().insert(transfer, (reader, 0));
    }

    pub(crate) fn read(&self, transfer: u64) {
        self.reads.push(Read::Chunk(transfer));
    }

    pub(crate) fn drop_held(&self, transfer: u64) {
        self.reads.push(Read::Drop(transfer));
    }

    pub(crate) fn store(&self, shard: ShardId, generation: u64, chunk: Bytes) {
        self.writes.push(Write::Chunk { shard, generation, chunk });
    }

    pub(crate) fn drop_table(&self, shard: ShardId, generation: u64) {
        self.writes.push(Write::Drop { shard, generation });
    }

    /// Ends both threads.
    pub(crate) fn close(&self) {
        self.reads.close();
        self.writes.close();
    }

    /// Reads, until closed.
    pub(crate) fn run_reads(&self, shared: &Shared, bytes_per_s: u64) {
        let mut waiting = Vec::new();
        let mut not_before = Instant::now();
        while self.reads.take(&mut waiting, None) == Taken::Items {
            for read in waiting.drain(..) {
                match read {
                    Read::Drop(transfer) => drop(self.held().remove(&transfer)),
                    Read::Chunk(transfer) => {
                        keep_pace(not_before, shared);
                        let bytes = self.read_chunk(transfer, shared);
                        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
                        not_before = Instant::now().max(not_before) + takes;
                    }
                }
            }
        }
    }

    /// Reports a chunk, and says how large it is.
    fn read_chunk(&self, transfer: u64, shared: &Shared) -> usize {
        // Taken out, so that nobody waits for the disk.
        let held = self.held().remove(&transfer);
        let Some((mut reader, number)) = held else {
            shared.inbox.push(Event::ChunkRead { transfer, number: 0, chunk: None });
            return 0;
        };
        let chunk = match reader.next_chunk(SNAPSHOT_CHUNK_BYTES) {
            Ok(chunk) => chunk,
            Err(error) if error.is_damage() => {
                shared.damaged(reader.shard(), error.to_string(), true);
                shared.inbox.push(Event::ChunkRead { transfer, number, chunk: None });
                return 0;
            }
            Err(error) => die("a table can't be read for a snapshot", &error),
        };
        let bytes = chunk.bytes.len();
        if !chunk.is_last {
            self.held().insert(transfer, (reader, number + 1));
        }
        shared.inbox.push(Event::ChunkRead { transfer, number, chunk: Some((chunk.bytes, chunk.is_last)) });
        bytes
    }

    /// Writes, until closed.
    pub(crate) fn run_writes(&self, shared: &Shared, tables: &dyn Tables) {
        let mut waiting = Vec::new();
        let mut writers: BTreeMap<(ShardId, u64), SnapshotWriter> = BTreeMap::new();
        while self.writes.take(&mut waiting, None) == Taken::Items {
            for write in waiting.drain(..) {
                if shared.is_stopping() {
                    return;
                }
                match write {
                    Write::Drop { shard, generation } => {
                        writers.remove(&(shard, generation));
                        remove(tables, shard, generation);
                    }
                    Write::Chunk { shard, generation, chunk } => {
                        let outcome = store(shared, &mut writers, tables, (shard, generation), &chunk);
                        shared.inbox.push(Event::ChunkStored { shard, generation, outcome });
                    }
                }
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, (SnapshotReader, u64)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store(
    shared: &Shared,
    writers: &mut BTreeMap<(ShardId, u64), SnapshotWriter>,
    tables: &dyn Tables,
    place: (ShardId, u64),
    chunk: &Bytes,
) -> Stored {
    let mut writer =
        match writers.remove(&place).map_or_else(|| SnapshotWriter::new(tables, place.0, place.1), Ok) {
            Ok(writer) => writer,
            Err(error) if error.is_disk_full() => return Stored::Refused,
            Err(error) => die("a table for a snapshot can't be made", &error),
        };
    match writer.take(chunk) {
        Ok(Outcome::More) => {
            writers.insert(place, writer);
            Stored::More
        }
        Ok(Outcome::Complete) => match ringfort_shard::configuration_of(place.0, &**writer.table()) {
            Ok((index, configuration)) => Stored::Complete { index, configuration },
            Err(error) if error.is_damage() => {
                // Another one would do no better.
                shared.damaged(place.0, error.to_string(), true);
                Stored::Refused
            }
            Err(error) => die("a snapshot's table can't be read", &error),
        },
        Ok(Outcome::Refused) => Stored::Refused,
        Err(error) if error.is_disk_full() => {
            tracing::info!("no room for a snapshot of shard {}: {error}", place.0);
            Stored::Refused
        }
        Err(error) => die("a snapshot can't be written", &error),
    }
}

/// Removes a table that is not in use.
pub(crate) fn remove(tables: &dyn Tables, shard: ShardId, generation: u64) {
    if let Err(error) = tables.remove_generation(shard, generation) {
        // The next start tries it again.
        tracing::warn!("a table that is not in use stays for now: {error}");
    }
}

fn keep_pace(not_before: Instant, shared: &Shared) {
    loop {
        let left = not_before.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_stopping() {
            return;
        }
        thread::sleep(left.min(PAUSE_MAX));
    }
}
