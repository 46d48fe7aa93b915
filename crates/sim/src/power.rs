//! A disk whose power can go between a write and its sync.
//!
//! The simulated disk below does what it is told at once. To die in the middle of an append, the sync must not
//! get through: then the bytes written are where a crash may keep any part of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringfort_storage::{Disk, File, Lock, SimDisk};

/// A disk and its plug.
#[derive(Clone, Debug, Default)]
pub(crate) struct PluggedDisk {
    pub(crate) disk: SimDisk,
    unplugged: Arc<AtomicBool>,
}

impl PluggedDisk {
    /// From now on (or no longer) syncs have no effect, and say so.
    pub(crate) fn unplug(&self, unplugged: bool) {
        self.unplugged.store(unplugged, Ordering::Relaxed);
    }

    /// A copy that shares nothing with this disk, everything on it durable.
    pub(crate) fn fork(&self) -> PluggedDisk {
        PluggedDisk { disk: self.disk.fork(), unplugged: Arc::default() }
    }

    fn file(&self, inner: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(PluggedFile { inner, unplugged: self.unplugged.clone() })
    }
}

fn check(unplugged: &AtomicBool) -> io::Result<()> {
    if unplugged.load(Ordering::Relaxed) { Err(io::Error::other("the power is gone")) } else { Ok(()) }
}

impl Disk for PluggedDisk {
    fn name(&self) -> String {
        self.disk.name()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.disk.create(path)?))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_root(&self) -> io::Result<()> {
        self.disk.remove_root()
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check(&self.unplugged)?;
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &str) -> io::Result<Result<Box<dyn Lock>, String>> {
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct PluggedFile {
    inner: Arc<dyn File>,
    unplugged: Arc<AtomicBool>,
}

impl File for PluggedFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        check(&self.unplugged)?;
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.inner.preallocate(length)
    }
}
