//! Whose data this is: the data directory, its lock, and its identity file. Drawn in
//! `docs/formats/identity.md`.
//!
//! A node is its data directory. The name and address that it was first started with are stored there, with
//! an incarnation drawn at random, so that a wiped disk under an old name is somebody else; flags that say
//! otherwise later are refused; but a member of a cluster may come back at another address, since the others know it by its incarnation.
//! The boot count rises, durably, before anything else happens in a life: what
//! is made unique with it (a `ReadIndex` context, a session number) is not used twice. Nothing compares two boots for
//! order, so a node that finds no room to count a start draws a number instead, far above any count; the file keeps
//! the count that it has.
//!
//! The file is replaced whole (`whole`). So are the files beside it: the cluster's layout as this node knows it, and what it remembers of the
//! other nodes' logs. What is lost of these the others know.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::LAYOUT_BYTES_MAX;
use ringfort_types::wire::{Reader, put_bytes};
use ringfort_types::{Epoch, Incarnation, ShardId};

use crate::disk::{Disk, Lock};
use crate::log::{self, Log, LogOptions, Owner, RecoveredShard};
use crate::whole::{self, Unusable, path_of};
use crate::{FileDisk, LANE, LANE_DIR, LOG_DIR, StorageError};

const MAGIC: &[u8; 8] = b"RFIDENT\0";
const VERSION: u32 = 1;
pub(crate) const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const LAYOUT_MAGIC: &[u8; 12] = b"RFLAYOUT\x01\0\0\0";
pub(crate) const LAYOUT: &str = "layout";
const LAYOUT_NEW: &str = "layout.new";
const MARKS_MAGIC: &[u8; 12] = b"RFMARKS\0\x01\0\0\0";
const MARKS: &str = "marks";
const MARKS_NEW: &str = "marks.new";
pub(crate) const LOCK: &str = "lock";
/// What a directory may hold and still count as empty: what the first moments of a life leave behind, and
/// what a fresh file system has.
const HARMLESS: [&str; 3] = [LOCK, IDENTITY_NEW, "lost+found"];
/// A layout, and far more than name, address and the rest of a birth record take.
const FILE_BYTES_MAX: u64 = LAYOUT_BYTES_MAX as u64 + 1024 * 1024;
/// Boots that are drawn, not counted: nobody counts so far, and what is made unique with a boot has 24 bits for it.
const UNCOUNTED: std::ops::Range<u64> = 1 << 23..1 << 24;

/// Who the operator says this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its name, if one was given. The first start without one takes the address.
    pub name: Option<String>,
    /// The address that others reach it at.
    pub address: String,
    /// A number just drawn at random: for the incarnation, if the directory is new, and for the boot, if there is no
    /// room to count it.
    pub fresh: u64,
}

/// Who the directory says this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its advertised address.
    pub address: String,
    /// Drawn when the directory was made.
    pub incarnation: Incarnation,
    /// How often it has been opened, this time included; a number drawn at random, from 2^23 on and below 2^24, if there
    /// was no room to count it.
    pub boot: u64,
    /// What [`DataDir::save_birth`] was given last.
    pub birth: Option<Bytes>,
}

impl Stored {
    /// Whether this start is counted in the file.
    pub fn is_counted(&self) -> bool {
        !UNCOUNTED.contains(&self.boot)
    }
}

/// One node's data directory, locked as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    /// As it stands in the file.
    stored: Mutex<Stored>,
    /// The latest layout that was to be kept.
    layout_kept: Mutex<Epoch>,
    _lock: Box<dyn Lock>,
}

impl DataDir {
    /// Takes the lock, creates or reads the identity, and counts the start, durably.
    ///
    /// Refuses a directory that another process has open, one that holds something but no identity, and one
    /// whose identity is not `who`. A full disk does not keep a node from coming up and reading: see [`Stored::boot`].
    pub fn open(disk: Arc<dyn Disk>, who: &Who) -> Result<(DataDir, Stored), StorageError> {
        DataDir::open_anywhere(disk, who, |_| false)
    }

    /// The same, but for a directory whose birth record `is_member`s: its node may be at another address than the stored one, which
    /// stays stored until [`DataDir::save_layout`] gets another one.
    pub fn open_anywhere(
        disk: Arc<dyn Disk>,
        who: &Who,
        is_member: impl Fn(&Bytes) -> bool,
    ) -> Result<(DataDir, Stored), StorageError> {
        // Before the lock is taken, because taking it writes into the directory.
        refuse_foreign(&*disk)?;
        let lock = match disk.lock(LOCK).map_err(StorageError::io("lock", &path_of(&*disk, LOCK)))? {
            Ok(lock) => lock,
            Err(holder) => return Err(StorageError::Locked { directory: disk.name(), holder }),
        };
        let before = read(&*disk)?;
        if let Some(stored) = &before {
            let may_move = stored.birth.as_ref().is_some_and(is_member);
            refuse_conflict(&*disk, stored, who, may_move)?;
        }
        let counted = match &before {
            Some(stored) => Stored { boot: stored.boot + 1, ..stored.clone() },
            None => Stored {
                name: who.name.clone().unwrap_or_else(|| who.address.clone()),
                address: who.address.clone(),
                incarnation: Incarnation(who.fresh),
                boot: 1,
                birth: None,
            },
        };
        let (in_file, stored) = match (write(&*disk, &counted), before) {
            (Ok(()), _) => (counted.clone(), counted),
            (Err(error), Some(before)) if error.is_disk_full() => {
                let boot = UNCOUNTED.start + who.fresh % (UNCOUNTED.end - UNCOUNTED.start);
                (before, Stored { boot, ..counted })
            }
            (Err(error), _) => return Err(error),
        };
        let dir = DataDir { disk, stored: Mutex::new(in_file), layout_kept: Mutex::default(), _lock: lock };
        Ok((dir, stored))
    }

    /// Who a directory says it is, without its lock and without a change of it. `None` if it does not say.
    pub fn look(disk: &dyn Disk) -> Result<Option<Stored>, StorageError> {
        read(disk)
    }

    /// Takes the lock of a directory in which a node is made that has data from the beginning. It has no identity, so that nobody can start
    /// it, before [`DataDir::save_birth`], which comes last. Refuses one that has anything in it.
    pub fn prepare(disk: Arc<dyn Disk>, who: Stored) -> Result<DataDir, StorageError> {
        let names = disk.list("").map_err(StorageError::io("read the data directory", &disk.name()))?;
        if let Some(found) = names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
            return Err(StorageError::NotEmpty { directory: disk.name(), found });
        }
        let lock = match disk.lock(LOCK).map_err(StorageError::io("lock", &path_of(&*disk, LOCK)))? {
            Ok(lock) => lock,
            Err(holder) => return Err(StorageError::Locked { directory: disk.name(), holder }),
        };
        Ok(DataDir { disk, stored: Mutex::new(who), layout_kept: Mutex::default(), _lock: lock })
    }

    /// Keeps what the node knows of its cluster's birth. Durable when it returns. If that makes the node a member of its cluster, the log
    /// begins first, without a batch: whoever is a member and has no log has lost it.
    pub fn save_birth(&self, bytes: &Bytes, is_member: bool) -> Result<(), StorageError> {
        if is_member {
            log::begin(&*self.disk, LOG_DIR)?;
        }
        let mut stored = self.stored.lock().expect("no thread panics while it writes the identity");
        let changed = Stored { birth: Some(bytes.clone()), ..stored.clone() };
        write(&*self.disk, &changed)?;
        *stored = changed;
        Ok(())
    }

    /// Keeps another address, if it is one.
    fn save_address(&self, address: &str) -> Result<(), StorageError> {
        let mut stored = self.stored.lock().expect("no thread panics while it writes the identity");
        if stored.address == address {
            return Ok(());
        }
        let changed = Stored { address: address.to_owned(), ..stored.clone() };
        write(&*self.disk, &changed)?;
        *stored = changed;
        Ok(())
    }

    /// Who lives in a directory and the layout that was kept there, without a lock and without counting a start. `None` if nobody does; no
    /// layout if it can't be read, which is told when it is opened.
    pub fn peek(disk: &dyn Disk) -> Result<Option<(Stored, Option<Bytes>)>, StorageError> {
        let layout = || whole::read(disk, LAYOUT, LAYOUT_MAGIC, FILE_BYTES_MAX).ok().flatten();
        Ok(read(disk)?.map(|stored| (stored, layout())))
    }

    /// Keeps the layout that the node goes by, and the address that it has there. Durable when it returns; if a later one was to be kept,
    /// nothing happens.
    pub fn save_layout(
        &self,
        epoch: Epoch,
        bytes: &Bytes,
        address: Option<&str>,
    ) -> Result<(), StorageError> {
        let mut kept = self.layout_kept.lock().expect("no thread panics while it writes the layout");
        if epoch <= *kept {
            return Ok(());
        }
        let saved = whole::replace(&*self.disk, LAYOUT, LAYOUT_NEW, LAYOUT_MAGIC, bytes);
        address.map_or(Ok(()), |address| self.save_address(address)).and(saved)?;
        *kept = epoch;
        Ok(())
    }

    /// The layout that was kept last, if there is one.
    pub fn layout(&self) -> Result<Option<Bytes>, StorageError> {
        let path = self.layout_place();
        whole::read(&*self.disk, LAYOUT, LAYOUT_MAGIC, FILE_BYTES_MAX).map_err(|unusable| match unusable {
            Unusable::Unread(error) => error,
            Unusable::Damaged(reason) => StorageError::Layout { path, reason },
        })
    }

    /// Keeps what the node remembers of the others' logs. Durable when it returns. The caller has one on its way at a time.
    pub fn save_marks(&self, bytes: &Bytes) -> Result<(), StorageError> {
        whole::replace(&*self.disk, MARKS, MARKS_NEW, MARKS_MAGIC, bytes)
    }

    /// What was kept last, if anything was.
    pub fn marks(&self) -> Result<Option<Bytes>, StorageError> {
        let path = path_of(&*self.disk, MARKS);
        whole::read(&*self.disk, MARKS, MARKS_MAGIC, FILE_BYTES_MAX).map_err(|unusable| match unusable {
            Unusable::Unread(error) => error,
            Unusable::Damaged(reason) => StorageError::Marks { path, reason },
        })
    }

    /// Where the layout is kept, for messages.
    pub fn layout_place(&self) -> String {
        path_of(&*self.disk, LAYOUT)
    }

    /// Removes what this start has made: the identity, the lock's file, and the directory, if it is new. For a node that is refused
    /// before anything of a cluster is in it. What can't be removed stays.
    pub fn discard(&self) {
        let _stored = self.stored.lock().expect("no thread panics while it writes the identity");
        let removed = [IDENTITY, LOCK].iter().try_for_each(|file| self.disk.remove(file));
        let _stays = removed.and_then(|()| self.disk.remove_root());
    }

    /// Removes all that was made since [`DataDir::prepare`], and the directory, if it is new. What can't be removed stays.
    pub fn undo(&self, disk: &FileDisk) {
        let _stays = disk.remove_dir(LANE_DIR);
        for file in [IDENTITY, IDENTITY_NEW, LOCK] {
            let _was_not_there = disk.remove(file);
        }
        let _stays = disk.remove_root();
    }

    /// Opens the shared log of lane 0, recovering it, and says what it holds of each shard. Fails without a change if the birth record is
    /// that of a member, which is when a node opens its log, and there is none.
    pub fn open_log(
        &self,
        cluster: u64,
        options: LogOptions,
    ) -> Result<(Log, std::collections::BTreeMap<ShardId, RecoveredShard>), StorageError> {
        let Stored { incarnation, birth, .. } =
            self.stored.lock().expect("no thread panics while it writes the identity").clone();
        if birth.is_some() && !log::has_begun(&*self.disk, LOG_DIR)? {
            return Err(StorageError::NoLog { path: self.log_place() });
        }
        Log::open(self.disk.clone(), LOG_DIR, Owner { cluster, incarnation, lane: LANE }, options)
    }

    /// Where the log is, for messages.
    pub fn log_place(&self) -> String {
        path_of(&*self.disk, LOG_DIR)
    }

    /// The disk that it is on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}

fn refuse_foreign(disk: &dyn Disk) -> Result<(), StorageError> {
    let names = disk.list("").map_err(StorageError::io("read the data directory", &disk.name()))?;
    if names.iter().any(|name| name == IDENTITY) {
        return Ok(());
    }
    match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
        Some(found) => Err(StorageError::Foreign { directory: disk.name(), found }),
        None => Ok(()),
    }
}

fn refuse_conflict(disk: &dyn Disk, stored: &Stored, who: &Who, may_move: bool) -> Result<(), StorageError> {
    let conflict = |what, stored: &str, given: &str| {
        let (stored, given) = (stored.to_owned(), given.to_owned());
        Err(StorageError::Conflict { directory: disk.name(), what, stored, given })
    };
    match &who.name {
        Some(name) if *name != stored.name => conflict("name", &stored.name, name),
        _ if who.address != stored.address && !may_move => conflict("address", &stored.address, &who.address),
        _ => Ok(()),
    }
}

fn read(disk: &dyn Disk) -> Result<Option<Stored>, StorageError> {
    let path = path_of(disk, IDENTITY);
    let damaged = |reason| StorageError::Identity { path: path.clone(), reason };
    let content = whole::read(disk, IDENTITY, MAGIC, FILE_BYTES_MAX).map_err(|unusable| match unusable {
        Unusable::Unread(error) => error,
        Unusable::Damaged(reason) => damaged(reason),
    })?;
    let Some(content) = content else { return Ok(None) };
    let stored = decode(content).map_err(|found| match found {
        Ok(version) => {
            StorageError::Unsupported { path: path.clone(), what: "format version", found: version.into() }
        }
        Err(reason) => damaged(reason),
    });
    stored.map(Some)
}

/// Fails with the version if that is unknown, else with what is wrong.
fn decode(bytes: Bytes) -> Result<Stored, Result<u32, &'static str>> {
    let fields = |mut reader: Reader| {
        let incarnation = Incarnation(reader.u64()?);
        let boot = reader.u64()?;
        let name = reader.string(FILE_BYTES_MAX as usize)?;
        let address = reader.string(FILE_BYTES_MAX as usize)?;
        let birth = match reader.u8()? {
            0 => None,
            _ => Some(reader.bytes(FILE_BYTES_MAX as usize)?),
        };
        reader.finish()?;
        Ok(Stored { name, address, incarnation, boot, birth })
    };
    let mut reader = Reader::new(bytes);
    match reader.u32().map_err(|malformed| Err(malformed.0))? {
        VERSION => fields(reader).map_err(|malformed: ringfort_types::wire::Malformed| Err(malformed.0)),
        other => Err(Ok(other)),
    }
}

fn encode(stored: &Stored) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(VERSION);
    out.put_u64_le(stored.incarnation.0);
    out.put_u64_le(stored.boot);
    put_bytes(&mut out, stored.name.as_bytes());
    put_bytes(&mut out, stored.address.as_bytes());
    out.put_u8(u8::from(stored.birth.is_some()));
    if let Some(birth) = &stored.birth {
        put_bytes(&mut out, birth);
    }
    out.freeze()
}

fn write(disk: &dyn Disk, stored: &Stored) -> Result<(), StorageError> {
    whole::replace(disk, IDENTITY, IDENTITY_NEW, MAGIC, &encode(stored))
}
