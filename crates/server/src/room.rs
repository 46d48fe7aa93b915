//! Room for large answers: a client may ask for many at once and take none of them.
//!
//! An answer of more than [`LARGE_ANSWER_BYTES`] takes as much of [`LARGE_ANSWERS_BYTES`] as it has, and keeps it until its door
//! has given it away. How large it is shows only when it is there: if there is no room it is dropped again, and asked for anew once
//! there is. A connection with calls in a pipeline may hold so much of answers to all of them, and takes room for what is beyond.

use std::sync::Arc;

use ringfort_types::limits::{LARGE_ANSWER_BYTES, LARGE_ANSWERS_BYTES, PIPELINED_ANSWERS_BYTES};
use ringfort_types::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Counter;

/// A connection takes room for so many bytes of small answers at once.
const HANDED_BYTES: usize = 1024 * 1024;

/// What a node has for them.
#[derive(Clone, Debug)]
pub(crate) struct LargeAnswers {
    room: Arc<Semaphore>,
    /// How often there was none in time.
    refused: Arc<Counter>,
}

/// What a connection may hold of answers that it has been handed and not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    free: usize,
    rooms: Vec<Room>,
}

/// What one of them has. Whoever gives the answer away keeps this until it is gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Option<Arc<OwnedSemaphorePermit>>);

impl Default for LargeAnswers {
    fn default() -> LargeAnswers {
        LargeAnswers { room: Arc::new(Semaphore::new(LARGE_ANSWERS_BYTES)), refused: Arc::default() }
    }
}

impl LargeAnswers {
    /// For an answer of this size, which has some already: enough for it, if there is now. A small one needs none.
    pub(crate) fn enough(&self, bytes: usize, room: Room) -> Option<Room> {
        if bytes <= LARGE_ANSWER_BYTES || bytes <= room.bytes() {
            return Some(room);
        }
        // What it has is given back first, so that two which want more do not wait for each other.
        drop(room);
        self.try_take(bytes)
    }

    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        self.room.clone().try_acquire_many_owned(bytes as u32).ok().map(Room::from)
    }

    /// The same, once there is.
    pub(crate) async fn wait(&self, bytes: usize) -> Room {
        let permit = self.room.clone().acquire_many_owned(bytes as u32).await;
        permit.expect("the semaphore is never closed").into()
    }

    /// Others' answers take all the room that there is for large ones.
    pub(crate) fn none(&self) -> Failure {
        self.refused.add(1);
        let why = "this node's large answers wait for their clients to take them: try again later, or ask another node";
        Failure::rejected(Code::ResourceExhausted, why)
    }

    /// How often that was so.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> usize {
        LARGE_ANSWERS_BYTES - self.room.available_permits()
    }
}

impl Handed {
    /// The connection has taken all that it was handed.
    pub(crate) fn taken(&mut self) {
        self.rooms.clear();
        self.free = PIPELINED_ANSWERS_BYTES;
    }

    /// Whether an answer of this size may be handed over now, for which that room was waited. Room is taken for many small
    /// ones at a time, if there is so much.
    pub(crate) fn has_room(&mut self, bytes: usize, of: &LargeAnswers, waited: Room) -> bool {
        if bytes > self.free {
            let enough = if waited.is_some() {
                of.enough(bytes, waited)
            } else {
                of.try_take(bytes.max(HANDED_BYTES)).or_else(|| of.try_take(bytes))
            };
            let Some(room) = enough else { return false };
            self.free += room.bytes();
            self.rooms.push(room);
        }
        self.free = self.free.saturating_sub(bytes);
        true
    }

    /// Holds an answer's own room.
    pub(crate) fn hold(&mut self, room: Room) {
        if room.is_some() {
            self.rooms.push(room);
        }
    }

    /// Whether there are large ones, or many, among them.
    pub(crate) fn is_large(&self) -> bool {
        !self.rooms.is_empty()
    }
}

#[cfg(test)]
impl LargeAnswers {
    pub(crate) fn left(&self) -> usize {
        self.room.available_permits()
    }
}

impl Room {
    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |permit| permit.num_permits())
    }

    /// Whether the answer is a large one.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl From<OwnedSemaphorePermit> for Room {
    fn from(permit: OwnedSemaphorePermit) -> Room {
        Room(Some(Arc::new(permit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_answers_take_turns_and_small_ones_need_none() {
        let answers = LargeAnswers::default();
        let large = LARGE_ANSWERS_BYTES / 2;
        let first = answers.enough(large, Room::default()).expect("there is room");
        let second = answers.enough(large, Room::default()).expect("there is room");
        assert!(answers.enough(LARGE_ANSWER_BYTES + 1, Room::default()).is_none());
        assert!(answers.enough(LARGE_ANSWER_BYTES, Room::default()).is_some_and(|room| !room.is_some()));
        assert!(answers.enough(large, first).is_some(), "it has enough");
        drop(second);
        assert!(answers.enough(2 * large, Room::default()).is_some());
    }
}
