//! What a simulated disk holds: of each file and directory what can be read, and what a crash is sure to leave.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Counts crashes; handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) next_file: u64,
    pub(super) dirs: BTreeMap<String, DirState>,
    pub(super) locked: BTreeSet<String>,
    pub(super) capacity: Option<u64>,
    /// Of a write so many bytes are taken, and then there is no room: this kind of error.
    pub(super) write_room: Option<(usize, io::ErrorKind)>,
    pub(super) failing_syncs: bool,
    /// Syncs, of files or directories, until the power goes; then nothing works until the crash.
    pub(super) syncs_left: Option<u64>,
    pub(super) dead: bool,
    /// How often a sync has succeeded; of files, not of directories.
    pub(super) syncs: u64,
    pub(super) writes: u64,
}

#[derive(Debug, Default)]
pub(super) struct FileState {
    /// What reads see.
    pub(super) bytes: Vec<u8>,
    /// What a crash is sure to leave.
    pub(super) durable: Vec<u8>,
    /// Sectors of `bytes` that may differ from `durable`.
    pub(super) dirty: BTreeSet<usize>,
}

#[derive(Debug, Default)]
pub(super) struct DirState {
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    /// Changes since the last sync, in order; a rename is one change.
    pub(super) pending: Vec<Vec<Change>>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Set(String, u64),
    Unset(String),
}

impl DirState {
    /// Keeps the first few of the changes that were not synced.
    pub(super) fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.pending.len() as u64 + 1) as usize;
        for change in self.pending.drain(..).take(kept).flatten() {
            apply(&mut self.durable, &change);
        }
        self.names = self.durable.clone();
    }

    pub(super) fn change(&mut self, changes: Vec<Change>) {
        for change in &changes {
            apply(&mut self.names, change);
        }
        self.pending.push(changes);
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Set(name, file) => names.insert(name.clone(), *file),
        Change::Unset(name) => names.remove(name),
    };
}

impl FileState {
    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        self.bytes[start..end].copy_from_slice(bytes);
        self.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    pub(super) fn clear(&mut self) {
        let sectors = self.bytes.len().max(self.durable.len()).div_ceil(SECTOR_BYTES);
        self.dirty.extend(0..sectors);
        self.bytes.clear();
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        if self.bytes.len() != self.durable.len() {
            // The length is metadata: it may have been written before the bytes, or not at all.
            let length = if random.below(2) == 0 { self.durable.len() } else { self.bytes.len() };
            self.durable.resize(length, 0);
        }
        // All, none, or each by itself.
        let mode = random.below(4);
        for sector in std::mem::take(&mut self.dirty) {
            let keep = mode == 0 || (mode > 1 && random.below(2) == 0);
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.durable.len()).min(self.bytes.len());
            if keep && start < end {
                self.durable[start..end].copy_from_slice(&self.bytes[start..end]);
            }
        }
        self.bytes.clone_from(&self.durable);
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.bytes.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&self.bytes[start..end]);
            }
        }
    }
}

impl State {
    pub(super) fn find(&self, path: &str) -> Option<u64> {
        let (dir, name) = split(path);
        self.dirs.get(dir)?.names.get(name).copied()
    }

    pub(super) fn add(&mut self, path: &str) -> u64 {
        let (dir, name) = split(path);
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, FileState::default());
        let dir = self.dirs.entry(dir.to_owned()).or_default();
        dir.change(vec![Change::Set(name.to_owned(), file)]);
        file
    }

    pub(super) fn dir(&mut self, path: &str) -> io::Result<&mut DirState> {
        if path.is_empty() {
            return Ok(self.dirs.entry(String::new()).or_default());
        }
        self.dirs.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn count_down(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.syncs_left {
            let Some(less) = left.checked_sub(1) else {
                self.dead = true;
                return Err(power_lost());
            };
            *left = less;
        }
        Ok(())
    }

    pub(super) fn grow(&mut self, file: u64, length: usize) -> io::Result<()> {
        let before = self.files.get(&file).ok_or(io::ErrorKind::NotFound)?.bytes.len();
        if length <= before {
            return Ok(());
        }
        if let Some(capacity) = self.capacity {
            let used: u64 = self.files.values().map(|file| file.bytes.len() as u64).sum();
            if used + (length - before) as u64 > capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.files.get_mut(&file).expect("it was there just now").bytes.resize(length, 0);
        Ok(())
    }
}

/// What every operation on a disk without power says.
pub(super) fn power_lost() -> io::Error {
    io::Error::other("the simulated disk has lost its power")
}

pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
