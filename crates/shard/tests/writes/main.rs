//! Writes that depend on what is there: conditions, increments, and sessions. Each against a model that is as simple as
//! can be.

use bytes::Bytes;
use ringfort_shard::{SessionLimits, Shard};
use ringfort_storage::{MemoryTables, Tables};
use ringfort_types::{
    Change, Command, Condition, Consistency, Entry, EntryKind, HybridClock, Index, LogEntry, Part, Reply,
    Request, Row, ShardId, Stamped, Term,
};

mod conditions;
mod model;
mod sessions;

pub(crate) const ID: ShardId = ShardId(7);
pub(crate) const TERM: Term = Term(3);

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    Command::Put { key: text(key), value: text(value) }
}

pub(crate) fn delete(key: &str) -> Command {
    Command::Delete { key: text(key) }
}

pub(crate) fn increment(key: &str, by: i64) -> Command {
    Command::Increment { key: text(key), by }
}

pub(crate) fn part(key: &str, condition: Option<Condition>, change: Change) -> Part {
    Part { key: text(key), condition, change }
}

pub(crate) fn put_if(key: &str, condition: Condition, value: &str) -> Command {
    Command::Write { parts: vec![part(key, Some(condition), Change::Put(text(value)))] }
}

/// Entry n has clock 10 n.
pub(crate) fn entry(index: u64, commands: Vec<Stamped>) -> LogEntry {
    let payload = Entry { clock: HybridClock(index * 10), commands }.encode();
    LogEntry { index: Index(index), term: TERM, kind: EntryKind::Normal, payload }
}

pub(crate) fn plain(index: u64, commands: Vec<Command>) -> LogEntry {
    entry(index, commands.into_iter().map(Into::into).collect())
}

pub(crate) fn fresh() -> Shard {
    open(&MemoryTables::default(), SessionLimits::default())
}

pub(crate) fn open(tables: &MemoryTables, limits: SessionLimits) -> Shard {
    Shard::open(ID, tables.open(ID).unwrap(), limits).unwrap()
}

pub(crate) fn get(shard: &Shard, key: &str) -> Option<Row> {
    let request = Request::Get { key: text(key), consistency: Consistency::Linearizable };
    match shard.reader().query(&request, shard.applied()) {
        Reply::Value { row, .. } => row,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn value(shard: &Shard, key: &str) -> Option<String> {
    get(shard, key).map(|row| String::from_utf8(row.value.to_vec()).unwrap())
}
