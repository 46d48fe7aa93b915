//! Files of a tree that have changed: what is read is right, or an error names the file and the place.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringfort_storage::{FileDisk, LsmTables, StorageError, Table, TableOptions, Tables};
use ringfort_types::{Index, ShardId};

const SHARD: ShardId = ShardId(1);
const ROWS: u64 = 900;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key{number:04}"))
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value of {number} ").repeat(9))
}

fn open(root: &Path) -> Result<Arc<dyn Table>, StorageError> {
    LsmTables::new(Arc::new(FileDisk::open(root).unwrap()), TableOptions::default()).open(SHARD)
}

/// A tree of several files, one of them merged of others, which only [`flush`] has written.
fn fill(root: &Path) {
    let table = open(root).unwrap();
    for number in 0..ROWS {
        table.write(Index(number + 1), &[(key(number), Some(value(number)))]);
        if number % 150 == 149 {
            flush(&*table);
        }
        if number == 749 {
            while table.compact(Index(number + 1)).unwrap() {}
        }
    }
}

fn flush(table: &dyn Table) {
    table.rotate();
    table.flush(table.durable()).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Reads everything, each row and all of them; the error that there was.
fn read_all(root: &Path) -> Option<StorageError> {
    let table = match open(root) {
        Ok(table) => table,
        Err(error) => return Some(error),
    };
    let at = Index(ROWS);
    let mut found = None;
    for number in 0..ROWS {
        match table.get(&key(number), at) {
            Ok(read) => assert_eq!(read, Some(value(number)), "row {number}"),
            Err(error) => found = Some(error),
        }
    }
    let mut rows = 0;
    let scanned = table.scan(b"", None, at, &mut |scanned, read| {
        assert_eq!((scanned, read), (&*key(rows), &value(rows)));
        rows += 1;
        ControlFlow::Continue(())
    });
    match scanned {
        Ok(()) => assert_eq!(rows, ROWS),
        Err(error) => found = Some(error),
    }
    found
}

/// Does something to a file, reads everything, and puts it back. Says whether it was noticed, and the place is then
/// checked.
fn with(root: &Path, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
    let whole = fs::read(path).unwrap();
    let mut bytes = whole.clone();
    change(&mut bytes);
    fs::write(path, &bytes).unwrap();
    let found = read_all(root);
    let is_noticed = found.is_some();
    if let Some(error) = found {
        let StorageError::Corrupt { path: named, offset, .. } = &error else {
            panic!("{}: {error}", path.display())
        };
        let beside =
            path.file_name().is_some_and(|name| name == "current" || name.to_string_lossy().starts_with('v'));
        let is_named = Path::new(named) == path || (beside && Path::new(named).parent() == path.parent());
        assert!(is_named, "{} is damaged: {error}", path.display());
        let last = whole.iter().zip(&bytes).rposition(|(a, b)| a != b).unwrap_or(bytes.len());
        assert!(*offset <= last as u64 || bytes.len() < whole.len(), "up to {last}: {error}");
        assert!(error.is_damage() && error.to_string().contains("put the file back"), "{error}");
    }
    fs::write(path, whole).unwrap();
    is_noticed
}

#[test]
fn whatever_changes_in_a_tree_is_noticed_or_of_no_effect() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path());
    assert!(read_all(root.path()).is_none());
    let files = files(root.path());
    assert!(files.len() >= 4, "{files:?}");
    for path in &files {
        let length = fs::metadata(path).unwrap().len() as usize;
        let is_table = path.parent().is_some_and(|parent| parent.ends_with("tables"));
        let mut noticed = 0;
        // All bytes of what is small, and of a table's end; some of its blocks.
        let places: Vec<usize> =
            (0..length).filter(|at| *at + 300 > length || at % 1201 == 0 || !is_table).collect();
        for at in &places {
            noticed += usize::from(with(root.path(), path, |bytes| bytes[*at] ^= 1 << (at % 8)));
        }
        let name = path.display();
        // One byte of a table says its version, and is in a block too.
        assert!(noticed + 1 >= places.len(), "{name}: {noticed} of {} were noticed", places.len());
        for cut in [0, 1, length / 3, length / 2, length - 1] {
            assert!(with(root.path(), path, |bytes| bytes.truncate(cut)), "{name} was cut to {cut}");
        }
        for at in [0, length / 2, length.saturating_sub(4096)] {
            let zero = |bytes: &mut Vec<u8>| bytes[at..(at + 4096).min(length)].fill(0);
            assert!(with(root.path(), path, zero), "{name} was zeroed from {at} on");
        }
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let error = read_all(root.path()).unwrap().to_string();
        assert!(error.contains(&name.to_string()) && error.contains("missing"), "{error}");
        fs::write(path, whole).unwrap();
    }
    assert!(read_all(root.path()).is_none(), "and nothing was changed");
}

#[test]
fn a_compaction_that_meets_damage_leaves_the_tree_alone() {
    let root = tempfile::tempdir().unwrap();
    let table = open(root.path()).unwrap();
    let number = |number: u64| Bytes::from(number.to_string());
    for index in 1..=3 {
        table.write(Index(index), &[("key".into(), Some(number(index)))]);
        flush(&*table);
    }
    let path =
        files(root.path()).into_iter().find(|path| path.parent().unwrap().ends_with("tables")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    table.write(Index(4), &[("key".into(), Some(number(4)))]);
    flush(&*table);
    let before = files(root.path());
    let error = table.compact(Index(4)).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(!table.compact(Index(4)).unwrap(), "it is not tried again");
    // What is well is read, and written.
    table.write(Index(5), &[("key".into(), Some(number(5)))]);
    flush(&*table);
    assert_eq!(table.get(b"key", Index(5)).unwrap(), Some(number(5)));
    assert_eq!(table.durable(), Index(5));
    drop(table);
    let after = files(root.path());
    assert!(
        before
            .iter()
            .filter(|path| path.parent().unwrap().ends_with("tables"))
            .all(|path| after.contains(path))
    );
    assert_eq!(open(root.path()).unwrap().get(b"key", Index(5)).unwrap(), Some(number(5)));
}
