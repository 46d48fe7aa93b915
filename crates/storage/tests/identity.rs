//! Who may open a data directory, and what one remembers.

use std::sync::Arc;

use bytes::Bytes;
use ringfort_storage::{DataDir, Disk, FileDisk, LogOptions, SimDisk, StorageError, Who};
use ringfort_types::{Epoch, Incarnation};

fn who(name: Option<&str>, address: &str, fresh: u64) -> Who {
    Who { name: name.map(str::to_owned), address: address.to_owned(), fresh }
}

fn node1() -> Who {
    who(Some("node1"), "127.0.0.1:50051", 77)
}

#[test]
fn a_new_directory_takes_its_identity_from_the_flags_and_keeps_it() {
    let disk = SimDisk::new();
    let (dir, stored) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    assert_eq!((stored.name.as_str(), stored.incarnation, stored.boot), ("node1", Incarnation(77), 1));
    assert_eq!(stored.birth, None);
    dir.save_birth(&Bytes::from_static(b"map"), false).unwrap();
    drop(dir);

    let again = who(None, "127.0.0.1:50051", 1234);
    let (_, stored) = DataDir::open(Arc::new(disk), &again).unwrap();
    assert_eq!((stored.name.as_str(), stored.incarnation, stored.boot), ("node1", Incarnation(77), 2));
    assert_eq!(stored.birth, Some(Bytes::from_static(b"map")));
}

#[test]
fn a_node_without_a_name_is_called_by_its_address() {
    let (_, stored) = DataDir::open(Arc::new(SimDisk::new()), &who(None, "host:1", 1)).unwrap();
    assert_eq!(stored.name, "host:1");
}

#[test]
fn another_name_or_address_is_refused_and_named() {
    let disk = SimDisk::new();
    drop(DataDir::open(Arc::new(disk.clone()), &node1()).unwrap());
    let refused = |who| DataDir::open(Arc::new(disk.clone()), &who).unwrap_err().to_string();
    let message = refused(who(Some("node2"), "127.0.0.1:50051", 1));
    assert!(message.contains("whose name is node1") && message.contains("with name node2"), "{message}");
    let message = refused(who(Some("node1"), "127.0.0.1:50059", 1));
    assert!(message.contains("whose address is 127.0.0.1:50051"), "{message}");
    // A refused start is none.
    let (_, stored) = DataDir::open(Arc::new(disk), &node1()).unwrap();
    assert_eq!(stored.boot, 2);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
    let disk = Arc::new(FileDisk::open(dir.path()).unwrap());
    let message = DataDir::open(disk.clone(), &node1()).unwrap_err().to_string();
    assert!(message.contains("`thesis.tex`") && message.contains("empty or new directory"), "{message}");
    assert_eq!(disk.list("").unwrap(), ["thesis.tex"]);
}

#[test]
fn data_without_its_identity_is_not_taken_for_an_empty_directory() {
    let disk = SimDisk::new();
    drop(DataDir::open(Arc::new(disk.clone()), &node1()).unwrap());
    disk.create_dir("lane-0/log").unwrap();
    disk.remove("identity").unwrap();
    let error = DataDir::open(Arc::new(disk), &node1()).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { found, .. } if found == "lane-0"));
}

#[test]
fn a_second_process_is_refused_and_told_where_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let open = || DataDir::open(Arc::new(FileDisk::open(root.path()).unwrap()), &node1());
    let first = open().unwrap();
    let message = open().unwrap_err().to_string();
    let directory = root.path().display().to_string();
    assert!(message.contains(&directory) && message.contains("in use by process"), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    drop(first);
    assert_eq!(open().unwrap().1.boot, 2);
}

#[test]
fn what_a_start_has_made_is_removed_if_it_is_discarded() {
    let root = tempfile::tempdir().unwrap();
    let open =
        |path: &std::path::Path| DataDir::open(Arc::new(FileDisk::open(path).unwrap()), &node1()).unwrap().0;
    let new = root.path().join("new");
    open(&new).discard();
    assert!(!new.exists());
    let given = root.path().join("given");
    std::fs::create_dir(&given).unwrap();
    open(&given).discard();
    assert_eq!(std::fs::read_dir(&given).unwrap().count(), 0, "it was there before, and stays");
    let used = root.path().join("used");
    let data = open(&used);
    std::fs::write(used.join("other"), "").unwrap();
    data.discard();
    assert!(used.join("other").exists(), "what is in it otherwise stays");
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let message = FileDisk::open(file.path()).unwrap_err().to_string();
    assert!(message.contains("there is a file of that name"), "{message}");
}

#[test]
fn any_damaged_byte_of_the_identity_is_noticed() {
    let disk = SimDisk::new();
    drop(DataDir::open(Arc::new(disk.clone()), &node1()).unwrap());
    let length = disk.bytes("identity").unwrap().len();
    for at in 0..length {
        let damaged = disk.fork();
        assert!(damaged.damage("identity", at as u64, 0x04));
        let error = DataDir::open(Arc::new(damaged), &node1()).unwrap_err();
        assert!(matches!(error, StorageError::Identity { .. }), "byte {at}: {error}");
        let cut = disk.fork();
        cut.set_bytes("identity", &disk.bytes("identity").unwrap()[..at]);
        let error = DataDir::open(Arc::new(cut), &node1()).unwrap_err();
        assert!(matches!(error, StorageError::Identity { .. }), "cut at {at}: {error}");
    }
}

#[test]
fn a_crash_at_any_sync_leaves_the_old_identity_or_the_new_one() {
    for seed in 0..200 {
        let disk = SimDisk::new();
        let mut boot = 0;
        let mut birth = None;
        for step in 0..4 {
            disk.die_after((seed + step) % 5);
            let opened = DataDir::open(Arc::new(disk.clone()), &node1());
            if let Ok((dir, stored)) = &opened {
                assert!(stored.boot > boot, "a boot count came back");
                boot = stored.boot;
                assert!(birth.is_none() || stored.birth.is_some(), "the birth record is lost");
                if dir.save_birth(&Bytes::from_static(b"born"), true).is_ok() {
                    birth = Some(());
                }
            }
            drop(opened);
            disk.crash(seed * 7 + step);
        }
        disk.die_after(u64::MAX);
        let (_, stored) = DataDir::open(Arc::new(disk), &node1()).unwrap();
        assert!(stored.boot > boot && (birth.is_none() || stored.birth.is_some()));
    }
}

#[test]
fn a_member_has_a_log_whenever_it_ends_and_one_that_has_none_is_refused() {
    let options = LogOptions { segment_bytes: 4096, budget_bytes: 64 * 1024 };
    for seed in 0..200 {
        let disk = SimDisk::new();
        disk.die_after(seed % 20);
        let birth = Bytes::from_static(b"born");
        for life in 0..2 {
            let Ok((dir, stored)) = DataDir::open(Arc::new(disk.clone()), &node1()) else { break };
            let is_born = stored.birth.is_some() || dir.save_birth(&birth, true).is_ok();
            let opened = is_born.then(|| dir.open_log(7, options));
            if let Some(Err(error)) = &opened {
                assert!(life == 0 && matches!(error, StorageError::Io { .. }), "seed {seed}: {error}");
            }
            drop((opened, dir));
            if life == 0 {
                disk.crash(seed * 7);
                disk.die_after(u64::MAX);
            }
        }
        if seed % 20 < 19 {
            continue;
        }
        // Nothing has been written to it, and yet there is something to be missed.
        for name in disk.list("lane-0/log").unwrap() {
            disk.remove(&format!("lane-0/log/{name}")).unwrap();
        }
        let (dir, _) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
        let error = dir.open_log(7, options).unwrap_err();
        assert!(matches!(error, StorageError::NoLog { .. }) && error.is_damage(), "{error}");
        assert_eq!(disk.list("lane-0/log").unwrap(), Vec::<String>::new(), "nothing is changed");
    }
}

/// The first room for the log may be missing.
#[test]
fn a_log_that_was_never_given_room_is_opened_once_there_is_some() {
    let disk = SimDisk::new();
    let (dir, _) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    dir.save_birth(&Bytes::from_static(b"born"), true).unwrap();
    disk.set_capacity(Some(0));
    for _ in 0..2 {
        assert!(dir.open_log(7, LogOptions::default()).unwrap_err().is_disk_full());
    }
    disk.set_capacity(None);
    let (log, shards) = dir.open_log(7, LogOptions::default()).unwrap();
    assert_eq!((log.last_batch(), shards.len(), log.notes().len()), (0, 0, 0));
}

#[test]
fn a_full_disk_is_opened_with_a_boot_that_no_count_reaches() {
    let disk = SimDisk::new();
    // A new directory needs room.
    disk.set_capacity(Some(0));
    assert!(DataDir::open(Arc::new(disk.clone()), &node1()).unwrap_err().is_disk_full());
    disk.set_capacity(None);
    drop(DataDir::open(Arc::new(disk.clone()), &node1()).unwrap());
    let before = disk.bytes("identity").unwrap();

    disk.set_capacity(Some(0));
    for fresh in [0, 77, u64::MAX] {
        let who = who(Some("node1"), "127.0.0.1:50051", fresh);
        let (dir, stored) = DataDir::open(Arc::new(disk.clone()), &who).unwrap();
        assert!(!stored.is_counted() && (1 << 23..1 << 24).contains(&stored.boot), "{}", stored.boot);
        assert_eq!(stored.incarnation, Incarnation(77));
        assert_eq!(disk.bytes("identity").unwrap(), before);
        // What is saved later, when there is room, keeps the count.
        disk.set_capacity(None);
        dir.save_birth(&Bytes::from_static(b"map"), false).unwrap();
        disk.set_bytes("identity", &before);
        disk.set_capacity(Some(0));
    }
    disk.set_capacity(None);
    let (dir, stored) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    assert_eq!((stored.boot, stored.is_counted()), (2, true));
    drop(dir);
    disk.set_capacity(Some(0));
    let (dir, _) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    disk.set_capacity(None);
    dir.save_birth(&Bytes::from_static(b"map"), false).unwrap();
    drop(dir);
    assert_eq!(DataDir::open(Arc::new(disk), &node1()).unwrap().1.boot, 3);
}

#[test]
fn the_latest_layout_is_kept_whole() {
    let disk = SimDisk::new();
    let (dir, _) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    assert_eq!(dir.layout().unwrap(), None);
    dir.save_layout(Epoch(2), &Bytes::from_static(b"second"), None).unwrap();
    // A thread that was late.
    dir.save_layout(Epoch(1), &Bytes::from_static(b"first"), None).unwrap();
    assert_eq!(dir.layout().unwrap(), Some(Bytes::from_static(b"second")));
    // One that could not be kept may be tried again.
    disk.fail_syncs(true);
    assert!(dir.save_layout(Epoch(3), &Bytes::from_static(b"third"), None).is_err());
    disk.fail_syncs(false);
    // As long as one can be.
    let longest = Bytes::from(vec![7; ringfort_types::limits::LAYOUT_BYTES_MAX]);
    dir.save_layout(Epoch(3), &longest, None).unwrap();
    assert_eq!(dir.layout().unwrap(), Some(longest));
    dir.save_layout(Epoch(4), &Bytes::from_static(b"third"), None).unwrap();
    drop(dir);
    let (dir, _) = DataDir::open(Arc::new(disk.clone()), &node1()).unwrap();
    assert_eq!(dir.layout().unwrap(), Some(Bytes::from_static(b"third")));

    let file = disk.open("layout").unwrap();
    let length = file.len().unwrap() as usize;
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).unwrap();
    for at in 0..length {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        disk.create("layout").unwrap().write_at(0, &damaged).unwrap();
        let error = dir.layout().unwrap_err();
        assert!(matches!(error, StorageError::Layout { .. }), "byte {at}: {error}");
    }
}

#[test]
fn a_member_may_be_opened_at_another_address_which_is_kept_when_it_is_said() {
    let disk = SimDisk::new();
    let is_member = |birth: &Bytes| birth == "born";
    let open = |address: &str| {
        let who = who(Some("node1"), address, 1);
        DataDir::open_anywhere(Arc::new(disk.clone()), &who, is_member)
    };
    let elsewhere = "127.0.0.1:50059";
    assert_eq!(DataDir::peek(&disk).unwrap(), None);
    let (dir, _) = open("127.0.0.1:50051").unwrap();
    dir.save_birth(&Bytes::from_static(b"mapped"), false).unwrap();
    drop(dir);
    let message = open(elsewhere).unwrap_err().to_string();
    assert!(message.contains("whose address is 127.0.0.1:50051"), "{message}");

    let (dir, _) = open("127.0.0.1:50051").unwrap();
    dir.save_birth(&Bytes::from_static(b"born"), true).unwrap();
    drop(dir);
    let (dir, stored) = open(elsewhere).unwrap();
    assert_eq!((stored.address.as_str(), stored.boot), ("127.0.0.1:50051", 3));
    drop(dir);
    let peeked = || DataDir::peek(&disk).unwrap().expect("somebody lives there");
    assert_eq!((peeked().0, peeked().1), (stored, None), "nothing has changed yet, and no start was counted");
    let (dir, _) = open(elsewhere).unwrap();
    dir.save_layout(Epoch(2), &Bytes::from_static(b"second"), Some(elsewhere)).unwrap();
    // A thread that was late.
    dir.save_layout(Epoch(1), &Bytes::from_static(b"first"), Some("127.0.0.1:50051")).unwrap();
    drop(dir);
    assert_eq!(peeked().0.address, elsewhere);
    assert_eq!(peeked().1, Some(Bytes::from_static(b"second")));
    assert_eq!(open(elsewhere).unwrap().1.boot, 5);
    // Its name it keeps.
    let other = who(Some("node2"), elsewhere, 1);
    let refused = DataDir::open_anywhere(Arc::new(disk.clone()), &other, is_member);
    assert!(refused.unwrap_err().to_string().contains("whose name is node1"));
}
