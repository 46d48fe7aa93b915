//! The log's stories, told as scripts: `tests/scripts/*.script`, each with the commands and what comes of them.
//!
//! A script is compared with what happens now, line by line; `UPDATE_GOLDENFILES=1` writes it anew, and the
//! difference is then for people to judge. Sectors of the simulated disk are 512 bytes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::ops::Range;

use goldenscript::{Context, Runner};
use ringfort_storage::{Log, LogOptions, RecoveredShard, SimDisk};
use ringfort_types::{EntryKind, Index, LogEntry, Record, ShardId, Term};

use crate::model::{DIR, batches_of, open};

const SECTOR_BYTES: usize = 512;
/// Room for all batches of a story in one segment.
const ROOMY: LogOptions = LogOptions { segment_bytes: 4096, budget_bytes: 16384 };

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = concat!("tests/scripts/", stringify!($name), ".script");
            let told = goldenscript::run(&mut Story::default(), path);
            told.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    )*};
}

stories! {
    a_torn_last_batch_is_cut_whole
    a_bad_batch_before_a_valid_one_is_refused
}

/// What a script may say.
#[derive(goldenscript::Command)]
enum Command {
    /// Opens the log, as a node does when it starts.
    Open,
    /// Appends one batch: for each `SHARD=PAYLOAD` that shard's next entry. `1200B` is a payload of so many bytes.
    Append(Vec<(u32, String)>),
    /// Appends an empty batch.
    Seal,
    /// The power will go in the middle of the next sync.
    DieInNextSync,
    /// The power goes; the seed says which sectors of what was not synced had reached the disk by then.
    Crash {
        #[arg(key)]
        seed: u64,
    },
    /// Changes one byte of a batch, as rot does: where it is in that batch, its header (32 bytes) included.
    Damage {
        #[arg(key)]
        batch: u64,
        #[arg(key)]
        byte: usize,
    },
    /// Shows the log's batches as they lie on the disk, good or bad.
    Batches,
    /// Shows a shard's entries.
    Entries {
        #[arg(key)]
        shard: u32,
    },
}

#[derive(Default)]
struct Story {
    disk: SimDisk,
    log: Option<Log>,
    lasts: BTreeMap<ShardId, Index>,
    batches: u64,
}

type Told = Result<String, Box<dyn Error>>;

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Told {
        match command {
            Command::Open => self.open(),
            Command::Append(payloads) => self.append(payloads),
            Command::Seal => {
                let log = self.log.as_mut().ok_or("the log is not open")?;
                let syncs = self.disk.counts().0;
                log.seal()?;
                self.batches += 1;
                Ok(format!("batch {}, empty: {}", self.batches, count(self.disk.counts().0 - syncs, "sync")))
            }
            Command::DieInNextSync => {
                self.disk.die_after(0);
                Ok(String::new())
            }
            Command::Crash { seed } => self.crash(*seed),
            Command::Damage { batch, byte } => self.damage(*batch, *byte),
            Command::Batches => self.show_batches(),
            Command::Entries { shard } => self.show_entries(ShardId(*shard)),
        }
    }
}

impl Story {
    fn open(&mut self) -> Told {
        self.log = None;
        let before = self.contents();
        let opened = open(&self.disk, ROOMY);
        let mut told = String::new();
        for (path, range) in changes(&before, &self.contents()) {
            let zeroes = self.disk.bytes(&path).unwrap()[range.clone()].iter().all(|byte| *byte == 0);
            let what = if !before.contains_key(&path) {
                format!("is made, {} zero bytes", range.len())
            } else if zeroes {
                format!("bytes {} to {} are zeroes now", range.start, range.end - 1)
            } else {
                format!("bytes {} to {} are changed", range.start, range.end - 1)
            };
            writeln!(told, "{}: {what}", name(&path))?;
        }
        let (log, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                assert!(told.is_empty(), "what is refused is not changed: {told}");
                return Err(error.into());
            }
        };
        self.log = Some(log);
        self.lasts = recovered.iter().map(|(shard, found)| (*shard, found.last)).collect();
        self.batches = batches_of(&self.disk).len() as u64;
        for (shard, found) in recovered {
            writeln!(told, "shard {shard}: {}", shown(&found))?;
        }
        writeln!(told, "open; the next batch is {}", self.batches + 1)?;
        Ok(told)
    }

    fn append(&mut self, payloads: &[(u32, String)]) -> Told {
        let log = self.log.as_mut().ok_or("the log is not open")?;
        let mut lasts = self.lasts.clone();
        let (mut records, mut names) = (Vec::new(), Vec::new());
        for (shard, payload) in payloads {
            let shard = ShardId(*shard);
            let last = lasts.entry(shard).or_default();
            *last = last.next();
            let entry = LogEntry {
                index: *last,
                term: Term(1),
                kind: EntryKind::Normal,
                payload: payload_of(payload).into(),
            };
            names.push(format!("entry {last} of shard {shard}"));
            records.push(Record::Entry(shard, entry));
        }
        let syncs = self.disk.counts().0;
        log.append(&records)?;
        (self.lasts, self.batches) = (lasts, self.batches + 1);
        let syncs = count(self.disk.counts().0 - syncs, "sync");
        Ok(format!("batch {}, {}: {syncs}", self.batches, names.join(", ")))
    }

    /// Says which sectors differ from what the log had written, and so did not reach the disk.
    fn crash(&mut self, seed: u64) -> Told {
        self.log = None;
        let before = self.contents();
        self.disk.crash(seed);
        let after = self.contents();
        let mut told = String::new();
        let mut found = false;
        for (path, range) in changes(&before, &after) {
            found = true;
            let lost: Vec<usize> = (range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES))
                .filter(|sector| {
                    let start = sector * SECTOR_BYTES;
                    let bytes = start..start + SECTOR_BYTES;
                    before[&path].get(bytes.clone()) != after[&path].get(bytes)
                })
                .collect();
            writeln!(told, "{}: what was written to these sectors is lost: {lost:?}", name(&path))?;
        }
        if !found {
            writeln!(told, "nothing that was written is lost")?;
        }
        Ok(told)
    }

    fn damage(&mut self, batch: u64, byte: usize) -> Told {
        let places = batches_of(&self.disk);
        let place = (batch as usize).checked_sub(1).and_then(|at| places.get(at));
        let (path, range) = place.ok_or_else(|| format!("there are batches 1 to {}", places.len()))?;
        let offset = frame_start(range) + byte;
        if offset >= range.end {
            return Err(format!("batch {batch} has bytes 0 to {}", range.end - frame_start(range) - 1).into());
        }
        let before = self.disk.bytes(path).ok_or("the segment is gone")?[offset];
        self.disk.damage(path, offset as u64, 1);
        Ok(format!("{}: byte {offset} is {:#04x} and was {before:#04x}", name(path), before ^ 1))
    }

    fn show_batches(&self) -> Told {
        let mut told = String::new();
        for (number, (path, range)) in (1..).zip(batches_of(&self.disk)) {
            let (start, end) = (frame_start(&range), range.end);
            let sectors = match (start / SECTOR_BYTES, (end - 1) / SECTOR_BYTES) {
                (first, last) if first == last => format!("sector {first}"),
                (first, last) => format!("sectors {first} to {last}"),
            };
            writeln!(told, "batch {number}: {}, bytes {start} to {} ({sectors})", name(&path), end - 1)?;
        }
        Ok(told)
    }

    fn show_entries(&self, shard: ShardId) -> Told {
        let log = self.log.as_ref().ok_or("the log is not open")?;
        let last = self.lasts.get(&shard).copied().unwrap_or_default();
        let mut told = String::new();
        for entry in log.reader().entries(shard, Index(1), last.next(), usize::MAX)? {
            let payload = match entry.payload.len() {
                0..=40 => format!("{:?}", String::from_utf8_lossy(&entry.payload)),
                bytes => format!("{bytes} bytes"),
            };
            writeln!(told, "entry {} of term {}: {payload}", entry.index, entry.term)?;
        }
        Ok(told)
    }

    /// All segments; also of a disk without power, which lists nothing.
    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let paths = (1..).map(|number| format!("{DIR}/{number:016x}.log"));
        paths.map_while(|path| self.disk.bytes(&path).map(|bytes| (path, bytes))).collect()
    }
}

/// Where each file's bytes differ, from the first such byte to the last.
fn changes(
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for (path, after) in after {
        let before = before.get(path).map_or(&[][..], Vec::as_slice);
        let differs = |at: &usize| before.get(*at) != after.get(*at);
        let mut places = (0..before.len().max(after.len())).filter(differs);
        if let Some(first) = places.next() {
            found.push((path.clone(), first..places.next_back().unwrap_or(first) + 1));
        }
    }
    found
}

fn shown(found: &RecoveredShard) -> String {
    let terms: Vec<String> =
        found.terms.iter().map(|(first, term)| format!("of term {term} from entry {first}")).collect();
    format!("entries up to {}, {}", found.last, terms.join(", "))
}

fn payload_of(text: &str) -> Vec<u8> {
    match text.strip_suffix('B').and_then(|bytes| bytes.parse().ok()) {
        Some(bytes) => vec![b'x'; bytes],
        None => text.as_bytes().to_vec(),
    }
}

/// Where the frame begins: a segment's first one comes after the segment's header.
fn frame_start(range: &Range<usize>) -> usize {
    if range.start == 0 { 64 } else { range.start }
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
