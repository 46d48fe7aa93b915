//! A tree's directory, and what is known to be wrong with it.

use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};

use ringfort_types::ShardId;

use super::files;
use crate::disk::Disk;
use crate::{FileDisk, StorageError};

/// A tree's directory, and what is known to be wrong with it.
pub(super) struct Place {
    shard: ShardId,
    pub(super) disk: Arc<FileDisk>,
    pub(super) dir: String,
    /// The first damage, once something could not be read. Looked for once: that takes reading everything.
    damage: OnceLock<Option<(String, u64, &'static str)>>,
}

impl Place {
    pub(super) fn new(shard: ShardId, disk: Arc<FileDisk>, dir: String) -> Place {
        Place { shard, disk, dir, damage: OnceLock::new() }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.disk.name(), self.dir)
    }

    /// What the library says, or better: which file is damaged, and where.
    pub(super) fn explain(&self, source: lsm_tree::Error) -> StorageError {
        let table = |source| StorageError::Table { shard: self.shard, path: self.path(), source };
        if let lsm_tree::Error::Io(error) = &source
            && !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound)
        {
            return table(source);
        }
        let damage = self.damage.get_or_init(|| match files::find(&*self.disk, &self.dir) {
            Some(StorageError::Corrupt { path, offset, reason }) => Some((path, offset, reason)),
            _ => None,
        });
        match damage.clone() {
            Some((path, offset, reason)) => StorageError::Corrupt { path, offset, reason },
            None => table(source),
        }
    }
}
