//! A table cut into chunks and put together again, from each engine to each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_storage::{
    FileDisk, LsmTables, MemoryTables, SnapshotReader, SnapshotWriter, Table, TableOptions, Tables, Taken,
};
use ringfort_types::{Incarnation, Index, ShardId};

const SHARD: ShardId = ShardId(3);
const AT: Index = Index(40);

fn lsm(root: &tempfile::TempDir) -> LsmTables {
    LsmTables::new(Arc::new(FileDisk::open(root.path()).unwrap()), Incarnation(1), TableOptions::default())
}

fn put(table: &dyn Table, index: u64, key: String, value: Vec<u8>) {
    table.write(Index(index), &[(Bytes::from(key), Some(Bytes::from(value)))]);
}

/// Rows of several kinds, some overwritten, some removed, in memory and flushed.
fn fill(table: &dyn Table) {
    for index in 1..=AT.0 {
        put(table, index, format!("\x01key{:03}", index % 17), vec![index as u8; (index * 13) as usize]);
        if index % 5 == 0 {
            table.write(Index(index), &[(Bytes::from(format!("\x01key{:03}", index % 3)), None)]);
        }
        if index == 20 {
            table.rotate();
            table.flush(Index(20)).unwrap();
        }
    }
    put(table, AT.0, "\x03state".into(), b"at 40".to_vec());
    put(table, AT.0, "\x07other kind".into(), Vec::new());
}

fn rows(table: &dyn Table, at: Index) -> BTreeMap<Bytes, Bytes> {
    table.rows(at).unwrap().map(Result::unwrap).collect()
}

fn chunks(table: &dyn Table, bytes_max: usize) -> Vec<Bytes> {
    let mut reader = SnapshotReader::new(SHARD, table, AT).unwrap();
    let mut chunks = Vec::new();
    loop {
        let chunk = reader.next_chunk(bytes_max).unwrap();
        assert!(chunk.bytes.len() < bytes_max + 700, "a chunk is at most one row too large");
        chunks.push(chunk.bytes);
        if chunk.is_last {
            return chunks;
        }
    }
}

fn copy(from: &dyn Tables, to: &dyn Tables) {
    let old = from.open(SHARD).unwrap();
    fill(&*old);
    let expected = rows(&*old, AT);
    assert!(expected.len() > 15);
    for (generation, bytes_max) in
        [(1, 64), (2, 1000), (3, usize::MAX / 2)].map(|(g, b): (u64, usize)| (g, b.min(1 << 20)))
    {
        let parts = chunks(&*old, bytes_max);
        let mut writer = SnapshotWriter::new(to, SHARD, generation).unwrap();
        let (last, others) = parts.split_last().unwrap();
        for part in others {
            assert_eq!(writer.take(part).unwrap(), Taken::More);
            assert_eq!(writer.take(part).unwrap(), Taken::Refused, "each once");
        }
        assert_eq!(writer.take(last).unwrap(), Taken::Complete);
        drop(writer);
        let table = to.open_generation(SHARD, generation).unwrap();
        assert_eq!((table.durable(), table.collected()), (AT, AT));
        assert_eq!(rows(&*table, AT), expected);
        put(&*table, AT.0 + 1, "\x01key000".into(), b"goes on".to_vec());
        assert_eq!(table.get(b"\x01key000", AT.next()).unwrap(), Some(Bytes::from_static(b"goes on")));
        assert!(table.get(b"\x01key000", Index(AT.0 - 1)).is_err(), "nothing is known of what was before");
    }
}

#[test]
fn a_table_arrives_as_it_was_whatever_the_size_of_its_chunks() {
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    copy(&MemoryTables::new(), &MemoryTables::new());
    copy(&lsm(&roots[0]), &MemoryTables::new());
    copy(&MemoryTables::new(), &lsm(&roots[1]));
}

#[test]
fn what_is_held_stays_as_it_was_while_the_table_goes_on() {
    let root = tempfile::tempdir().unwrap();
    for tables in [&lsm(&root) as &dyn Tables, &MemoryTables::new()] {
        let table = tables.open(SHARD).unwrap();
        fill(&*table);
        let expected = rows(&*table, AT);
        let mut held = table.rows(AT).unwrap();
        let first = held.next().unwrap().unwrap();
        for index in AT.0 + 1..AT.0 + 200 {
            put(&*table, index, format!("\x01key{:03}", index % 17), b"new".to_vec());
            if index % 20 == 0 {
                table.rotate();
                table.flush(Index(index)).unwrap();
                table.compact(Index(index)).unwrap();
            }
        }
        let rest: Vec<_> = held.map(Result::unwrap).collect();
        assert_eq!(std::iter::once(first).chain(rest).collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn damaged_and_strange_chunks_are_refused_and_change_nothing() {
    let tables = MemoryTables::new();
    let table = tables.open(SHARD).unwrap();
    fill(&*table);
    let parts = chunks(&*table, 300);
    assert!(parts.len() > 3);
    let mut writer = SnapshotWriter::new(&tables, SHARD, 1).unwrap();
    let refuses = |writer: &mut SnapshotWriter, bytes: &[u8]| {
        assert_eq!(writer.take(&Bytes::copy_from_slice(bytes)).unwrap(), Taken::Refused);
    };
    for at in 0..parts[0].len() {
        let mut damaged = parts[0].to_vec();
        damaged[at] ^= 0x20;
        refuses(&mut writer, &damaged);
    }
    for length in [0, 3, 27, 28, 31, parts[0].len() - 1] {
        refuses(&mut writer, &parts[0][..length]);
    }
    refuses(&mut writer, &parts[1]);
    let mut other = SnapshotReader::new(ShardId(4), &*table, AT).unwrap();
    refuses(&mut writer, &other.next_chunk(300).unwrap().bytes);
    assert_eq!(writer.take(&parts[0]).unwrap(), Taken::More);
    let mut later = SnapshotReader::new(SHARD, &*table, AT.next()).unwrap();
    later.next_chunk(300).unwrap();
    refuses(&mut writer, &later.next_chunk(300).unwrap().bytes);
    for (at, part) in parts.iter().enumerate().skip(1) {
        let expected = if at + 1 == parts.len() { Taken::Complete } else { Taken::More };
        assert_eq!(writer.take(part).unwrap(), expected);
    }
}

#[test]
fn generations_lie_side_by_side_and_go_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(root.path().join("lane-0/shards"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let tables = lsm(&root);
    let old = tables.open(SHARD).unwrap();
    fill(&*old);
    old.rotate();
    old.flush(AT).unwrap();
    for generation in [1, 2, 10] {
        drop(tables.open_generation(SHARD, generation).unwrap());
    }
    drop(tables.open(ShardId(30)).unwrap());
    assert_eq!(names(), ["3", "3.1", "3.10", "3.2", "30"]);
    tables.remove_generation(SHARD, 1).unwrap();
    assert_eq!(names(), ["3", "3.10", "3.2", "30"]);
    tables.remove_generation(SHARD, 0).unwrap();
    assert!(old.get(b"\x03state", AT).unwrap().is_some(), "somebody still reads it");
    assert_eq!(names(), ["3", "3.10", "3.2", "30"]);
    drop(old);
    assert_eq!(names(), ["3.10", "3.2", "30"]);
    tables.keep_generation(SHARD, 2).unwrap();
    assert_eq!(names(), ["3.2", "30"]);
}
