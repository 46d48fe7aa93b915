//! `List`: one stream in key order over all shards.
//!
//! Keys are spread over shards by hash, so every shard has some of each part of the key space. The asked node
//! reads all shards side by side, page by page (from its own replica or over a peer, the node decides), and
//! merges them. A shard's first page settles the index that all its pages are read at; while one page is merged,
//! the next is under way.
//!
//! Bounds: pages are sized so that all shards' pages together stay within [`PAGES_BYTES`] (a row that is larger than a
//! page is a page by itself, so very large values can exceed it); a frame has about [`FRAME_BYTES`]; a client that takes
//! nothing for [`SLOW_MAX`] is cut off. An index stays readable for a while only (`readers`), so shards that a
//! slow stream has not asked for some time are asked for a row now and then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_proto::{status, v1};
use ringfort_types::limits::{KEY_BYTES_MAX, SCAN_PAGE_BYTES};
use ringfort_types::{Call, Code, Failure, Index, Page, Reply, Request, Row, Scan, ShardId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::horizon::HELD;
use crate::shared::Shared;

/// Bytes of pages that one stream may hold, over all shards.
const PAGES_BYTES: usize = 8 * 1024 * 1024;
/// Pages of a shard that a stream may hold: one being merged, one under way.
const PAGES_PER_SHARD: usize = 2;
/// Pages are not made smaller than this, however many shards there are.
const PAGE_BYTES_MIN: usize = 2 * 1024;
/// A frame is sent once it has this many bytes.
const FRAME_BYTES: usize = 64 * 1024;
/// Frames that wait for the client.
const FRAMES_WAITING: usize = 4;
/// How long one page may take.
const PAGE_TIMEOUT_MS: u32 = 10_000;
/// How long a client may take nothing.
const SLOW_MAX: Duration = Duration::from_mins(1);
/// A shard that was not asked for so long is asked for a row, so that its index stays readable.
const TOUCH_AFTER: Duration = Duration::from_secs(HELD.as_secs() / 3);

/// Starts a stream.
pub(crate) fn stream(
    shared: Arc<Shared>,
    asked: v1::ListRequest,
) -> Result<ReceiverStream<Result<v1::ListResponse, Status>>, Failure> {
    for (what, bytes) in [("prefix", &asked.prefix), ("from", &asked.from)] {
        if bytes.len() > KEY_BYTES_MAX + 1 {
            return Err(Failure::rejected(
                Code::InvalidArgument,
                format!("{what} of {} bytes: keys have at most {KEY_BYTES_MAX}", bytes.len()),
            ));
        }
    }
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
    tokio::spawn(async move {
        let mut stopping = shared.stopping.subscribe();
        let mut merge = Merge::new(shared, asked);
        let result = tokio::select! {
            result = merge.run(&sender) => result,
            () = sender.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(Failure::rejected(Code::Stopping, "the node is stopping: ask another one"))
            }
        };
        if let Err(failure) = result {
            let _gone = sender.send_timeout(Err(status::from_failure(failure)), SLOW_MAX).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// What is left of one shard.
struct Cursor {
    shard: ShardId,
    /// The page being merged, in reverse, so that its first row is last.
    rows: Vec<(Bytes, Row)>,
    at: Option<Index>,
    next: Option<JoinHandle<Result<Page, Failure>>>,
    /// Where to touch the shard, and when it was last asked.
    resume: Bytes,
    asked: Instant,
}

/// One stream's state.
struct Merge {
    shared: Arc<Shared>,
    asked: v1::ListRequest,
    page_bytes: usize,
    cursors: Vec<Cursor>,
    /// The smallest key of each shard that has one.
    heads: BinaryHeap<Reverse<(Bytes, usize)>>,
}

impl Merge {
    fn new(shared: Arc<Shared>, asked: v1::ListRequest) -> Merge {
        let shards = shared.shards as usize;
        let page_bytes = (PAGES_BYTES / shards / PAGES_PER_SHARD).clamp(PAGE_BYTES_MIN, SCAN_PAGE_BYTES);
        Merge { shared, asked, page_bytes, cursors: Vec::new(), heads: BinaryHeap::new() }
    }

    async fn run(&mut self, sender: &mpsc::Sender<Result<v1::ListResponse, Status>>) -> Result<(), Failure> {
        for shard in (1..=self.shared.shards).map(ShardId) {
            let from = self.asked.from.clone();
            let next = Some(self.ask(shard, None, from.clone()));
            let asked = Instant::now();
            self.cursors.push(Cursor { shard, rows: Vec::new(), at: None, next, resume: from, asked });
        }
        for at in 0..self.cursors.len() {
            self.turn_page(at).await?;
        }
        let mut left = if self.asked.limit == 0 { u64::MAX } else { self.asked.limit };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while left > 0
            && let Some(Reverse((_, at))) = self.heads.pop()
        {
            let cursor = &mut self.cursors[at];
            let (key, row) = cursor.rows.pop().expect("a shard stands in the heap with its first row");
            bytes += key.len() + row.value.len() + 16;
            rows.push(v1::ListRow { key, value: row.value, revision: row.revision.0 });
            left -= 1;
            match cursor.rows.last() {
                Some((key, _)) => self.heads.push(Reverse((key.clone(), at))),
                None if left > 0 => self.turn_page(at).await?,
                None => {}
            }
            if bytes >= FRAME_BYTES {
                self.send(sender, std::mem::take(&mut rows)).await?;
                bytes = 0;
            }
        }
        if !rows.is_empty() {
            self.send(sender, rows).await?;
        }
        Ok(())
    }

    /// Takes the shard's next page that has a row, if there is one, and asks for the one after it.
    async fn turn_page(&mut self, at: usize) -> Result<(), Failure> {
        while let Some(next) = self.cursors[at].next.take() {
            let page = next.await.map_err(|_| crate::shared::stopped())??;
            let is_empty = page.rows.is_empty();
            if let Some(from) = page.next {
                let shard = self.cursors[at].shard;
                let next = if is_empty {
                    self.ask_for_one(shard, page.at, from.clone())
                } else {
                    self.ask(shard, Some(page.at), from.clone())
                };
                let cursor = &mut self.cursors[at];
                (cursor.next, cursor.resume, cursor.asked) = (Some(next), from, Instant::now());
            }
            let cursor = &mut self.cursors[at];
            cursor.at = Some(page.at);
            cursor.rows = page.rows;
            cursor.rows.reverse();
            if let Some((key, _)) = cursor.rows.last() {
                self.heads.push(Reverse((key.clone(), at)));
                return Ok(());
            }
        }
        Ok(())
    }

    fn ask(&self, shard: ShardId, at: Option<Index>, from: Bytes) -> JoinHandle<Result<Page, Failure>> {
        let rows_max =
            if self.asked.limit == 0 { u32::MAX } else { self.asked.limit.min(u32::MAX.into()) as u32 };
        self.scan(self.page(shard, at, from, rows_max, self.page_bytes as u32))
    }

    /// Asks for one row, however large it is: the page that began with it was empty.
    fn ask_for_one(&self, shard: ShardId, at: Index, from: Bytes) -> JoinHandle<Result<Page, Failure>> {
        self.scan(self.page(shard, Some(at), from, 1, u32::MAX))
    }

    fn page(&self, shard: ShardId, at: Option<Index>, from: Bytes, rows_max: u32, bytes_max: u32) -> Scan {
        let (prefix, keys_only) = (self.asked.prefix.clone(), self.asked.keys_only);
        Scan { shard, at, from, prefix, rows_max, bytes_max, keys_only }
    }

    fn scan(&self, scan: Scan) -> JoinHandle<Result<Page, Failure>> {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            match shared.ask(Call::from(Request::Scan(scan)).within(PAGE_TIMEOUT_MS)).await.0 {
                Reply::Page(page) => Ok(page),
                Reply::Failed(failure) => Err(failure),
                _ => Err(Failure::rejected(Code::Unavailable, "a scan was not answered with a page")),
            }
        })
    }

    /// Sends a frame, and meanwhile keeps alive what this stream still needs.
    async fn send(
        &mut self,
        sender: &mpsc::Sender<Result<v1::ListResponse, Status>>,
        rows: Vec<v1::ListRow>,
    ) -> Result<(), Failure> {
        let mut frame = Ok(v1::ListResponse { rows });
        let started = Instant::now();
        loop {
            self.touch();
            match sender.send_timeout(frame, TOUCH_AFTER).await {
                Ok(()) => return Ok(()),
                Err(mpsc::error::SendTimeoutError::Timeout(unsent)) if started.elapsed() < SLOW_MAX => {
                    frame = unsent;
                }
                Err(_) => {
                    return Err(Failure::rejected(
                        Code::ResourceExhausted,
                        "the list's reader has taken nothing for a minute: read faster, or go on from the last key",
                    ));
                }
            }
        }
    }

    fn touch(&mut self) {
        for at in 0..self.cursors.len() {
            let cursor = &self.cursors[at];
            if cursor.next.is_some() && cursor.asked.elapsed() > TOUCH_AFTER {
                let scan = Scan {
                    shard: cursor.shard,
                    at: cursor.at,
                    from: cursor.resume.clone(),
                    prefix: self.asked.prefix.clone(),
                    rows_max: 1,
                    bytes_max: 1,
                    keys_only: true,
                };
                // Whatever comes of it shows when the shard's next page is asked for.
                drop(self.scan(scan));
                self.cursors[at].asked = Instant::now();
            }
        }
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        for page in self.cursors.iter_mut().filter_map(|cursor| cursor.next.take()) {
            page.abort();
        }
    }
}
