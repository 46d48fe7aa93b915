//! What a process lets go of, and tables on their way: what the server's threads do with them.

use bytes::Bytes;
use ringfort_node::{Event, Stored};
use ringfort_shard::Shard;
use ringfort_storage::{Durable, SnapshotReader, SnapshotWriter, Table, Tables, Taken};
use ringfort_types::{Base, Configuration, Index, ShardId};
use xxhash_rust::xxh3::Xxh3;

use crate::host::Trap;
use crate::judges::NODE_GOES_ON;
use crate::sessions::LIMITS;
use crate::world::World;

/// Small, so that a table takes several.
const CHUNK_BYTES: usize = 64;

impl World {
    /// The log is over its budget. Whatever it was to die of in its next write may as well happen here.
    pub(crate) fn collect(&mut self, at: usize) {
        self.flush_what_holds(at);
        let process = self.hosts[at].process.as_ref().expect("only processes let go");
        let durable: Durable =
            process.shards.iter().map(|(id, shard)| (*id, shard.table().durable())).collect();
        let is_over = process.log.as_ref().is_some_and(ringfort_storage::Log::is_over_budget);
        if !is_over || process.is_full {
            return;
        }
        let trap = self.hosts[at].trap.take();
        match trap {
            Some((Trap::Kill, _)) => self.hosts[at].disk.unplug(true),
            Some((Trap::PowerLoss, _)) => {
                let syncs = self.random.below(4);
                self.hosts[at].disk.disk.die_after(syncs);
            }
            Some((Trap::FailedSync, _)) => self.hosts[at].disk.disk.fail_syncs(true),
            None => {}
        }
        let process = self.hosts[at].process.as_mut().expect("it goes on");
        let log = process.log.as_mut().expect("it has written before");
        match (log.collect(&durable), trap) {
            (outcome, Some((trap, for_us))) => {
                let how = if outcome.is_ok() { "after" } else { "while" };
                self.log(format_args!("n{} dies of {trap:?} {how} it lets go of old segments", at + 1));
                self.restart_after(at, trap == Trap::PowerLoss, for_us);
            }
            (Ok(bases), None) => {
                if bases.is_empty() {
                    return;
                }
                self.log(format_args!("n{} lets go up to {bases:?}", at + 1));
                // Where a snapshot has come, its table counts, though the old one may still be in use.
                let tables = &self.hosts[at].tables;
                let held = |(id, base): &(ShardId, Base)| {
                    let table = tables.open_generation(*id, base.generation).expect("memory opens");
                    (*id, table.durable())
                };
                let held: Durable = bases.iter().map(held).collect();
                let broken = self.judges.let_go(at, &bases, &held);
                self.find_all(broken);
                self.hear(at, Event::LetGo(bases));
            }
            (Err(error), None) if error.is_disk_full() => {}
            (Err(error), None) => {
                self.find(NODE_GOES_ON, format_args!("n{} can't shorten its log: {error}", at + 1));
                self.restart_after(at, false, 0);
            }
        }
    }

    /// The tables that keep the log from letting go are flushed, or not yet.
    fn flush_what_holds(&mut self, at: usize) {
        let process = self.hosts[at].process.as_ref().expect("only processes flush");
        let durable: Durable =
            process.shards.iter().map(|(id, shard)| (*id, shard.table().durable())).collect();
        let held = process.log.as_ref().map(|log| log.held_by(&durable)).unwrap_or_default();
        for id in held {
            if self.random.chance(50) {
                let host = &mut self.hosts[at];
                let process = host.process.as_mut().expect("just looked at");
                let generation = process.generations.get(&id).copied().unwrap_or_default();
                let Some(shard) = process.shards.get_mut(&id) else { continue };
                shard.seal();
                shard.table().flush(Index(0)).expect("memory takes everything");
                host.sealed.remove(&(id, generation));
            }
        }
    }

    pub(crate) fn take_snapshot(&mut self, at: usize, id: ShardId, transfer: u64) {
        let process = self.hosts[at].process.as_mut().expect("only processes hold tables");
        let shard = process.shards.get_mut(&id).expect("only of what was opened");
        shard.seal();
        let index = shard.applied();
        let digest = digest(&**shard.table(), index);
        let reader = SnapshotReader::new(id, &**shard.table(), index).expect("it is applied");
        process.held.insert(transfer, (reader, 0));
        let generation = process.generations.get(&id).copied().unwrap_or_default();
        self.hosts[at].sealed.entry((id, generation)).or_default().push(index);
        self.log(format_args!("n{} holds shard {id} at {index} as snapshot {transfer:#x}", at + 1));
        self.judges.whole_snapshots.taken(id, index, digest);
        self.hear(at, Event::SnapshotTaken { transfer, index });
    }

    pub(crate) fn read_chunk(&mut self, at: usize, transfer: u64) {
        let process = self.hosts[at].process.as_mut().expect("only processes read");
        let read = process.held.get_mut(&transfer).map(|(reader, next)| {
            let chunk = reader.next_chunk(CHUNK_BYTES).expect("memory can be read");
            *next += 1;
            (*next - 1, chunk)
        });
        let event = match read {
            Some((number, chunk)) => {
                Event::ChunkRead { transfer, number, chunk: Some((chunk.bytes, chunk.is_last)) }
            }
            None => Event::ChunkRead { transfer, number: 0, chunk: None },
        };
        self.hear(at, event);
    }

    pub(crate) fn store_chunk(&mut self, at: usize, shard: ShardId, generation: u64, chunk: &Bytes) {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes store");
        let place = (shard, generation);
        let writer = process.writers.remove(&place);
        let mut writer = writer.unwrap_or_else(|| {
            SnapshotWriter::new(&host.tables, shard, generation).expect("memory makes tables")
        });
        let outcome = match writer.take(chunk).expect("memory takes everything") {
            Taken::More => {
                process.writers.insert(place, writer);
                Stored::More
            }
            Taken::Complete => Stored::Complete,
            Taken::Refused => Stored::Refused,
        };
        self.log(format_args!(
            "n{} stores a chunk of shard {shard}, table {generation}: {outcome:?}",
            at + 1
        ));
        self.hear(at, Event::ChunkStored { shard, generation, outcome });
    }

    pub(crate) fn drop_table(&mut self, at: usize, shard: ShardId, generation: u64) {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes remove tables");
        process.writers.remove(&(shard, generation));
        host.tables.remove_generation(shard, generation).expect("memory forgets");
        self.log(format_args!("n{} removes table {generation} of shard {shard}", at + 1));
    }

    pub(crate) fn install(&mut self, at: usize, id: ShardId, base: Base) {
        self.log(format_args!("n{} goes on in shard {id} from {base:?}", at + 1));
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes install");
        let table = host.tables.open_generation(id, base.generation).expect("memory opens");
        let found = digest(&*table, base.index);
        let shard = match Shard::open(id, table, &Configuration::default(), LIMITS) {
            Ok(shard) if shard.applied() == base.index => shard,
            other => {
                let what = format_args!("n{}: the table for {base:?} of shard {id} is {other:?}", at + 1);
                self.find(crate::judges::WHOLE_SNAPSHOTS, what);
                return self.restart_after(at, false, 0);
            }
        };
        let (index, revision, clock) = (shard.applied(), shard.revision(), shard.clock());
        process.shards.insert(id, shard);
        let old = process.generations.insert(id, base.generation).unwrap_or_default();
        host.tables.remove_generation(id, old).expect("memory forgets");
        host.sealed.remove(&(id, old));
        let broken = self.judges.installed(at, id, base, found);
        self.find_all(broken);
        self.hear(at, Event::Installed { shard: id, index, revision, clock });
    }
}

/// The hash of all rows, of whatever kind.
fn digest(table: &dyn Table, at: Index) -> u64 {
    let mut hash = Xxh3::new();
    let Ok(rows) = table.rows(at) else { return 0 };
    for (key, value) in rows.flatten() {
        for part in [key, value] {
            hash.update(&(part.len() as u32).to_le_bytes());
            hash.update(&part);
        }
    }
    hash.digest()
}
