//! What the directories of stopped nodes have.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfort_node::recovery::{Ready, RecoveryError, Step, Wanted, begin};
use ringfort_node::survivors::{Survivor, best, is_complete};
use ringfort_node::{NodeError, read_birth};
use ringfort_ring::{Layout, LayoutHead};
use ringfort_shard::SessionLimits;
use ringfort_storage::{
    DataDir, FileDisk, LogOptions, LsmTables, NEXT_STEP, RecoveredShard, Scratch, Stopped, TableOptions, Who,
};
use ringfort_types::{Configuration, Epoch, Index, Levels, NodeId, PeerId, ShardId};

use crate::StartError;
use crate::descriptors::raise_limit;
use crate::running::draw;

/// Tables may keep one in so many of the files open that may be open.
const TABLES_SHARE: usize = 4;

/// What there is of a cluster, and what can be made of it.
#[derive(Debug)]
pub struct Survey {
    /// The cluster's number.
    pub cluster: u64,
    /// As they were given.
    pub directories: Vec<Directory>,
    /// All shards with keys, in the order of their numbers.
    pub shards: Vec<ShardFound>,
    /// The latest layout that any of the directories has.
    pub layout: Layout,
    pub(super) held: Vec<Stopped>,
    pub(super) workspace: PathBuf,
}

/// One of the directories.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it is.
    pub path: String,
    /// The node's name.
    pub name: String,
    /// Where it was found.
    pub address: String,
    /// Its number.
    pub node: NodeId,
    /// The layout that it has.
    pub epoch: Epoch,
    /// Why nothing of it can be used, if that is so.
    pub damage: Option<String>,
}

/// What there is of a shard.
#[derive(Debug)]
pub struct ShardFound {
    /// Which.
    pub shard: ShardId,
    /// Of those directories that have one.
    pub copies: Vec<Copy>,
    /// The place of the best one among them, if there is a whole one.
    pub best: Option<usize>,
    /// What the best one may lack.
    pub loss: Loss,
    /// The replicas that decide and of which there is no whole copy: their nodes' names.
    pub missing: Vec<String>,
}

/// A directory's copy of a shard.
#[derive(Debug)]
pub struct Copy {
    /// The place of the directory.
    pub directory: usize,
    /// How it was found.
    pub found: Found,
}

/// How a copy was found.
#[derive(Debug)]
pub enum Found {
    /// Whole.
    Whole {
        /// Where its log ends, and whose it is.
        survivor: Survivor,
        /// Keys that are there, as of what is known to be committed.
        keys: u64,
    },
    /// Not to be used.
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// Up to where its log knows that entries are committed.
        commit: Index,
    },
}

/// What may be lost of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing that was acknowledged: a majority of those who decide is here.
    Nothing,
    /// Writes after this index, if there were any.
    After {
        /// The best copy's last one.
        last: Index,
        /// Beyond it, entries up to this index are known to have been committed.
        committed: Option<Index>,
    },
    /// Everything: there is no whole copy.
    Everything,
}

/// A directory that is open in its scratch, with its shards up to date with what they know to be committed.
pub(super) struct Open {
    pub(super) ready: Vec<Ready>,
    damaged: Vec<(ShardId, String)>,
    /// What its log says of each shard.
    logged: BTreeMap<ShardId, RecoveredShard>,
    layout: Option<Layout>,
    _data: DataDir,
    _tables: LsmTables,
    // The last to go.
    _scratch: Scratch,
}

impl Survey {
    /// Looks at these directories. What it needs for that it puts into `workspace`, a directory that is there. `say` hears how far it is.
    pub fn of(directories: &[PathBuf], workspace: &Path, say: &dyn Fn(&str)) -> Result<Survey, StartError> {
        let held = directories.iter().map(|directory| Stopped::hold(directory));
        let held = held.collect::<Result<Vec<_>, _>>()?;
        let mut births: Vec<Arc<Layout>> = Vec::new();
        let mut found: Vec<Directory> = Vec::new();
        let mut incarnations = Vec::new();
        for stopped in &held {
            let path = stopped.root().display().to_string();
            let disk = FileDisk::open(stopped.root())?;
            let Some(stored) = DataDir::look(&disk)? else {
                return Err(StartError::Usage(format!(
                    "{path} has no identity file any more: give another directory"
                )));
            };
            let born = stored.birth.as_ref().map(|birth| read_birth(birth, stored.incarnation)).transpose();
            let Some((node, born)) = born?.flatten() else {
                return Err(StartError::Usage(format!(
                    "{path} has never been part of a cluster, so there is nothing in it: leave it out"
                )));
            };
            if let Some(other) = incarnations.iter().position(|known| *known == stored.incarnation) {
                return Err(StartError::Usage(format!(
                    "{} and {path} are of one node: give the one that was used last, and leave the other out",
                    found[other].path
                )));
            }
            if let Some(first) = births.first().filter(|first| first.cluster != born.cluster) {
                return Err(StartError::Usage(format!(
                    "{} is of cluster {:016x}, and {path} of cluster {:016x}: give directories of one cluster",
                    found[0].path, first.cluster, born.cluster
                )));
            }
            incarnations.push(stored.incarnation);
            let (name, address) = (stored.name, stored.address);
            found.push(Directory { path, name, address, node, epoch: born.epoch, damage: None });
            births.push(Arc::new(born));
        }
        let born = Arc::clone(births.first().ok_or_else(nothing_given)?);
        let mut survey = Survey {
            cluster: born.cluster,
            directories: found,
            shards: Vec::new(),
            layout: Layout::clone(&born),
            held,
            workspace: workspace.to_owned(),
        };
        let mut copies: BTreeMap<ShardId, Vec<Copy>> = BTreeMap::new();
        for place in 0..births.len() {
            survey.look_at(place, &mut copies, say)?;
        }
        if let Some(why) = Levels::KNOWN.refusal(survey.layout.level) {
            return Err(StartError::Usage(format!("this binary {why}")));
        }
        let shards = born.shards.iter().map(|shard| shard.shard).filter(|shard| *shard != ShardId::META);
        survey.shards =
            shards.map(|shard| survey.judge(shard, copies.remove(&shard).unwrap_or_default())).collect();
        Ok(survey)
    }

    /// Those that have no whole copy.
    pub fn without_copy(&self) -> impl Iterator<Item = ShardId> {
        self.shards.iter().filter(|found| found.best.is_none()).map(|found| found.shard)
    }

    fn look_at(
        &mut self,
        place: usize,
        copies: &mut BTreeMap<ShardId, Vec<Copy>>,
        say: &dyn Fn(&str),
    ) -> Result<(), StartError> {
        let name = self.directories[place].name.clone();
        say(&format!("opening what {name} has"));
        let open = match self.open(place) {
            Ok(open) => open,
            Err(error) if is_damage(&error) => {
                self.directories[place].damage = Some(self.said(place, &error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut note = |shard, found| copies.entry(shard).or_default().push(Copy { directory: place, found });
        let commit =
            |shard: &ShardId| open.logged.get(shard).map_or(Index(0), |known| known.hard_state.commit);
        for (shard, reason) in &open.damaged {
            note(*shard, Found::Damaged { reason: reason.clone(), commit: commit(shard) });
        }
        let layouts =
            open.ready.iter().filter_map(|ready| ready.shard.layout()).map(|layout| Layout::clone(layout));
        let latest = layouts.chain(open.layout.clone()).max_by_key(|layout| layout.epoch);
        if let Some(latest) = latest.filter(|latest| latest.cluster == self.cluster) {
            self.directories[place].epoch = latest.epoch;
            if latest.epoch > self.layout.epoch {
                self.layout = latest;
            }
        }
        for ready in &open.ready {
            let shard = ready.shard.id();
            if shard == ShardId::META {
                continue;
            }
            say(&format!("reading shard {shard} of {name}"));
            let read = ready.shard.read_all().map_err(|error| self.said(place, &error));
            note(
                shard,
                match Survivor::of(ready).and_then(|survivor| Ok((survivor, read?))) {
                    Ok((survivor, keys)) => Found::Whole { survivor, keys },
                    Err(reason) => Found::Damaged { reason, commit: commit(&shard) },
                },
            );
        }
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.workspace.join("scratch")
    }

    /// What is wrong with a directory: of the original's files, and without the advice that is for a node that can't start.
    fn said(&self, place: usize, error: &dyn std::fmt::Display) -> String {
        let said = error.to_string();
        let said = said.split(NEXT_STEP).next().unwrap_or_default().trim_end();
        said.replace(&*self.scratch().to_string_lossy(), &self.held[place].root().to_string_lossy())
    }

    /// Opens a directory in a scratch of its own.
    pub(super) fn open(&self, place: usize) -> Result<Open, StartError> {
        let scratch = self.held[place].scratch(&self.scratch())?;
        let disk = Arc::new(FileDisk::open(scratch.root())?);
        let stored = DataDir::look(&*disk)?.ok_or(NodeError::BirthRecord)?;
        let birth = stored.birth.as_ref().ok_or(NodeError::BirthRecord)?;
        let (me, born) = read_birth(birth, stored.incarnation)?.ok_or(NodeError::BirthRecord)?;
        let who = Who { name: Some(stored.name.clone()), address: stored.address.clone(), fresh: draw()? };
        let (data, stored) = DataDir::open(disk.clone(), &who)?;
        let layout = kept_layout(&data)?;
        let open_files = raise_limit() / TABLES_SHARE;
        let options = TableOptions { open_files, ..TableOptions::default() };
        let tables = LsmTables::new(disk, stored.incarnation, options);
        let (log, logged) =
            data.open_log(born.cluster, LogOptions::default()).map_err(RecoveryError::Storage)?;
        drop(log);
        let shards: BTreeMap<ShardId, Configuration> =
            born.shards.iter().map(|shard| (shard.shard, shard.born())).collect();
        let born = Arc::new(born);
        let wanted = Wanted { me, born: &born, shards: &shards };
        let begun = begin(&data, &tables, &wanted, LogOptions::default(), SessionLimits::default())?;
        let (mut ready, mut replay) = (begun.ready, begun.replay);
        let mut damaged: Vec<_> =
            begun.damaged.into_iter().map(|(shard, error)| (shard, self.said(place, &error))).collect();
        replay.go_on(&mut |step| {
            match step {
                Step::Applied(_) => {}
                Step::Ready(one) => ready.push(*one),
                Step::Damaged(shard, error) => damaged.push((shard, self.said(place, &error))),
            }
            ControlFlow::Continue(())
        })?;
        Ok(Open { ready, damaged, logged, layout, _data: data, _tables: tables, _scratch: scratch })
    }

    fn judge(&self, shard: ShardId, copies: Vec<Copy>) -> ShardFound {
        let (mut places, mut survivors, mut committed) = (Vec::new(), Vec::new(), Index(0));
        for (place, copy) in copies.iter().enumerate() {
            match &copy.found {
                Found::Whole { survivor, .. } => {
                    places.push(place);
                    survivors.push(survivor.clone());
                    committed = committed.max(survivor.commit);
                }
                Found::Damaged { commit, .. } => committed = committed.max(*commit),
            }
        }
        let is_complete = is_complete(&survivors);
        // Who has just begun has nothing yet.
        let has_something = |best: &usize| is_complete || survivors[*best].last > Index(0);
        let Some(best) = best(&survivors).filter(has_something) else {
            return ShardFound { shard, copies, best: None, loss: Loss::Everything, missing: Vec::new() };
        };
        let last = survivors[best].last;
        let loss = if is_complete {
            Loss::Nothing
        } else {
            Loss::After { last, committed: Some(committed).filter(|committed| *committed > last) }
        };
        let name = |node| match self.layout.member(node) {
            Some(member) => member.name.clone(),
            None => format!("node {node}"),
        };
        let missing = survivors[best].missing(&survivors).iter().map(|replica| name(replica.node)).collect();
        ShardFound { shard, copies, best: Some(places[best]), loss, missing }
    }
}

impl ShardFound {
    /// The best copy: the place of its directory, and how it was found.
    pub fn best_copy(&self) -> Option<(usize, &Survivor, u64)> {
        let Copy { directory, found } = &self.copies[self.best?];
        match found {
            Found::Whole { survivor, keys } => Some((*directory, survivor, *keys)),
            Found::Damaged { .. } => None,
        }
    }

    /// Which replica it is, so that another look finds the same.
    pub(super) fn best_peer(&self, directory: usize) -> Option<PeerId> {
        self.best_copy().filter(|(of, ..)| *of == directory).map(|(_, survivor, _)| survivor.peer)
    }
}

/// The layout that a directory keeps in its file, if it can be read: it is in other places, too.
fn kept_layout(data: &DataDir) -> Result<Option<Layout>, StartError> {
    let Ok(Some(bytes)) = data.layout() else { return Ok(None) };
    match Layout::decode(bytes.clone()) {
        Ok(layout) => Ok(Some(layout)),
        Err(_) => match LayoutHead::read(&bytes).and_then(|head| Levels::KNOWN.refusal(head.level)) {
            Some(why) => Err(StartError::Usage(format!("this binary {why}"))),
            None => Ok(None),
        },
    }
}

/// Whether nothing can be done about it, so that others have to do without this directory.
fn is_damage(error: &StartError) -> bool {
    match error {
        StartError::Storage(error) => error.is_damage(),
        StartError::Recovery(_) => true,
        _ => false,
    }
}

fn nothing_given() -> StartError {
    StartError::Usage("no data directory was given: name one with --data-dir".into())
}
