//! Cuts and damage: a prefix of whole batches is recovered, or corruption is reported; never a changed record.

use std::sync::Arc;

use ringfort_storage::{Disk, Log, LogOptions, Owner, SimDisk, StorageError};
use ringfort_types::{Incarnation, Index, Record, ShardId};

use crate::model::{
    DIR, Model, OWNER, SMALL, batches_of, entry, hard_state, open, sample, segments, write_all,
};

/// Opens a log that was tampered with and holds it to: the first `whole` batches and nothing else; and it
/// goes on from there.
fn expect_prefix(disk: &SimDisk, batches: &[Vec<Record>], whole: usize, what: &str) {
    let (mut log, recovered) = open(disk, SMALL).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut model = Model::of(&batches[..whole]);
    assert_eq!(recovered, model.recovered(), "{what}");
    let last = model.last(ShardId(1));
    let more = [entry(1, last.0 + 1, 99, b"after the crash"), hard_state(2, 99, 1)];
    log.append(&more).unwrap();
    model.append(&more);
    model.check(&log.reader());
    drop(log);
    let (log, recovered) = open(disk, SMALL).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!(recovered, model.recovered(), "{what}, again");
    model.check(&log.reader());
}

#[test]
fn cut_at_every_byte_of_the_last_two_batches() {
    for salt in 0..6 {
        let batches = sample(12 + salt, salt);
        let disk = SimDisk::new();
        write_all(&disk, &batches);
        let places = batches_of(&disk);
        assert_eq!(places.len(), batches.len());
        for back in 1..=2 {
            let (path, range) = &places[places.len() - back];
            for at in range.clone() {
                for zeroes in [false, true] {
                    let disk = disk.fork();
                    let mut bytes = disk.bytes(path).unwrap();
                    let length = bytes.len();
                    bytes.truncate(at);
                    if zeroes {
                        bytes.resize(length, 0);
                    }
                    disk.set_bytes(path, &bytes);
                    for later in segments(&disk).iter().filter(|later| *later > path) {
                        disk.remove(later).unwrap();
                    }
                    // A cut before a header of a segment leaves a segment without one.
                    let what = format!("salt {salt}, cut at {at} of {path}, zeroes {zeroes}");
                    expect_prefix(&disk, &batches, batches.len() - back, &what);
                }
            }
        }
    }
}

#[test]
fn damage_to_every_byte_of_the_last_two_batches() {
    for salt in 0..6 {
        let batches = sample(12 + salt, salt);
        let disk = SimDisk::new();
        write_all(&disk, &batches);
        let places = batches_of(&disk);
        for back in 1..=2 {
            let (path, range) = &places[places.len() - back];
            for at in range.clone() {
                for mask in [0x01, 0x80, 0xff] {
                    let disk = disk.fork();
                    assert!(disk.damage(path, at as u64, mask));
                    let what = format!("salt {salt}, byte {at} of {path} damaged by {mask:#x}");
                    // In the header of a segment, damage can't be a torn write: it shares a sector with the
                    // header of the first batch, which is whole.
                    let in_header = range.start == 0 && at < 64;
                    if back == 1 && !in_header {
                        expect_prefix(&disk, &batches, batches.len() - 1, &what);
                        continue;
                    }
                    let before: Vec<_> = segments(&disk).iter().map(|path| disk.bytes(path)).collect();
                    let error = open(&disk, SMALL).unwrap_err();
                    assert!(matches!(error, StorageError::Corrupt { .. }), "{what}: {error}");
                    let after: Vec<_> = segments(&disk).iter().map(|path| disk.bytes(path)).collect();
                    assert_eq!(before, after, "{what}: something was changed");
                }
            }
        }
    }
}

#[test]
fn damage_anywhere_before_a_seal_is_noticed() {
    let batches = sample(9, 3);
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    for batch in &batches {
        log.append(batch).unwrap();
    }
    log.seal().unwrap();
    let writes = disk.counts().1;
    log.seal().unwrap();
    assert_eq!(disk.counts().1, writes, "a sealed log is not sealed again");
    drop(log);
    let mut places = batches_of(&disk);
    places.pop();
    for (path, range) in places {
        for at in range {
            let disk = disk.fork();
            disk.damage(&path, at as u64, 0x20);
            let error = open(&disk, SMALL).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "byte {at} of {path}: {error}");
        }
    }
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, Model::of(&batches).recovered());
    let writes = disk.counts().1;
    log.seal().unwrap();
    assert_eq!(disk.counts().1, writes, "a log that was opened sealed is not sealed again");
}

#[test]
fn a_missing_segment_is_noticed() {
    let batches = sample(30, 1);
    let disk = SimDisk::new();
    write_all(&disk, &batches);
    let all = segments(&disk);
    assert!(all.len() > 3);
    for missing in &all[..all.len() - 1] {
        let disk = disk.fork();
        disk.remove(missing).unwrap();
        assert!(matches!(open(&disk, SMALL).unwrap_err(), StorageError::Corrupt { .. }));
    }
}

#[test]
fn a_stored_value_that_looks_like_a_batch_does_not_pass_for_one() {
    // Copy a real frame into a value, then tear the batch that holds the value before that copy.
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, LogOptions { segment_bytes: 64 * 1024, ..SMALL }).unwrap();
    log.append(&[entry(1, 1, 1, b"x")]).unwrap();
    let (path, range) = batches_of(&disk).remove(0);
    let mut copy = disk.bytes(&path).unwrap()[64..range.end].to_vec();
    copy[8..16].copy_from_slice(&99u64.to_le_bytes());
    let sum = crc32c_of(&copy[..28]);
    copy[28..32].copy_from_slice(&sum.to_le_bytes());
    log.append(&[entry(1, 2, 1, &copy.repeat(50))]).unwrap();
    drop(log);
    assert!(disk.damage(&path, range.end as u64 + 9, 1));
    let (_, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered[&ShardId(1)].last, Index(1));
}

/// CRC32C from zero, as somebody has to compute it who does not know the incarnation.
fn crc32c_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
        }
        crc
    })
}

#[test]
fn another_nodes_log_is_refused() {
    let disk = SimDisk::new();
    write_all(&disk, &sample(3, 0));
    for (other, what) in [
        (Owner { cluster: 12, ..OWNER }, "cluster"),
        (Owner { incarnation: Incarnation(23), ..OWNER }, "node or disk"),
        (Owner { lane: 1, ..OWNER }, "lane"),
    ] {
        let error = Log::open(Arc::new(disk.clone()), DIR, other, SMALL).unwrap_err();
        assert!(error.to_string().contains(&format!("belongs to another {what}")), "{error}");
    }
}
