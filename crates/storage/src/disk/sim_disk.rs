//! The simulated disk: everything in memory, and every kind of bad luck on demand, from a seed.
//!
//! [`SimDisk::crash`] keeps, of what was not synced, a random subset of the 512-byte sectors of each file and
//! a random prefix of each directory's changes, so it loses and tears as a disk does when the power goes.
//! After a crash every handle from before is dead. Failing syncs, a full disk and rotten bytes are separate
//! knobs. Nothing here depends on anything but the calls made and the seeds given.
//!
//! Directories are made durably at once, which is what [`Disk::create_dir`] promises.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::sim_state::{Change, DirState, FileState, Random, State, power_lost, split};
use super::{Disk, File, Lock};

const POISONED: &str = "a thread panicked inside the simulated disk";

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk without bounds.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// The power goes: what was not synced is kept in part, as `seed` has it, and every open file and lock
    /// is gone.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let mut random = Random(seed);
        state.life += 1;
        state.dead = false;
        state.syncs_left = None;
        state.locked.clear();
        for dir in state.dirs.values_mut() {
            dir.crash(&mut random);
        }
        for file in state.files.values_mut() {
            file.crash(&mut random);
        }
        let named: BTreeSet<u64> = state.dirs.values().flat_map(|dir| dir.names.values()).copied().collect();
        state.files.retain(|file, _| named.contains(file));
    }

    /// From now on syncs fail (or no longer do). As on Linux, what a failed sync was for is lost, though it
    /// can still be read, and the next sync does not notice.
    pub fn fail_syncs(&self, failing: bool) {
        self.state().failing_syncs = failing;
    }

    /// The power goes in the middle of a sync: that of a file or directory after `syncs` more have succeeded.
    /// It fails, as does everything after it, until [`SimDisk::crash`] decides what it had written.
    pub fn die_after(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    /// Room for this many bytes in all files together; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// From now on a write is taken up to so many bytes, also into room that was set aside, and then fails with this kind of error; or
    /// no longer does.
    pub fn bound_writes(&self, room: Option<(usize, io::ErrorKind)>) {
        self.state().write_room = room;
    }

    /// Rot: changes one stored byte, durably, by exclusive or. Says whether there was such a byte.
    pub fn damage(&self, path: &str, offset: u64, mask: u8) -> bool {
        let mut state = self.state();
        let Some(file) = state.find(path) else { return false };
        let file = state.files.get_mut(&file).expect("a name leads to a file");
        let Some(byte) = file.bytes.get_mut(offset as usize) else { return false };
        *byte ^= mask;
        if let Some(byte) = file.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
        true
    }

    /// A file's bytes as they can be read now.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files[&state.find(path)?].bytes.clone())
    }

    /// Replaces a file's bytes, durably, or makes it.
    pub fn set_bytes(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.find(path).unwrap_or_else(|| state.add(path));
        let (dir, name) = split(path);
        let names = state.dirs.entry(dir.to_owned()).or_default();
        names.durable.insert(name.to_owned(), file);
        let stored = FileState { bytes: bytes.to_vec(), durable: bytes.to_vec(), dirty: BTreeSet::new() };
        state.files.insert(file, stored);
    }

    /// A copy that shares nothing with this disk, everything on it durable.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        let state = self.state();
        let mut copy = State { next_file: state.next_file, ..State::default() };
        for (name, dir) in &state.dirs {
            let dir = DirState { names: dir.names.clone(), durable: dir.names.clone(), pending: Vec::new() };
            copy.dirs.insert(name.clone(), dir);
        }
        for (number, file) in &state.files {
            let file =
                FileState { bytes: file.bytes.clone(), durable: file.bytes.clone(), dirty: BTreeSet::new() };
            copy.files.insert(*number, file);
        }
        SimDisk { state: Arc::new(Mutex::new(copy)) }
    }

    /// How many file syncs have succeeded, and how many writes there were, since the disk was made.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.syncs, state.writes)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(POISONED)
    }

    /// The state, for an operation of the node's.
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.dead { Err(power_lost()) } else { Ok(state) }
    }

    fn handle(&self, state: &State, file: u64) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.clone(), life: state.life, file })
    }
}

impl Disk for SimDisk {
    fn name(&self) -> String {
        "(simulated disk)".to_owned()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let state = self.live()?;
        let file = state.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&state, file))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.live()?;
        state.dir(split(path).0)?;
        let file = if let Some(file) = state.find(path) {
            let emptied = state.files.get_mut(&file).expect("a name leads to a file");
            emptied.clear();
            file
        } else {
            state.add(path)
        };
        Ok(self.handle(&state, file))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.live()?;
        for (end, _) in path.match_indices('/') {
            state.dirs.entry(path[..end].to_owned()).or_default();
        }
        state.dirs.entry(path.to_owned()).or_default();
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut state = self.live()?;
        let mut names: BTreeSet<String> = state.dir(dir)?.names.keys().cloned().collect();
        for path in state.dirs.keys().filter(|path| !path.is_empty()) {
            let (parent, name) = split(path);
            if parent == dir {
                names.insert(name.to_owned());
            }
        }
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (split(from), split(to));
        assert_eq!(from_dir, to_dir, "files are renamed within their directory only");
        let mut state = self.live()?;
        let file = state.find(from).ok_or(io::ErrorKind::NotFound)?;
        let changes = vec![Change::Unset(from_name.to_owned()), Change::Set(to_name.to_owned(), file)];
        state.dir(from_dir)?.change(changes);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.find(path).ok_or(io::ErrorKind::NotFound)?;
        let (dir, name) = split(path);
        state.dir(dir)?.change(vec![Change::Unset(name.to_owned())]);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.count_down()?;
        let failing = state.failing_syncs;
        let dir = state.dir(dir)?;
        if failing {
            return Err(io::Error::other("the simulated disk fails syncs"));
        }
        dir.pending.clear();
        dir.durable = dir.names.clone();
        Ok(())
    }

    fn remove_root(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &str) -> io::Result<Result<Box<dyn Lock>, String>> {
        let mut state = self.live()?;
        if !state.locked.insert(path.to_owned()) {
            return Ok(Err("another simulated process".to_owned()));
        }
        if state.find(path).is_none() {
            state.add(path);
        }
        Ok(Ok(Box::new(SimLock { disk: self.clone(), life: state.life, path: path.to_owned() })))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    life: u64,
    path: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    life: u64,
    file: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.live()?;
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("the simulated disk has crashed since this file was opened"))
        }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = self.state()?;
        let file = state.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let rest = file.bytes.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let refused = state.write_room.filter(|(room, _)| *room < bytes.len());
        let taken = refused.map_or(bytes, |(room, _)| &bytes[..room]);
        let (start, end) = (offset as usize, offset as usize + taken.len());
        state.grow(self.file, end)?;
        state.writes += 1;
        let file = state.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        file.write(start, taken);
        refused.map_or(Ok(()), |(_, kind)| Err(kind.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.count_down()?;
        let failing = state.failing_syncs;
        let file = state.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if failing {
            file.dirty.clear();
            return Err(io::Error::other("the simulated disk fails syncs"));
        }
        file.sync();
        state.syncs += 1;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state()?;
        let file = state.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.bytes.len() as u64)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.state()?.grow(self.file, length as usize)
    }
}
