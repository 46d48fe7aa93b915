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

/// How many batches are recorded to have been synced: those up to the first one of the last segment.
fn recorded(places: &[(String, std::ops::Range<usize>)]) -> usize {
    let last = &places.last().expect("something was written").0;
    places.iter().position(|(path, _)| path == last).expect("it is one of them") + 1
}

fn expect_corrupt(disk: &SimDisk, what: &str) -> String {
    let before: Vec<_> = segments(disk).iter().map(|path| disk.bytes(path)).collect();
    let Err(error) = open(disk, SMALL) else { panic!("{what}: it was opened") };
    assert!(matches!(error, StorageError::Corrupt { .. } | StorageError::Length { .. }), "{what}: {error}");
    let after: Vec<_> = segments(disk).iter().map(|path| disk.bytes(path)).collect();
    assert_eq!(before, after, "{what}: something was changed");
    error.to_string()
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
                    let whole = batches.len() - back;
                    // Of a file that is shorter than its header there is no telling how long it was made.
                    if whole < recorded(&places) || (!zeroes && at >= 64) {
                        expect_corrupt(&disk, &what);
                    } else {
                        expect_prefix(&disk, &batches, whole, &what);
                    }
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
                    if back == 1 && !in_header && batches.len() > recorded(&places) {
                        expect_prefix(&disk, &batches, batches.len() - 1, &what);
                    } else {
                        expect_corrupt(&disk, &what);
                    }
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
    for missing in &all {
        let disk = disk.fork();
        disk.remove(missing).unwrap();
        let told = expect_corrupt(&disk, missing);
        assert!(told.contains(missing), "{told}");
    }
    for missing in &all {
        disk.remove(missing).unwrap();
    }
    let told = expect_corrupt(&disk, "all are missing");
    assert!(told.contains(all.last().unwrap()), "{told}");
}

#[test]
fn a_file_that_is_shorter_than_it_was_made_is_damaged_wherever_it_ends() {
    let batches = sample(9, 3);
    let disk = SimDisk::new();
    write_all(&disk, &batches);
    let path = segments(&disk).pop().unwrap();
    let bytes = disk.bytes(&path).unwrap();
    for length in [64, bytes.len() / 2, bytes.len() - 1] {
        let disk = disk.fork();
        disk.set_bytes(&path, &bytes[..length]);
        let told = expect_corrupt(&disk, "cut");
        assert!(
            told.contains(&path) && told.contains(&format!("at byte {length}: the file ends here")),
            "{told}"
        );
    }
}

#[test]
fn a_file_that_is_longer_than_it_was_made_is_damaged() {
    let batches = sample(9, 3);
    let disk = SimDisk::new();
    write_all(&disk, &batches);
    for path in segments(&disk) {
        let bytes = disk.bytes(&path).unwrap();
        let length = bytes.len();
        for more in [1, 4096] {
            let disk = disk.fork();
            disk.set_bytes(&path, &[&bytes[..], &vec![0; more]].concat());
            let told = expect_corrupt(&disk, "lengthened");
            let numbers = format!("{} bytes instead of {length}", length + more);
            assert!(told.contains(&path) && told.contains(&format!("at byte {length}: ")), "{told}");
            assert!(told.contains("longer than it was made") && told.contains(&numbers), "{told}");
        }
    }
}

#[test]
fn what_was_there_at_a_clean_stop_must_be_there_at_the_next_start() {
    let batches = sample(11, 3);
    for clean in [true, false] {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, SMALL).unwrap();
        for batch in &batches {
            log.append(batch).unwrap();
        }
        if clean {
            log.close().unwrap();
        }
        drop(log);
        let (path, range) = batches_of(&disk).swap_remove(batches.len() - 1);
        let mut bytes = disk.bytes(&path).unwrap();
        bytes[range.start..].fill(0);
        disk.set_bytes(&path, &bytes);
        if clean {
            let told = expect_corrupt(&disk, "zeroed");
            assert!(told.contains("a later batch was synced"), "{told}");
        } else {
            expect_prefix(&disk, &batches, batches.len() - 1, "zeroed");
        }
    }
}

#[test]
fn what_is_removed_and_what_is_not_known_is_said() {
    let batches = sample(11, 3);
    let disk = SimDisk::new();
    write_all(&disk, &batches);
    let (path, range) = batches_of(&disk).pop().unwrap();
    assert!(open(&disk.fork(), SMALL).unwrap().0.notes().is_empty(), "nothing to be said of a whole log");

    assert!(disk.damage(&path, range.end as u64 - 1, 0x40));
    let (log, _) = open(&disk, SMALL).unwrap();
    let [note] = log.notes() else { panic!("one note: {:?}", log.notes()) };
    let removed = format!("removed {} bytes from byte {} on of", range.len(), range.start);
    assert!(note.to_string().contains(&removed) && note.to_string().contains(&path), "{note}");
    drop(log);
    assert!(open(&disk, SMALL).unwrap().0.notes().is_empty(), "it is said once");

    let reached = format!("{DIR}/reached");
    let whole = disk.bytes(&reached).unwrap();
    for at in 0..whole.len() {
        let disk = disk.fork();
        disk.damage(&reached, at as u64, 0x01);
        let (log, recovered) = open(&disk, SMALL).unwrap();
        assert_eq!(recovered, Model::of(&batches[..batches.len() - 1]).recovered());
        assert!(log.notes()[0].to_string().contains("log/reached is damaged"), "{:?}", log.notes());
        assert_eq!(disk.bytes(&reached).unwrap(), whole, "it is made anew");
    }
    disk.remove(&reached).unwrap();
    let (log, _) = open(&disk, SMALL).unwrap();
    assert!(log.notes()[0].to_string().contains("log/reached is missing"), "{:?}", log.notes());
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
