//! Files of a tree that have changed: what is read is right, or an error names the file and the place.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ringfort_storage::{FileDisk, LsmTables, StorageError, Table, TableOptions, Tables};
use ringfort_types::{Incarnation, Index, ShardId};

const SHARD: ShardId = ShardId(1);
const ROWS: u64 = 900;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key{number:04}"))
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value of {number} ").repeat(9))
}

fn open(root: &Path) -> Result<Arc<dyn Table>, StorageError> {
    LsmTables::new(Arc::new(FileDisk::open(root).unwrap()), Incarnation(1), TableOptions::default())
        .open(SHARD)
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
        assert!(*offset <= last as u64 || bytes.len() != whole.len(), "up to {last}: {error}");
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
    let mut files = files(root.path());
    // It is not needed, and has a test of its own.
    files.retain(|path| !path.ends_with("owner"));
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
        for more in [1, 4096] {
            let lengthen = |bytes: &mut Vec<u8>| bytes.resize(length + more, 0);
            assert!(with(root.path(), path, lengthen), "{name} was lengthened by {more}");
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

fn open_of(
    root: &Path,
    incarnation: u64,
    shard: u32,
    generation: u64,
) -> Result<Arc<dyn Table>, StorageError> {
    let disk = Arc::new(FileDisk::open(root).unwrap());
    let tables = LsmTables::new(disk, Incarnation(incarnation), TableOptions::default());
    tables.open_generation(ShardId(shard), generation)
}

fn dir(root: &Path, name: &str) -> PathBuf {
    root.join("lane-0/shards").join(name)
}

/// The tables in a tree's directory.
fn tables(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("tables"))
}

/// Trees of these shards, each with the same keys, and values of its own.
fn fill_many(root: &Path, shards: &[u32]) {
    for shard in shards {
        let table = open_of(root, 1, *shard, 0).unwrap();
        for index in 1..=3u64 {
            let value = Bytes::from(format!("{index} of {shard}"));
            table.write(Index(index), &[("key".into(), Some(value))]);
            flush(&*table);
        }
    }
}

fn misplaced(opened: Result<Arc<dyn Table>, StorageError>, path: &Path) -> String {
    let error = opened.expect_err("it is another's");
    assert!(
        matches!(&error, StorageError::Misplaced { path: named, .. } if Path::new(named) == path),
        "{error}"
    );
    assert!(error.is_damage() && error.to_string().contains("put the file back"), "{error}");
    error.to_string()
}

#[test]
fn a_whole_table_in_the_place_of_another_is_noticed_when_the_tree_is_opened() {
    let root = tempfile::tempdir().unwrap();
    fill_many(root.path(), &[1, 2]);
    let (one, two) = (tables(&dir(root.path(), "1")), tables(&dir(root.path(), "2")));
    assert!(one.len() >= 2 && two.len() >= 2, "{one:?} {two:?}");
    let owner = dir(root.path(), "1").join("owner");
    for (from, to) in [(&two[0], &one[0]), (&one[1], &one[0]), (&one[0], &one[1])] {
        let whole = fs::read(to).unwrap();
        fs::copy(from, to).unwrap();
        misplaced(open_of(root.path(), 1, 1, 0), to);
        // Also where nothing is known of the tables but what the list says.
        let known = fs::read(&owner).unwrap();
        fs::remove_file(&owner).unwrap();
        misplaced(open_of(root.path(), 1, 1, 0), to);
        fs::write(&owner, known).unwrap();
        fs::write(to, whole).unwrap();
    }
    let table = open_of(root.path(), 1, 1, 0).unwrap();
    assert_eq!(table.get(b"key", Index(3)).unwrap(), Some("3 of 1".into()));
}

#[test]
fn a_table_that_is_exchanged_while_the_tree_is_open_is_named_once_it_can_not_be_read() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path());
    fill_many(root.path(), &[2]);
    let other = fs::read(&tables(&dir(root.path(), "2"))[0]).unwrap();
    let table = open(root.path()).unwrap();
    let paths = tables(&dir(root.path(), "1"));
    for path in &paths {
        // In place: whoever has it open reads it, too.
        fs::write(path, &other).unwrap();
    }
    let error = (0..ROWS).find_map(|number| table.get(&key(number), Index(ROWS)).err()).unwrap();
    let StorageError::Misplaced { path, .. } = &error else { panic!("{error}") };
    assert!(paths.iter().any(|known| known == Path::new(path)), "{error}");
}

#[test]
fn a_directory_of_another_shard_generation_or_node_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    fill_many(root.path(), &[1, 2]);
    let (one, two, aside) = (dir(root.path(), "1"), dir(root.path(), "2"), dir(root.path(), "aside"));
    let swap = || {
        fs::rename(&one, &aside).unwrap();
        fs::rename(&two, &one).unwrap();
        fs::rename(&aside, &two).unwrap();
    };
    swap();
    let told = misplaced(open_of(root.path(), 1, 1, 0), &one.join("owner"));
    assert!(told.contains("belongs to another place: the directory of shard 2, generation 0"), "{told}");
    misplaced(open_of(root.path(), 1, 2, 0), &two.join("owner"));
    swap();
    fs::rename(&two, dir(root.path(), "2.1")).unwrap();
    misplaced(open_of(root.path(), 1, 2, 1), &dir(root.path(), "2.1").join("owner"));
    let told = misplaced(open_of(root.path(), 2, 1, 0), &one.join("owner"));
    assert!(told.contains("belongs to another place: another node or disk (shard 1, 0x1)"), "{told}");
    let table = open_of(root.path(), 1, 1, 0).unwrap();
    assert_eq!(table.get(b"key", Index(3)).unwrap(), Some("3 of 1".into()));
}

#[test]
fn a_directory_without_tables_has_no_owner_and_one_with_tables_has() {
    let root = tempfile::tempdir().unwrap();
    let owner = dir(root.path(), "1").join("owner");
    for _again in 0..2 {
        let table = open_of(root.path(), 1, 1, 0).unwrap();
        assert_eq!(table.get(b"key", Index(3)).unwrap(), None);
        assert!(!owner.exists(), "a file, and two syncs, for each shard at a cluster's birth");
    }
    fill_many(root.path(), &[1]);
    assert!(owner.exists());
}

#[test]
fn what_is_known_of_tables_is_made_anew_where_it_is_lost() {
    let root = tempfile::tempdir().unwrap();
    fill_many(root.path(), &[1]);
    let owner = dir(root.path(), "1").join("owner");
    let whole = fs::read(&owner).unwrap();
    assert!(whole.len() > 100, "it knows the tables: {} bytes", whole.len());
    let is_made_anew = || {
        let table = open_of(root.path(), 1, 1, 0).unwrap();
        assert_eq!(table.get(b"key", Index(3)).unwrap(), Some("3 of 1".into()));
        assert_eq!(fs::read(&owner).unwrap(), whole);
    };
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&owner, bytes).unwrap();
        is_made_anew();
    }
    fs::write(&owner, &whole[..whole.len() / 2]).unwrap();
    is_made_anew();
    fs::write(&owner, [&whole[..], &[0; 100]].concat()).unwrap();
    is_made_anew();
    fs::remove_file(&owner).unwrap();
    is_made_anew();
    // As in a directory of before a merge that was done when the process was killed: fewer tables are known than there are.
    fill_many(root.path(), &[7]);
    let seven = dir(root.path(), "7");
    let before = fs::read(seven.join("owner")).unwrap();
    {
        let table = open_of(root.path(), 1, 7, 0).unwrap();
        table.write(Index(4), &[("key".into(), Some("4".into()))]);
        flush(&*table);
        assert!(table.merge(Index(4)).unwrap());
    }
    let after = fs::read(seven.join("owner")).unwrap();
    assert_ne!(before, after, "a merge is stored");
    fs::write(seven.join("owner"), before).unwrap();
    assert_eq!(open_of(root.path(), 1, 7, 0).unwrap().get(b"key", Index(4)).unwrap(), Some("4".into()));
    assert_eq!(fs::read(seven.join("owner")).unwrap(), after);
    // Only its tables show that there was a tree.
    fs::remove_file(seven.join("current")).unwrap();
    fs::remove_dir_all(seven.join("tables")).unwrap();
    let error = open_of(root.path(), 1, 7, 0).unwrap_err().to_string();
    assert!(error.contains("7/current") && error.contains("`owner` beside it names tables"), "{error}");
}

#[test]
fn what_is_no_file_where_one_should_be_is_damage_of_that_shard() {
    let root = tempfile::tempdir().unwrap();
    fill_many(root.path(), &[1]);
    let shard = dir(root.path(), "1");
    let told = |path: &Path| {
        let error = open_of(root.path(), 1, 1, 0).unwrap_err();
        let text = error.to_string();
        assert!(error.is_damage() && text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains("move it away, and put"), "{text}");
    };
    for path in [shard.join("current"), tables(&shard)[0].clone(), shard.join("tables")] {
        let aside = shard.join("aside");
        fs::rename(&path, &aside).unwrap();
        let is_dir = aside.is_dir();
        if is_dir {
            fs::write(&path, "").unwrap();
            told(&path);
            fs::remove_file(&path).unwrap();
        } else {
            fs::create_dir(&path).unwrap();
            told(&path);
            fs::remove_dir(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
            told(&path);
            fs::remove_file(&path).unwrap();
        }
        fs::rename(aside, path).unwrap();
    }
    let unlisted = shard.join("tables/77");
    fs::create_dir(&unlisted).unwrap();
    told(&unlisted);
    fs::remove_dir(&unlisted).unwrap();
    open_of(root.path(), 1, 1, 0).unwrap();
}
