//! A new cluster of one node from the best copies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfort_node::begun_anew;
use ringfort_node::recovery::{Ready, RecoveryError};
use ringfort_ring::Layout;
use ringfort_storage::{
    DataDir, FileDisk, LogOptions, LsmTables, SnapshotReader, SnapshotWriter, Stored, TableOptions, Taken,
};
use ringfort_types::limits::SNAPSHOT_CHUNK_BYTES;
use ringfort_types::{Base, HardState, Incarnation, PeerId, Record, ShardId, Term, check_address, is_name};

use super::survey::Survey;
use crate::StartError;
use crate::running::draw;

/// Bytes of rows that one shard may have in memory before they are written to its scratch.
const MEMTABLE_BYTES: u64 = 64 * 1024 * 1024;

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Anew {
    /// The new data directory: empty, or not there.
    pub out: PathBuf,
    /// The new node's name.
    pub name: String,
    /// Where it will be found.
    pub address: String,
    /// Whether shards without a copy begin empty.
    pub empty_lost_shards: bool,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The new cluster's number.
    pub cluster: u64,
    /// Where it is.
    pub directory: String,
    /// Its shards.
    pub shards: u32,
    /// Copies that each is to have.
    pub replicas: u32,
}

impl Survey {
    /// What would keep [`Survey::begin_anew`] from its work, before it is asked for.
    pub fn check(&self, anew: &Anew) -> Result<(), StartError> {
        let usage = |message| Err(StartError::Usage(message));
        let lost: Vec<String> = self.without_copy().map(|shard| shard.to_string()).collect();
        if lost.len() == self.shards.len() {
            return usage(
                "none of the directories has a whole copy of any shard: nothing can be made of them".into(),
            );
        }
        if !lost.is_empty() && !anew.empty_lost_shards {
            let (shards, they) = if lost.len() == 1 { ("shard", "it has") } else { ("shards", "they have") };
            return usage(format!(
                "there is no whole copy of {shards} {}: give more directories, or say --empty-lost-shards to go on without all that {they} had",
                lost.join(", ")
            ));
        }
        let out = shown(&anew.out);
        if let Some(old) = self.directories.iter().find(|old| Path::new(&out).starts_with(&old.path)) {
            return usage(format!(
                "{out} is in {}, which is not to be changed: choose another place",
                old.path
            ));
        }
        // Without a name, a node is called by its address.
        if !is_name(&anew.name) && anew.name != anew.address {
            return usage(format!(
                "{:?} is not a name for a node: use 1 to 64 letters, digits, '-', '_' or '.'",
                anew.name
            ));
        }
        if let Err(why) = check_address(&anew.address) {
            return usage(format!("--addr {:?} is not an address: it {why}; give HOST:PORT", anew.address));
        }
        Ok(())
    }

    /// Makes the new directory. If that fails, what was made of it is removed.
    pub fn begin_anew(&self, anew: &Anew, say: &dyn Fn(&str)) -> Result<Begun, StartError> {
        self.check(anew)?;
        let disk = Arc::new(FileDisk::open(&anew.out)?);
        let stored = Stored {
            name: anew.name.clone(),
            address: anew.address.clone(),
            incarnation: Incarnation(draw()?),
            boot: 1,
            birth: None,
        };
        let data = DataDir::prepare(disk.clone(), stored.clone())?;
        let (record, born) = begun_anew(&self.layout, &stored.name, &stored.address, stored.incarnation)
            .map_err(ringfort_node::NodeError::Ring)?;
        let made = self.fill(&data, disk.clone(), stored.incarnation, &born, say);
        let made = made.and_then(|()| Ok(data.save_birth(&record, true)?));
        if let Err(error) = made {
            data.undo(&disk);
            return Err(error);
        }
        Ok(Begun {
            cluster: born.cluster,
            directory: shown(&anew.out),
            shards: born.shards.len() as u32 - 1,
            replicas: born.copies,
        })
    }

    /// All tables, and then the log that says what they stand for.
    fn fill(
        &self,
        data: &DataDir,
        disk: Arc<FileDisk>,
        incarnation: Incarnation,
        born: &Layout,
        say: &dyn Fn(&str),
    ) -> Result<(), StartError> {
        let tables = LsmTables::new(disk, incarnation, TableOptions::default());
        let mut records = Vec::new();
        for (place, directory) in self.directories.iter().enumerate() {
            if self.shards.iter().all(|shard| shard.best_peer(place).is_none()) {
                continue;
            }
            say(&format!("opening what {} has", directory.name));
            for ready in self.open(place)?.ready {
                let shard = ready.shard.id();
                if self.best_peer(shard, place) == Some(ready.opened.peer) {
                    say(&format!("writing shard {shard}"));
                    records.extend(carry_over(ready, born, &tables)?);
                }
            }
        }
        let whole = self.shards.iter().filter(|shard| shard.best.is_some()).count();
        // Each has two: a directory that is read for the second time may have more damage than before.
        if records.len() != 2 * whole {
            return Err(changed("it was whole, and is not any more: begin again"));
        }
        let (mut log, _) = data.open_log(born.cluster, LogOptions::default())?;
        log.append(&records)?;
        Ok(log.close()?)
    }

    fn best_peer(&self, shard: ShardId, directory: usize) -> Option<PeerId> {
        self.shards.iter().find(|found| found.shard == shard).and_then(|found| found.best_peer(directory))
    }
}

/// Writes a copy into its new table, with all entries of its log and its new group. What the new log has to say of it.
fn carry_over(ready: Ready, born: &Layout, tables: &LsmTables) -> Result<[Record; 2], StartError> {
    let Ready { mut shard, opened } = ready;
    let id = shard.id();
    for entry in &opened.tail {
        shard.apply(entry, 0).map_err(RecoveryError::Shard)?;
        if shard.table().memory_bytes() > MEMTABLE_BYTES {
            shard.seal();
            shard.table().flush(shard.applied())?;
        }
    }
    let voters = born.shard(id).map(|shard| shard.replicas.clone()).unwrap_or_default();
    shard.begin_anew(voters);
    shard.seal();
    let index = shard.applied();
    let mut reader = SnapshotReader::new(id, &**shard.table(), index)?;
    let mut writer = SnapshotWriter::new(tables, id, 0)?;
    loop {
        let chunk = reader.next_chunk(SNAPSHOT_CHUNK_BYTES)?;
        match writer.take(&chunk.bytes)? {
            Taken::More => {}
            Taken::Complete => break,
            Taken::Refused => {
                return Err(changed("a part of it has changed on its way: test this machine's memory"));
            }
        }
    }
    // Later than all that anybody of the old group can have voted in.
    let last = opened.terms.last().map_or(opened.base.term, |(_, term)| *term);
    let term = Term(last.max(opened.hard_state.term).0 + 1);
    Ok([
        Record::Installed(id, Base { index, term, generation: 0 }),
        Record::HardState(id, HardState { term, vote: PeerId(0), commit: index }),
    ])
}

fn changed(why: &str) -> StartError {
    StartError::System { action: "carry a copy over", source: std::io::Error::other(why) }
}

fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
