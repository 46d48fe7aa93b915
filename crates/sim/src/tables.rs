//! What a process lets go of, and tables on their way: what the server's threads do with them.

use bytes::Bytes;
use ringfort_node::{Event, Opened, Stored};
use ringfort_shard::Shard;
use ringfort_storage::{Durable, SnapshotReader, SnapshotWriter, Tables, Taken};
use ringfort_types::{Base, Configuration, Index, ShardId};
use xxhash_rust::xxh3::Xxh3;

use crate::fragile::FragileTables;
use crate::host::{Begin, Process, Trap};
use crate::judges::NODE_GOES_ON;
use crate::sessions::LIMITS;
use crate::world::World;

/// Small, so that a table takes several.
const CHUNK_BYTES: usize = 64;
/// Beyond all entries.
const EVERYTHING: Index = Index(u64::MAX - 1);

impl World {
    /// The log is over its budget. Whatever it was to die of in its next write may as well happen here.
    pub(crate) fn collect(&mut self, at: usize) {
        self.flush_what_holds(at);
        let process = self.hosts[at].process.as_ref().expect("only processes let go");
        let durable = durable(process);
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
                let tables = self.hosts[at].tables.memory.generations();
                let held = |(id, base): &(ShardId, Base)| {
                    let is_it = |table: &&(ShardId, u64, Index)| (table.0, table.1) == (*id, base.generation);
                    // A replica that has come to its end has none.
                    (*id, tables.iter().find(is_it).map_or(Index(0), |(_, _, durable)| *durable))
                };
                let lost = &self.hosts[at].process.as_ref().expect("it goes on").lost;
                let whole: Vec<_> = bases.iter().filter(|(id, _)| !lost.contains(id)).copied().collect();
                let held: Durable = whole.iter().map(held).collect();
                let broken = self.judges.compacted(at, &whole, &held);
                self.find_of(at, broken);
                self.hear(at, Event::Compacted(bases));
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
        let durable = durable(process);
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

    pub(crate) fn begin_anew(&mut self, at: usize, begin: Begin) {
        let Begin { shard: id, peer, generation, replaces, born } = begin;
        self.log(format_args!("n{} begins shard {id} anew as peer {peer}, table {generation}", at + 1));
        self.forget_replica(at, id, replaces);
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes begin");
        let table = host.tables.open_generation(id, generation).expect("memory opens");
        let configuration = born.shard(id).expect("a shard of the cluster").born();
        let shard = Shard::open_of_cluster(id, table, &configuration, Some(&born), LIMITS);
        let shard = match shard {
            Ok(shard) => shard,
            Err(error) => return self.meet_damage(at, id, error.to_string(), false),
        };
        process.generations.insert(id, generation);
        process.shards.insert(id, shard);
        let base = Base { generation, ..Base::default() };
        let opened = Opened { peer, base, configuration, ..Opened::default() };
        self.judges.begun(at, id);
        self.hear(at, Event::Opened([(id, opened)].into()));
        self.antedate(at, peer);
    }

    pub(crate) fn end_replica(&mut self, at: usize, id: ShardId, generation: u64) {
        self.log(format_args!("n{} has no replica of shard {id} any more", at + 1));
        self.forget_replica(at, id, Some(generation));
        self.judges.begun(at, id);
    }

    /// Nothing is left of a replica, whose table had this generation if there was one.
    fn forget_replica(&mut self, at: usize, id: ShardId, generation: Option<u64>) {
        let host = &mut self.hosts[at];
        if let Some(generation) = generation {
            host.tables.remove_generation(id, generation).expect("memory forgets");
            host.sealed.remove(&(id, generation));
        }
        host.tables.replaced(id);
        let process = host.process.as_mut().expect("only processes have replicas");
        process.shards.remove(&id);
        process.lost.remove(&id);
        process.met.retain(|(met, _)| *met != id);
        process.generations.remove(&id);
    }

    pub(crate) fn take_snapshot(&mut self, at: usize, id: ShardId, transfer: u64) {
        let process = self.hosts[at].process.as_mut().expect("only processes hold tables");
        let shard = process.shards.get_mut(&id).expect("only of what was opened");
        shard.seal();
        let index = shard.applied();
        let generation = process.generations.get(&id).copied().unwrap_or_default();
        let digest = digest(&self.hosts[at].tables, (id, generation), index);
        let process = self.hosts[at].process.as_mut().expect("just looked at");
        let shard = &process.shards[&id];
        match SnapshotReader::new(id, &**shard.table(), index) {
            Ok(reader) => drop(process.held.insert(transfer, (reader, 0))),
            // Whoever asks for its first chunk is told that there is none.
            Err(error) => {
                self.meet_damage(at, id, error.to_string(), true);
                return self.hear(at, Event::SnapshotTaken { transfer, index });
            }
        }
        self.hosts[at].sealed.entry((id, generation)).or_default().push(index);
        self.log(format_args!("n{} holds shard {id} at {index} as snapshot {transfer:#x}", at + 1));
        self.judges.whole_snapshots.taken(id, index, digest);
        self.hear(at, Event::SnapshotTaken { transfer, index });
    }

    pub(crate) fn read_chunk(&mut self, at: usize, transfer: u64) {
        let process = self.hosts[at].process.as_mut().expect("only processes read");
        let Some((reader, next)) = process.held.get_mut(&transfer) else {
            return self.hear(at, Event::ChunkRead { transfer, number: 0, chunk: None });
        };
        let (shard, number) = (reader.shard(), *next);
        *next += 1;
        let chunk = match reader.next_chunk(CHUNK_BYTES) {
            Ok(chunk) => Some((chunk.bytes, chunk.is_last)),
            Err(error) => {
                process.held.remove(&transfer);
                self.meet_damage(at, shard, error.to_string(), true);
                None
            }
        };
        self.hear(at, Event::ChunkRead { transfer, number, chunk });
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
            Taken::Complete => match ringfort_shard::configuration_of(shard, &**writer.table()) {
                Ok((index, configuration)) => Stored::Complete { index, configuration },
                Err(error) => {
                    // Another one would do no better.
                    self.meet_damage(at, shard, error.to_string(), true);
                    Stored::Refused
                }
            },
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
        // The old one counts no more, whatever becomes of the new one.
        let old = process.generations.insert(id, base.generation).unwrap_or_default();
        host.tables.remove_generation(id, old).expect("memory forgets");
        host.sealed.remove(&(id, old));
        if process.lost.contains(&id) {
            // The node has no replica any more. A start finds the new table.
            return;
        }
        let table = host.tables.open_generation(id, base.generation).expect("memory opens");
        let found = digest(&host.tables, (id, base.generation), base.index);
        let nobody = Configuration::default();
        let shard = match Shard::open_of_cluster(id, table, &nobody, None, LIMITS) {
            Ok(shard) if shard.applied() == base.index => shard,
            Err(error) if error.is_damage() => return self.meet_damage(at, id, error.to_string(), false),
            other => {
                let what = format_args!("n{}: the table for {base:?} of shard {id} is {other:?}", at + 1);
                self.find(crate::judges::WHOLE_SNAPSHOTS, what);
                return self.restart_after(at, false, 0);
            }
        };
        let (index, revision, clock) = (shard.applied(), shard.revision(), shard.clock());
        let layout = shard.layout().cloned();
        process.shards.insert(id, shard);
        let broken = self.judges.installed(at, id, base, found);
        self.find_all(broken);
        self.hear(at, Event::Installed { shard: id, index, revision, clock });
        if let Some(layout) = layout {
            self.hear(at, Event::Layout(layout));
        }
    }
}

/// How far each table is durable. Of a shard to which nothing can be applied, the log keeps nothing.
fn durable(process: &Process) -> Durable {
    let open = process.shards.iter().map(|(id, shard)| (*id, shard.table().durable()));
    let lost = process.lost.iter().map(|id| (*id, EVERYTHING));
    open.chain(lost).collect()
}

/// The hash of all rows of a table, of whatever kind, whether or not its host can read them.
fn digest(tables: &FragileTables, (shard, generation): (ShardId, u64), at: Index) -> u64 {
    let mut hash = Xxh3::new();
    let table = tables.memory.open_generation(shard, generation).expect("memory opens");
    let Ok(rows) = table.rows(at) else { return 0 };
    for (key, value) in rows.flatten() {
        for part in [key, value] {
            hash.update(&(part.len() as u32).to_le_bytes());
            hash.update(&part);
        }
    }
    hash.digest()
}
