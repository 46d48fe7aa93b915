//! What waits to be sent to one other node.
//!
//! The core (and whoever answers that node's requests) adds messages; the connection's stream takes all
//! of them at once and makes one frame of them, so that everything queued while the last frame was on its way
//! shares the next one. Reads for that node wait here too, and are done while the frame is made.
//!
//! Invariants: messages leave in the order in which they came, but for chunks of snapshots, of which each frame takes
//! one, at its end: nothing waits for more than one of them. The outbox belongs to one connection at a time,
//! named by a generation; between two connections it is closed and drops what comes, and it is opened by the
//! core thread as it handles `PeerUp`, so what the node sent before it knew of the loss can't slip into the new
//! connection. Beyond [`PEER_OUTBOX_BYTES_MAX`] the connection is given up.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use ringfort_types::limits::{PEER_FRAME_MESSAGES_MAX, PEER_OUTBOX_BYTES_MAX};
use ringfort_types::{NodeId, PeerMessage};

use crate::delivery::ReadAt;
use crate::metrics::PeerMetrics;

/// Largest frame between nodes: a Raft message may be 64 MiB by itself.
pub(crate) const FRAME_BYTES_MAX: usize = 80 * 1024 * 1024;

/// A frame is closed once its messages reach this many bytes (one message may be larger by itself).
pub(crate) const FRAME_BYTES_SOFT: usize = 4 * 1024 * 1024;

/// Something to be sent.
#[derive(Debug)]
pub(crate) enum Item {
    /// This.
    Message(PeerMessage),
    /// The answer to a read, once it is done.
    Read {
        /// The other node's number for its request.
        id: u64,
        /// What to read.
        read: ReadAt,
    },
}

impl Item {
    fn is_chunk(&self) -> bool {
        matches!(self, Item::Message(PeerMessage::SnapshotChunk(_)))
    }

    fn weight(&self) -> usize {
        match self {
            Item::Message(message) => message.weight(),
            Item::Read { read, .. } => read.request.weight(),
        }
    }
}

/// What waits for one node.
#[derive(Debug)]
pub(crate) struct Outbox {
    to: NodeId,
    state: Mutex<State>,
    pub(crate) metrics: PeerMetrics,
}

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    bytes: usize,
    /// Chunks of snapshots.
    chunks: VecDeque<Item>,
    chunk_bytes: usize,
    /// The connection that may take; 0 while there is none.
    generation: u64,
    /// Whether the core knows of that connection.
    open: bool,
    waker: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(to: NodeId) -> Outbox {
        Outbox { to, state: Mutex::default(), metrics: PeerMetrics::default() }
    }

    /// Whose it is.
    pub(crate) fn to(&self) -> NodeId {
        self.to
    }

    /// Belongs to this connection from now on, but takes nothing before it is opened.
    pub(crate) fn assign(&self, generation: u64) {
        *self.lock() = State { generation, ..State::default() };
    }

    /// The core knows of the connection, and what it sends from now on is meant for it.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        state.open = state.generation != 0;
    }

    /// Its connection is gone, and what waits with it.
    pub(crate) fn close(&self) {
        *self.lock() = State::default();
    }

    /// Adds items. Dropped while there is no connection.
    pub(crate) fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        if !state.open {
            return;
        }
        for item in items {
            if item.is_chunk() {
                state.chunk_bytes += item.weight();
                state.chunks.push_back(item);
            } else {
                state.bytes += item.weight();
                state.items.push(item);
            }
        }
        if state.bytes + state.chunk_bytes > PEER_OUTBOX_BYTES_MAX {
            // The stream sees that it has lost the outbox, and ends.
            let waker = state.waker.take();
            *state = State { waker, ..State::default() };
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.chunk_bytes
    }

    /// Takes the next frame's items. `Ready(None)` once the outbox no longer belongs to this connection.
    pub(crate) fn poll_take(&self, generation: u64, waker: &Waker) -> Poll<Option<Vec<Item>>> {
        let mut state = self.lock();
        if state.generation != generation {
            return Poll::Ready(None);
        }
        if state.items.is_empty() && state.chunks.is_empty() {
            state.waker = Some(waker.clone());
            return Poll::Pending;
        }
        let mut frame = state.take_items();
        if frame.len() < PEER_FRAME_MESSAGES_MAX
            && let Some(chunk) = state.chunks.pop_front()
        {
            state.chunk_bytes -= chunk.weight();
            frame.push(chunk);
        }
        Poll::Ready(Some(frame))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn take_for_test(&self) -> usize {
        self.lock().items.len()
    }
}

impl State {
    /// As many items as make a frame.
    fn take_items(&mut self) -> Vec<Item> {
        let state = self;
        if state.bytes <= FRAME_BYTES_SOFT && state.items.len() <= PEER_FRAME_MESSAGES_MAX {
            state.bytes = 0;
            let room = state.items.len().min(1024);
            return std::mem::replace(&mut state.items, Vec::with_capacity(room));
        }
        let (mut count, mut bytes) = (0, 0);
        for item in &state.items {
            let weight = item.weight();
            if count > 0 && (bytes + weight > FRAME_BYTES_SOFT || count == PEER_FRAME_MESSAGES_MAX) {
                break;
            }
            count += 1;
            bytes += weight;
        }
        state.bytes -= bytes;
        state.items.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_types::{Index, RaftMessage, ShardId, SnapshotChunk};

    use super::*;

    fn message(bytes: usize) -> Item {
        Item::Message(PeerMessage::Raft(RaftMessage {
            shard: ShardId(1),
            message: Bytes::from(vec![0; bytes]),
        }))
    }

    fn taken(outbox: &Outbox, generation: u64) -> Option<usize> {
        match outbox.poll_take(generation, Waker::noop()) {
            Poll::Ready(items) => items.map(|items| items.len()),
            Poll::Pending => Some(0),
        }
    }

    #[test]
    fn a_closed_outbox_drops_and_another_connection_gets_nothing() {
        let outbox = Outbox::new(NodeId(2));
        outbox.open();
        outbox.push([message(1)]);
        outbox.assign(1);
        outbox.push([message(1)]);
        outbox.open();
        assert_eq!(taken(&outbox, 1), Some(0));
        outbox.push([message(1), message(1)]);
        assert_eq!(taken(&outbox, 1), Some(2));
        outbox.push([message(1)]);
        outbox.close();
        outbox.assign(2);
        assert_eq!(taken(&outbox, 1), None);
        assert_eq!(taken(&outbox, 2), Some(0));
    }

    #[test]
    fn a_frame_takes_one_chunk_of_a_snapshot_behind_all_that_waits() {
        let outbox = Outbox::new(NodeId(2));
        outbox.assign(1);
        outbox.open();
        let chunk = |number| {
            let bytes = Bytes::from(vec![0; FRAME_BYTES_SOFT]);
            let (shard, transfer, index, is_last) = (ShardId(1), 1, Index(5), false);
            let chunk = SnapshotChunk { shard, transfer, index, number, is_last, bytes };
            Item::Message(PeerMessage::SnapshotChunk(chunk))
        };
        outbox.push([chunk(0), chunk(1), message(1), message(1)]);
        let Poll::Ready(Some(first)) = outbox.poll_take(1, Waker::noop()) else { panic!("a frame is due") };
        assert_eq!(first.iter().map(Item::is_chunk).collect::<Vec<_>>(), [false, false, true]);
        outbox.push([message(1)]);
        assert_eq!((taken(&outbox, 1), taken(&outbox, 1)), (Some(2), Some(0)));
        outbox.push((0..17).map(chunk));
        assert_eq!(taken(&outbox, 1), None);
    }

    #[test]
    fn frames_are_cut_and_an_overfull_outbox_gives_its_connection_up() {
        let outbox = Outbox::new(NodeId(2));
        outbox.assign(1);
        outbox.open();
        outbox.push((0..5).map(|_| message(FRAME_BYTES_SOFT / 2 - 100)));
        outbox.push([message(2 * FRAME_BYTES_SOFT), message(1)]);
        let frames: Vec<_> = std::iter::from_fn(|| taken(&outbox, 1).filter(|count| *count > 0)).collect();
        assert_eq!(frames, [2, 2, 1, 1, 1]);
        outbox.push((0..=PEER_FRAME_MESSAGES_MAX).map(|_| message(0)));
        assert_eq!((taken(&outbox, 1), taken(&outbox, 1)), (Some(PEER_FRAME_MESSAGES_MAX), Some(1)));
        outbox.push((0..17).map(|_| message(FRAME_BYTES_SOFT)));
        assert_eq!(taken(&outbox, 1), None);
    }
}
