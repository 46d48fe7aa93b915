//! The shared log against a naive model: large batches, a full disk, segments made ahead, readers on other
//! threads; and, in the modules, crashes, damage, and what is let go of.

mod collect;
mod crash;
mod damage;
mod engine;
mod model;
mod scripts;

use std::sync::Arc;

use ringfort_storage::{FileDisk, Log, LogOptions, SimDisk};
use ringfort_types::{Index, ShardId};

use crate::model::{DIR, Model, OWNER, SMALL, entry, open};

#[test]
fn large_values_and_batches_larger_than_a_segment() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes: 1024 * 1024, ..SMALL };
    let (mut log, _) = open(&disk, options).unwrap();
    let mut model = Model::default();
    let value = vec![7; 8 * 1024 * 1024];
    let batches = [
        vec![entry(1, 1, 1, b"small"), entry(2, 1, 1, &value)],
        vec![
            entry(1, 2, 1, &value),
            entry(1, 3, 1, &value),
            entry(2, 2, 1, b"between"),
            entry(1, 4, 1, &value),
        ],
        vec![entry(1, 5, 1, b"small again")],
    ];
    let syncs = disk.counts().0;
    for batch in &batches {
        log.append(batch).unwrap();
        model.append(batch);
    }
    // Each begins a segment: that makes the file's length durable, and is recorded.
    assert_eq!(disk.counts().0 - syncs, 3 + 2 * 3, "one sync a batch, whatever its size");
    model.check(&log.reader());
    let one = log.reader().entries(ShardId(1), Index(2), Index(6), 1000).unwrap();
    assert_eq!(one.len(), 1);
    drop(log);
    let (log, recovered) = open(&disk, options).unwrap();
    assert_eq!(recovered, model.recovered());
    model.check(&log.reader());
}

#[test]
fn a_full_disk_takes_nothing_and_takes_the_same_batch_later() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    disk.set_capacity(Some(3 * SMALL.segment_bytes));
    let mut index = 0;
    let refused = loop {
        let batch = [entry(1, index + 1, 1, &[1; 300])];
        match log.append(&batch) {
            Ok(()) => {
                model.append(&batch);
                index += 1;
            }
            Err(error) => break (batch, error),
        }
    };
    assert!(refused.1.is_disk_full(), "{}", refused.1);
    assert!(log.append(&refused.0).unwrap_err().is_disk_full());
    model.check(&log.reader());
    disk.set_capacity(None);
    log.append(&refused.0).unwrap();
    model.append(&refused.0);
    model.check(&log.reader());
    drop(log);
    assert_eq!(open(&disk, SMALL).unwrap().1, model.recovered());
}

#[test]
fn a_segment_made_ahead_is_used_and_after_a_restart_it_is_made_anew() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let spare = format!("{DIR}/spare");
    log.ahead().make().unwrap();
    assert!(disk.bytes(&spare).is_none(), "an idle log makes none");
    log.append(&[entry(1, 1, 1, &[1; 1200])]).unwrap();
    log.ahead().make().unwrap();
    assert_eq!(disk.bytes(&spare).map(|bytes| bytes.len() as u64), Some(SMALL.segment_bytes));
    drop(log);
    disk.crash(3);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    assert!(disk.bytes(&spare).is_none(), "nobody knows what has become of it");
    log.ahead().make().unwrap();
    log.append(&[entry(1, 2, 1, &[2; 5000])]).unwrap();
    assert!(disk.bytes(&spare).is_some(), "a batch that does not fit into it leaves it");
    let syncs = disk.counts().0;
    log.append(&[entry(1, 3, 1, &[3; 1200])]).unwrap();
    assert_eq!(disk.counts().0, syncs + 2, "the batch's, and that it begins a segment is recorded");
    assert!(disk.bytes(&spare).is_none());
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered[&ShardId(1)].last, Index(3));
    let lengths: Vec<_> = log.reader().entries(ShardId(1), Index(1), Index(4), usize::MAX).unwrap();
    assert_eq!(lengths.iter().map(|entry| entry.payload.len()).collect::<Vec<_>>(), [1200, 5000, 1200]);
}

#[test]
fn readers_on_other_threads_see_whole_entries_while_the_writer_appends() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::open(root.path()).unwrap());
    let options = LogOptions { segment_bytes: 64 * 1024, ..SMALL };
    let (mut log, _) = Log::open(disk, DIR, OWNER, options).unwrap();
    log.append(&[entry(1, 1, 1, &[1; 100])]).unwrap();
    let written = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, written) = (log.reader(), &written);
            scope.spawn(move || {
                let mut turn = 0u64;
                loop {
                    let last = written.load(std::sync::atomic::Ordering::Acquire);
                    turn += 1;
                    let from = 1 + (turn * 7919) % last;
                    let found = reader.entries(ShardId(1), Index(from), Index(last + 1), 2000).unwrap();
                    assert!(!found.is_empty());
                    for (at, entry) in (from..).zip(&found) {
                        assert_eq!((entry.index.0, entry.payload[0]), (at, at as u8));
                    }
                    if last == 600 {
                        break;
                    }
                }
            });
        }
        for index in 2..=600u64 {
            log.append(&[entry(1, index, 1, &[index as u8; 300]), entry(2, index - 1, 1, b"noise")]).unwrap();
            written.store(index, std::sync::atomic::Ordering::Release);
        }
    });
}
