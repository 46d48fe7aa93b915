//! How fast this disk takes batches and this machine takes rows.
//!
//! `cargo run --release -p ringfort-storage --example speed [DIR]` makes files below DIR (default: the system's
//! place for temporary ones), prints one line per measurement, and removes them.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_storage::{FileDisk, Log, LogOptions, LsmTables, Owner, TableOptions, Tables};
use ringfort_types::{EntryKind, Incarnation, Index, LogEntry, Record, ShardId, Term};

const OWNER: Owner = Owner { cluster: 1, incarnation: Incarnation(1), lane: 0 };
const SHARDS: u32 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let root = tempfile::tempdir_in(place)?;
    let disk = Arc::new(FileDisk::open(root.path())?);
    for (entries, bytes) in [(1, 100), (1, 4096), (64, 100), (1, 65_536), (1024, 100)] {
        append(&disk, entries, bytes)?;
    }
    recover(&disk)?;
    rows(disk)
}

fn batch(index: u64, entries: u64, bytes: usize) -> Vec<Record> {
    let payload = Bytes::from(vec![index as u8; bytes]);
    (0..entries)
        .map(|at| {
            let shard = ShardId((at % u64::from(SHARDS)) as u32);
            let index = Index(index * entries.div_ceil(u64::from(SHARDS)) + at / u64::from(SHARDS) + 1);
            Record::Entry(
                shard,
                LogEntry { index, term: Term(1), kind: EntryKind::Normal, payload: payload.clone() },
            )
        })
        .collect()
}

/// One large entry of a shard that is not measured.
fn filler(index: u64, bytes: usize) -> [Record; 1] {
    let entry = LogEntry { index: Index(index), payload: Bytes::from(vec![0; bytes]), ..LogEntry::default() };
    [Record::Entry(ShardId(SHARDS), entry)]
}

fn append(disk: &Arc<FileDisk>, entries: u64, bytes: usize) -> Result<(), Box<dyn Error>> {
    for ahead in [false, true] {
        append_into(disk, entries, bytes, ahead)?;
    }
    Ok(())
}

fn append_into(disk: &Arc<FileDisk>, entries: u64, bytes: usize, ahead: bool) -> Result<(), Box<dyn Error>> {
    let dir = format!("append-{entries}-{bytes}-{ahead}");
    let (mut log, _) = Log::open(disk.clone(), &dir, OWNER, LogOptions::default())?;
    if ahead {
        // Fill the first segment, and go on in one made ahead.
        log.append(&filler(1, 16_000_000))?;
        log.ahead().make()?;
        log.append(&filler(2, 1_000_000))?;
    }
    let mut took = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) && took.len() * bytes * (entries as usize) < 50_000_000 {
        let batch = batch(took.len() as u64, entries, bytes);
        let before = Instant::now();
        log.append(&batch)?;
        took.push(before.elapsed());
    }
    let total: Duration = took.iter().sum();
    let count = took.len();
    took.sort_unstable();
    println!(
        "append {entries:>5} × {bytes:>6} B, {}: {:>7.0} batches/s, {:>7.1} MB/s, p50 {:>4} µs, p99 {:>4} µs, max {:>6} µs",
        if ahead { "made ahead" } else { "set aside " },
        count as f64 / total.as_secs_f64(),
        (count as u64 * entries * bytes as u64) as f64 / 1e6 / total.as_secs_f64(),
        took[count / 2].as_micros(),
        took[count * 99 / 100].as_micros(),
        took[count - 1].as_micros(),
    );
    Ok(())
}

fn recover(disk: &Arc<FileDisk>) -> Result<(), Box<dyn Error>> {
    let (mut log, _) = Log::open(disk.clone(), "recover", OWNER, LogOptions::default())?;
    let mut bytes = 0;
    for index in 0..2500 {
        let batch = batch(index, 1024, 150);
        bytes += batch.len() * 150;
        log.append(&batch)?;
    }
    drop(log);
    let start = Instant::now();
    let (log, shards) = Log::open(disk.clone(), "recover", OWNER, LogOptions::default())?;
    let opened = start.elapsed();
    let wanted: BTreeMap<_, _> =
        shards.iter().map(|(shard, found)| (*shard, (Index(0), found.last))).collect();
    let start = Instant::now();
    let mut entries = 0u64;
    log.reader().replay(&wanted, &mut |_, _| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    let replayed = start.elapsed();
    let start = Instant::now();
    let reader = log.reader();
    for turn in 0..1000u64 {
        let from = 1 + turn * 7919 % 39_000;
        reader.entries(ShardId((turn % 64) as u32), Index(from), Index(from + 10), usize::MAX)?;
    }
    let looked = start.elapsed() / 1000;
    println!(
        "recover {} MB: {opened:.0?} ({:.0} MB/s); replay of {entries} entries: {replayed:.0?}; 10 old entries of a shard: {looked:.0?}",
        bytes / 1_000_000,
        bytes as f64 / 1e6 / opened.as_secs_f64(),
    );
    Ok(())
}

fn rows(disk: Arc<FileDisk>) -> Result<(), Box<dyn Error>> {
    const ROWS: u64 = 2_000_000;
    const FLUSH_BYTES: u64 = 32 * 1024 * 1024;
    let tables = LsmTables::new(disk, Incarnation(1), TableOptions::default());
    let table = tables.open(ShardId(1))?;
    let key = |number: u64| {
        Bytes::from(format!("\u{1}\0key{:012}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % ROWS))
    };
    let value = Bytes::from(vec![7; 100]);
    let (mut writing, mut flushing) = (Duration::ZERO, Duration::ZERO);
    for index in 1..=ROWS {
        // As a shard does it: both buffers are new.
        let row = [(key(index), Some(Bytes::from(value.to_vec())))];
        let start = Instant::now();
        table.write(Index(index), &row);
        writing += start.elapsed();
        if table.memory_bytes() > FLUSH_BYTES {
            let start = Instant::now();
            table.rotate();
            table.flush(Index(index))?;
            table.compact(Index(index))?;
            flushing += start.elapsed();
        }
    }
    println!(
        "rows of 100 B: write {:.2} µs each; flush and compaction {:.2} µs each; about {} rows, {} MB",
        writing.as_secs_f64() * 1e6 / ROWS as f64,
        flushing.as_secs_f64() * 1e6 / ROWS as f64,
        table.rows_estimate(),
        table.bytes_estimate() / 1_000_000,
    );
    for (pass, keys) in [("from everywhere", 200_000), ("among 2,000 rows", 2_000)] {
        let start = Instant::now();
        for turn in 0..200_000 {
            assert!(table.get(&key(turn % keys * 7), Index(ROWS))?.is_some());
        }
        println!("get {pass}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / 200_000.0);
    }
    let start = Instant::now();
    let mut seen = 0u64;
    table.scan(&[], None, Index(ROWS), &mut |_, _| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    println!("scan: {seen} rows, {:.2} µs each", start.elapsed().as_secs_f64() * 1e6 / seen as f64);
    Ok(())
}
