//! Writes that depend on what is there: conditions, increments, versions, and sessions. Each against a model that is as simple as
//! can be.

use bytes::Bytes;
use ringfort_shard::{SessionLimits, Shard};
use ringfort_storage::{MemoryTables, Tables};
use ringfort_types::{
    Change, Command, Condition, Configuration, Consistency, Entry, EntryKind, HybridClock, Index, LogEntry,
    NewValue, Part, Reply, Request, Row, ShardId, Stamped, Term, Version,
};

mod conditions;
mod model;
mod sessions;
mod versions;

pub(crate) const ID: ShardId = ShardId(7);
pub(crate) const TERM: Term = Term(3);

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn change(key: &str, change: Change) -> Command {
    Command::Write { parts: vec![part(key, None, change)] }
}

pub(crate) fn put(key: &str, value: &str) -> Command {
    change(key, Change::put(text(value)))
}

pub(crate) fn delete(key: &str) -> Command {
    change(key, Change::DELETE)
}

pub(crate) fn increment(key: &str, by: i64) -> Command {
    change(key, Change::Add(by))
}

pub(crate) fn part(key: &str, condition: Option<Condition>, change: Change) -> Part {
    Part { key: text(key), condition, change }
}

pub(crate) fn put_if(key: &str, condition: Condition, value: &str) -> Command {
    Command::Write { parts: vec![part(key, Some(condition), Change::put(text(value)))] }
}

/// As whoever has an order of their own writes: unless the key is newer. Deletes without a value.
pub(crate) fn versioned(key: &str, version: u64, value: Option<&str>) -> Command {
    let version = Version(version);
    let change = match value {
        Some(value) => Change::Put(NewValue { value: text(value), version: Some(version) }),
        None => Change::Delete { version: Some(version) },
    };
    Command::Write { parts: vec![part(key, Some(Condition::NotNewerThan(version)), change)] }
}

/// What came of the commands of an entry.
pub(crate) fn apply(shard: &mut Shard, entry: &LogEntry) -> Vec<Reply> {
    shard.apply(entry, 1).unwrap().replies
}

/// The sums of a write that was done.
pub(crate) fn sums(reply: &Reply) -> Option<Vec<i64>> {
    if let Reply::Written(receipt) = reply { Some(receipt.sums.clone()) } else { None }
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
    Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), limits).unwrap()
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
