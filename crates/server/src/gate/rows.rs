//! Rows in key order over all shards, in memory that is bounded for the node, however many lists are open.
//!
//! Keys are spread over shards by hash, so every shard has some of each part of the key space. The asked node
//! reads all shards side by side, page by page (from its own replica or over a peer, the node decides), and
//! merges them. A shard's first page settles the index that all its pages are read at; while one page is merged,
//! the next is under way, if there is memory for it.
//!
//! **Memory.** All lists of a node share a [`Budget`] for their pages: the more there are, the smaller their pages. When it
//! is used up a page has [`PAGE_BYTES_MIN`] and is not asked for ahead. A row that is larger than its page is left where it is
//! until it is the next one; then it is read by itself, once there is room for it. Rows are copied out of the frames and
//! blocks that they came in, which a list may outlive. Requests for pages that are under way are bounded for the node, too; a list
//! waits for its turn before it makes one.
//!
//! **Rights.** A list shows what may be read of what is asked for: where that is not all of it, each shard is read for one readable prefix after
//! the other, at the same index. The prefixes ascend, so the rows of a shard do, too.
//!
//! An index stays readable for a while only (`readers`), so shards that a slow reader has not asked for some time are asked
//! for a row now and then ([`Rows::touch`]).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{KEY_BYTES_MAX, LIST_FRAME_BYTES, PAGE_BYTES_MIN};
use ringfort_types::{Call, Code, Failure, Index, Page, Reply, Request, Row, Scan, ShardId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::{Gate, stopped};
use crate::audit::{Act, Record};
use crate::budget::{Budget, LARGE_ROW_BYTES, Room, Turn};
use crate::horizon::HELD;
use crate::metrics::{Begun, Operation};
use crate::readers::BRIEF_ROWS_MAX;

/// Pages of a shard that a list may hold: one being merged, one under way.
const PAGES_PER_SHARD: usize = 2;
/// How long one page may take, if the list's own time is not over before.
const PAGE_TIME: Duration = Duration::from_secs(10);
/// How long a list waits for room for a large row.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// A page that is asked for ahead has this many bytes at least; smaller ones are asked for when they are needed.
const AHEAD_BYTES_MIN: usize = 4 * 1024;
/// What a row takes besides its key and value.
const ROW_OVERHEAD_BYTES: usize = 16;
/// A shard that was not asked for so long is asked for a row, so that its index stays readable.
pub(crate) const TOUCH_AFTER: Duration = Duration::from_secs(HELD.as_secs() / 3);

/// Which rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// Only keys that begin with this; empty for all.
    pub(crate) prefix: Bytes,
    /// Only keys from this one on; empty for all.
    pub(crate) from: Bytes,
    /// At most so many rows; 0 for all.
    pub(crate) limit: u64,
    /// Leave the values out.
    pub(crate) keys_only: bool,
    /// The index at which each shard is to be read, from shard 1 on; empty for the newest.
    pub(crate) indexes: Vec<u64>,
    /// How long it may take in all, in milliseconds; without it, as long as its reader does.
    pub(crate) within_ms: Option<u32>,
}

/// A page of a shard that is under way.
struct Ahead {
    page: JoinHandle<Result<Page, Failure>>,
    from: Bytes,
    room: Room,
}

/// What is left of one shard.
struct Cursor {
    shard: ShardId,
    /// Which of the list's prefixes it is at.
    over: usize,
    at: Option<Index>,
    /// The page being merged, in reverse, so that its first row is last, and its room.
    rows: Vec<(Bytes, Row)>,
    room: Option<Room>,
    /// The next row is too large for a page, and has this key.
    large: bool,
    /// Where the rest of what has this prefix begins; `None` if there is no more of any.
    rest: Option<Bytes>,
    ahead: Option<Ahead>,
    /// When it was last asked.
    asked: Instant,
}

/// Rows in key order.
pub(crate) struct Rows {
    gate: Gate,
    budget: Arc<Budget>,
    listing: Listing,
    /// What keys begin with that whoever asks may read, among those that are wanted: ascending, and none of them begins with another.
    prefixes: Vec<Bytes>,
    left: u64,
    /// When its time is over.
    deadline: Option<Instant>,
    cursors: Vec<Cursor>,
    /// The smallest key of each shard that has one.
    heads: BinaryHeap<Reverse<(Bytes, usize)>>,
    begun: Begun,
    /// What will be written in the audit log, once the first rows are there.
    record: Option<Box<Record>>,
    has_begun: bool,
    has_ended: bool,
}

/// Some of the rows.
pub(crate) struct Batch {
    /// At least one, unless it is the last.
    pub(crate) rows: Vec<(Bytes, Row)>,
    /// Whether there are no more.
    pub(crate) is_last: bool,
    /// With the first ones: the index at which each shard is read.
    pub(crate) indexes: Vec<Index>,
    /// If it is a large row, what is to be held for as long as the row is in memory.
    pub(crate) large: Option<OwnedSemaphorePermit>,
}

impl Rows {
    pub(super) fn new(gate: Gate, listing: Listing) -> Result<Rows, Failure> {
        let record = gate.record(Act::List(&listing.prefix))?;
        match Rows::opened(gate, listing) {
            Ok(mut rows) => {
                rows.record = record;
                Ok(rows)
            }
            Err(failure) => {
                if let Some(record) = record {
                    record.ended(Some(&failure));
                }
                Err(failure)
            }
        }
    }

    fn opened(gate: Gate, listing: Listing) -> Result<Rows, Failure> {
        for (what, bytes) in [("prefix", &listing.prefix), ("from", &listing.from)] {
            if bytes.len() > KEY_BYTES_MAX + 1 {
                return Err(Failure::rejected(
                    Code::InvalidArgument,
                    format!("{what} of {} bytes: keys have at most {KEY_BYTES_MAX}", bytes.len()),
                ));
            }
        }
        let (indexes, shards) = (&listing.indexes, gate.shared.shards);
        if !indexes.is_empty() && indexes.len() != shards as usize {
            let why =
                format!("{} indexes for {shards} shards: name one for each shard, or none", indexes.len());
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        let mut prefixes = gate.readable(&listing.prefix)?;
        // All keys with such a prefix come before the first one that is wanted. (If so of all, one of them says so.)
        let is_passed = |prefix: &Bytes| *prefix < listing.from && !listing.from.starts_with(prefix);
        let passed = prefixes.iter().filter(|prefix| is_passed(prefix)).count();
        prefixes.drain(..passed.min(prefixes.len() - 1));
        let budget = gate.shared.lists.clone();
        budget.opened();
        let left = if listing.limit == 0 { u64::MAX } else { listing.limit };
        let cursors = (1..=shards)
            .map(|shard| Cursor {
                shard: ShardId(shard),
                over: 0,
                at: indexes.get(shard as usize - 1).copied().map(Index),
                rows: Vec::new(),
                room: None,
                large: false,
                rest: Some(listing.from.clone()),
                ahead: None,
                asked: Instant::now(),
            })
            .collect();
        let begun = Begun::now(gate.door, Operation::List);
        let deadline = listing.within_ms.map(|ms| Instant::now() + Duration::from_millis(ms.into()));
        Ok(Rows {
            gate,
            budget,
            listing,
            prefixes,
            left,
            deadline,
            cursors,
            heads: BinaryHeap::new(),
            begun,
            record: None,
            has_begun: false,
            has_ended: false,
        })
    }

    /// Bytes to be sent at a time, as many lists as there are now.
    pub(crate) fn frame_bytes(&self) -> usize {
        LIST_FRAME_BYTES.min(self.budget.share() / 4).max(PAGE_BYTES_MIN)
    }

    /// The next rows; `None` after the last, and after a failure.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, Failure> {
        if self.has_ended {
            return Ok(None);
        }
        let next = self.merged().await;
        if let Some(record) = self.record.take() {
            record.ended(next.as_ref().err());
        }
        if self.has_ended || next.is_err() {
            self.has_ended = true;
            self.gate.shared.metrics.requests.ended(self.begun, next.as_ref().err());
        }
        next.map(Some)
    }

    async fn merged(&mut self) -> Result<Batch, Failure> {
        let mut indexes = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            for at in 0..self.cursors.len() {
                self.ask(at).await?;
            }
            for at in 0..self.cursors.len() {
                self.turn_page(at).await?;
            }
            indexes = self.cursors.iter().filter_map(|cursor| cursor.at).collect();
        }
        let (mut rows, mut bytes, mut large) = (Vec::new(), 0, None);
        let frame_bytes = self.frame_bytes();
        while self.left > 0
            && bytes < frame_bytes
            && let Some(Reverse((key, at))) = self.heads.pop()
        {
            if self.cursors[at].large {
                if !rows.is_empty() {
                    // It comes alone.
                    self.heads.push(Reverse((key, at)));
                    break;
                }
                let (row, permit) = self.read_large(at).await?;
                rows.push(row);
                large = Some(permit);
                self.left -= 1;
                self.turn_page(at).await?;
                break;
            }
            let (key, row) =
                self.cursors[at].rows.pop().expect("a shard stands in the heap with its first row");
            bytes += key.len() + row.value.len() + ROW_OVERHEAD_BYTES;
            rows.push((key, row));
            self.left -= 1;
            match self.cursors[at].rows.last() {
                Some((key, _)) => self.heads.push(Reverse((key.clone(), at))),
                None if self.left > 0 => self.turn_page(at).await?,
                None => {}
            }
        }
        // Each shard that has more stands in the heap.
        self.has_ended = self.left == 0 || self.heads.is_empty();
        Ok(Batch { rows, is_last: self.has_ended, indexes, large })
    }

    /// Takes the shard's next page with something in it, if there is one.
    async fn turn_page(&mut self, at: usize) -> Result<(), Failure> {
        self.cursors[at].room = None;
        loop {
            if self.cursors[at].ahead.is_none() {
                self.ask(at).await?;
            }
            let Some(Ahead { page, from, room }) = self.cursors[at].ahead.take() else { return Ok(()) };
            let page = page.await.map_err(|_| stopped())??;
            // An empty page that goes no further has a row before it that is larger than a page.
            let is_before_large = page.rows.is_empty() && page.next.as_ref() == Some(&from);
            self.cursors[at].at = Some(page.at);
            self.go_on(at, page.next);
            let cursor = &mut self.cursors[at];
            if !page.rows.is_empty() {
                cursor.rows = page.rows;
                cursor.rows.reverse();
                let first = cursor.rows.last().map(|(key, _)| key.clone()).unwrap_or_default();
                cursor.room = Some(room);
                self.heads.push(Reverse((first, at)));
                // A list that needs no more of the shard does not come back to it: then nothing is kept there for it (`readers`).
                if (self.cursors[at].rows.len() as u64) < self.left {
                    self.ask_ahead(at);
                }
                return Ok(());
            }
            if is_before_large {
                cursor.large = true;
                self.heads.push(Reverse((from, at)));
                return Ok(());
            }
        }
    }

    /// What is left of a shard begins there: where nothing has this prefix any more, with the next one.
    fn go_on(&mut self, at: usize, rest: Option<Bytes>) {
        let cursor = &mut self.cursors[at];
        cursor.rest = rest;
        if cursor.rest.is_none() && cursor.over + 1 < self.prefixes.len() {
            cursor.over += 1;
            cursor.rest = Some(self.listing.from.clone());
        }
    }

    /// Reads the shard's next row, which is larger than a page.
    async fn read_large(&mut self, at: usize) -> Result<((Bytes, Row), OwnedSemaphorePermit), Failure> {
        let room = self.budget.large(LARGE_ROW_BYTES as u32);
        let waited = tokio::time::timeout(LARGE_WAIT_MAX, room).await;
        let mut permit = waited.map_err(|_| {
            let why = "other lists' large rows wait for their readers: try again later, from the last key";
            Failure::rejected(Code::ResourceExhausted, why)
        })?;
        let cursor = &self.cursors[at];
        let from = cursor.rest.clone().unwrap_or_default();
        let scan = Scan { rows_max: 1, bytes_max: u32::MAX, ..self.scan_of(cursor, from) };
        let turn = self.turn().await?;
        let page = self.scanned(scan, turn).await?;
        self.go_on(at, page.next);
        let cursor = &mut self.cursors[at];
        (cursor.large, cursor.asked) = (false, Instant::now());
        let (key, row) = page.rows.into_iter().next().ok_or_else(|| {
            Failure::unknown(
                Code::Unavailable,
                "a large row was announced, and the page that was to bring it is empty",
            )
        })?;
        let unused = LARGE_ROW_BYTES.saturating_sub(key.len() + row.value.len());
        drop(permit.split(unused));
        Ok(((key, row), permit))
    }

    /// Asks for the shard's next page before it is needed, if there is memory for it.
    fn ask_ahead(&mut self, at: usize) {
        let share = self.budget.share() / (PAGES_PER_SHARD * self.cursors.len());
        if share >= AHEAD_BYTES_MIN
            && let Some(turn) = self.budget.try_turn()
        {
            self.ask_in(turn, at);
        }
    }

    async fn ask(&mut self, at: usize) -> Result<(), Failure> {
        if self.cursors[at].rest.is_some() {
            let turn = self.turn().await?;
            self.ask_in(turn, at);
        }
        Ok(())
    }

    /// Waits for a turn, within the time that is left.
    async fn turn(&self) -> Result<Turn, Failure> {
        match self.deadline {
            None => Ok(self.budget.turn().await),
            Some(deadline) => {
                let waited = tokio::time::timeout_at(deadline.into(), self.budget.turn()).await;
                waited.map_err(|_| time_is_over())
            }
        }
    }

    fn ask_in(&mut self, turn: Turn, at: usize) {
        let cursor = &self.cursors[at];
        let Some(from) = cursor.rest.clone() else { return };
        let room = self.budget.take(PAGES_PER_SHARD * self.cursors.len());
        let mut rows_max = self.left.min(u32::MAX.into()) as u32;
        if cursor.over + 1 < self.prefixes.len() {
            // It comes back for the next prefix, so it is no brief list.
            rows_max = rows_max.max(BRIEF_ROWS_MAX + 1);
        }
        let scan = Scan { rows_max, bytes_max: room.bytes as u32, ..self.scan_of(cursor, from.clone()) };
        let page = tokio::spawn(self.scanned(scan, turn));
        let cursor = &mut self.cursors[at];
        (cursor.ahead, cursor.asked) = (Some(Ahead { page, from, room }), Instant::now());
    }

    /// Asks for a page, within the time that is left.
    fn scanned(
        &self,
        scan: Scan,
        turn: Turn,
    ) -> impl Future<Output = Result<Page, Failure>> + Send + 'static {
        let (gate, deadline) = (self.gate.clone(), self.deadline);
        async move {
            let left =
                deadline.map_or(PAGE_TIME, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(time_is_over());
            }
            let timeout_ms = (left.min(PAGE_TIME).as_millis() as u32).max(1);
            let _turn = turn;
            match gate.ask(Call::from(Request::Scan(scan)).within(timeout_ms)).await.reply {
                Reply::Page(page) => Ok(Page { rows: compacted(&page.rows), ..page }),
                other => Err(other.into_failure()),
            }
        }
    }

    fn scan_of(&self, cursor: &Cursor, from: Bytes) -> Scan {
        Scan {
            shard: cursor.shard,
            at: cursor.at,
            from,
            prefix: self.prefixes[cursor.over].clone(),
            rows_max: 1,
            bytes_max: 1,
            keys_only: self.listing.keys_only,
        }
    }

    /// Keeps readable what this list still needs, while its reader takes its time.
    pub(crate) async fn touch(&mut self) {
        for at in 0..self.cursors.len() {
            let cursor = &self.cursors[at];
            if let Some(rest) = &cursor.rest
                && cursor.at.is_some()
                && cursor.asked.elapsed() > TOUCH_AFTER
            {
                let scan = Scan { keys_only: true, ..self.scan_of(cursor, rest.clone()) };
                let turn = self.budget.turn().await;
                // Whatever comes of it shows when the shard's next page is asked for.
                tokio::spawn(self.scanned(scan, turn));
                self.cursors[at].asked = Instant::now();
            }
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.budget.closed();
        for ahead in self.cursors.iter_mut().filter_map(|cursor| cursor.ahead.take()) {
            ahead.page.abort();
        }
    }
}

fn time_is_over() -> Failure {
    Failure::rejected(Code::DeadlineExceeded, "the list's time is over: go on from the last key")
}

/// The same rows in a buffer of their own.
fn compacted(rows: &[(Bytes, Row)]) -> Vec<(Bytes, Row)> {
    let bytes = rows.iter().map(|(key, row)| key.len() + row.value.len()).sum();
    let mut buffer = BytesMut::with_capacity(bytes);
    let mut copied = |bytes: &[u8]| {
        buffer.extend_from_slice(bytes);
        buffer.split().freeze()
    };
    rows.iter()
        .map(|(key, row)| (copied(key), Row { value: copied(&row.value), revision: row.revision }))
        .collect()
}
