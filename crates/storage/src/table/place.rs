//! A tree's directory, and what is known to be wrong with it.

use std::sync::{Arc, OnceLock};

use ringfort_types::ShardId;

use super::files;
use crate::disk::Disk;
use crate::error::is_io_damage;
use crate::{FileDisk, StorageError};

/// A tree's directory, and what is known to be wrong with it.
pub(super) struct Place {
    shard: ShardId,
    pub(super) disk: Arc<FileDisk>,
    pub(super) dir: String,
    /// The first damage, once something could not be read. Looked for once: that takes reading everything.
    damage: OnceLock<Option<StorageError>>,
}

impl Place {
    pub(super) fn new(shard: ShardId, disk: Arc<FileDisk>, dir: String) -> Place {
        Place { shard, disk, dir, damage: OnceLock::new() }
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.disk.name(), self.dir)
    }

    /// What the library says. For what only writes: no file that is there is at fault.
    pub(super) fn of_tree(&self, source: lsm_tree::Error) -> StorageError {
        StorageError::Table { shard: self.shard, path: self.path(), source }
    }

    /// What the library says, or better: which file is damaged, and where.
    pub(super) fn explain(&self, source: lsm_tree::Error) -> StorageError {
        if let lsm_tree::Error::Io(error) = &source
            && !is_io_damage(error)
        {
            return self.of_tree(source);
        }
        let damage = self.damage.get_or_init(|| files::find(&*self.disk, &self.dir));
        damage.as_ref().and_then(StorageError::again).unwrap_or_else(|| self.of_tree(source))
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Incarnation, Index};

    use super::*;
    use crate::{LsmTables, TableOptions, Tables};

    /// What the library says names no file.
    #[test]
    fn a_table_that_can_not_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let tables = LsmTables::new(disk.clone(), Incarnation(1), TableOptions::default());
        let table = tables.open(ShardId(1)).unwrap();
        table.write(Index(1), &[("key".into(), Some("value".into()))]);
        table.rotate();
        table.flush(Index(0)).unwrap();
        let dir = "lane-0/shards/1".to_owned();
        let bad_sector = || lsm_tree::Error::Io(std::io::Error::from_raw_os_error(5));
        let place = Place::new(ShardId(1), disk.clone(), dir.clone());
        assert!(place.explain(bad_sector()).to_string().contains("the table of shard 1"), "all can be read");

        let path = root.path().join(&dir).join("tables/0");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let place = Place::new(ShardId(1), disk, dir);
        for _ in 0..2 {
            let error = place.explain(bad_sector());
            let told = error.to_string();
            assert!(error.is_damage() && told.contains(&format!("can't read {}", path.display())), "{told}");
        }
        let full = lsm_tree::Error::Io(std::io::ErrorKind::StorageFull.into());
        assert!(place.explain(full).is_disk_full());
    }
}
