//! Room for large answers: a client may ask for many at once and take none of them.
//!
//! An answer of more than [`LARGE_ANSWER_BYTES`] takes as much of [`LARGE_ANSWERS_BYTES`] as it has, and keeps it until its door
//! has given it away. How large it is shows only when it is there: if there is no room it is dropped again, and asked for anew once
//! there is. One user has half of it at most, an address of those who name none three quarters (`shares`); beyond, they wait for their own.
//! A connection with calls in a pipeline may hold so much of answers to all of them, and takes room for what is beyond.

use std::sync::Arc;

use ringfort_types::limits::{LARGE_ANSWER_BYTES, LARGE_ANSWERS_BYTES, PIPELINED_ANSWERS_BYTES};
use ringfort_types::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Counter;
use crate::shares::UnderWay;

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
pub(crate) struct Room(Option<Arc<Taken>>);

#[derive(Debug)]
struct Taken {
    of_all: OwnedSemaphorePermit,
    /// Of what its user, or its address, may have.
    _of_own: Option<OwnedSemaphorePermit>,
}

impl Default for LargeAnswers {
    fn default() -> LargeAnswers {
        LargeAnswers { room: Arc::new(Semaphore::new(LARGE_ANSWERS_BYTES)), refused: Arc::default() }
    }
}

impl LargeAnswers {
    /// For an answer of this size, which has some already: enough for it, if there is now. A small one needs none.
    pub(crate) fn enough(&self, bytes: usize, room: Room, of: Option<&Arc<UnderWay>>) -> Option<Room> {
        if bytes <= LARGE_ANSWER_BYTES || bytes <= room.bytes() {
            return Some(room);
        }
        // What it has is given back first, so that two which want more do not wait for each other.
        drop(room);
        self.try_take_of(bytes, of)
    }

    /// For one that is counted for nobody.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        self.try_take_of(bytes, None)
    }

    fn try_take_of(&self, bytes: usize, of: Option<&Arc<UnderWay>>) -> Option<Room> {
        let take = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(bytes as u32).ok();
        let own = match of {
            Some(of) => Some(take(&of.large_answers)?),
            None => None,
        };
        Some(Room::new(take(&self.room)?, own))
    }

    /// The same, once there is.
    pub(crate) async fn wait(&self, bytes: usize, of: Option<Arc<UnderWay>>) -> Room {
        // First, so that those who wait for what they have themselves are before nobody else.
        let own = match &of {
            Some(of) => Some(taken(&of.large_answers, bytes).await),
            None => None,
        };
        Room::new(taken(&self.room, bytes).await, own)
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

async fn taken(room: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    room.clone().acquire_many_owned(bytes as u32).await.expect("the semaphore is never closed")
}

impl Handed {
    /// The connection has taken all that it was handed.
    pub(crate) fn taken(&mut self) {
        self.rooms.clear();
        self.free = PIPELINED_ANSWERS_BYTES;
    }

    /// Whether an answer of this size may be handed over now, for which that room was waited. Room is taken for many small
    /// ones at a time, if there is so much.
    pub(crate) fn has_room(
        &mut self,
        bytes: usize,
        all: &LargeAnswers,
        waited: Room,
        of: Option<&Arc<UnderWay>>,
    ) -> bool {
        if bytes > self.free {
            let enough = if waited.is_some() {
                all.enough(bytes, waited, of)
            } else {
                all.try_take_of(bytes.max(HANDED_BYTES), of).or_else(|| all.try_take_of(bytes, of))
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
    fn new(of_all: OwnedSemaphorePermit, of_own: Option<OwnedSemaphorePermit>) -> Room {
        Room(Some(Arc::new(Taken { of_all, _of_own: of_own })))
    }

    fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |taken| taken.of_all.num_permits())
    }

    /// Whether the answer is a large one.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use ringfort_types::Principal;
    use ringfort_types::limits::USER_LARGE_ANSWERS_BYTES;

    use super::*;
    use crate::audit::Asker;
    use crate::shares::Shares;

    #[test]
    fn large_answers_take_turns_and_small_ones_need_none() {
        let answers = LargeAnswers::default();
        let large = LARGE_ANSWERS_BYTES / 2;
        let enough = |bytes, room| answers.enough(bytes, room, None);
        let first = enough(large, Room::default()).expect("there is room");
        let second = enough(large, Room::default()).expect("there is room");
        assert!(enough(LARGE_ANSWER_BYTES + 1, Room::default()).is_none());
        assert!(enough(LARGE_ANSWER_BYTES, Room::default()).is_some_and(|room| !room.is_some()));
        assert!(enough(large, first).is_some(), "it has enough");
        drop(second);
        assert!(enough(2 * large, Room::default()).is_some());
    }

    #[tokio::test]
    async fn who_takes_nothing_leaves_room_to_others_and_waits_before_nobody() {
        let (answers, shares) = (LargeAnswers::default(), Shares::default());
        let of = |number| shares.of(Asker::from(Principal(number)));
        let enough = |bytes, of: Option<Arc<UnderWay>>| answers.enough(bytes, Room::default(), of.as_ref());
        let half = enough(USER_LARGE_ANSWERS_BYTES, of(1)).expect("there is room");
        assert!(enough(LARGE_ANSWER_BYTES + 1, of(1)).is_none());
        let mut waits = pin!(answers.wait(LARGE_ANSWERS_BYTES / 4, of(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let other = pin!(answers.wait(LARGE_ANSWERS_BYTES / 2, of(2))).poll(&mut cx);
        assert!(other.is_ready());
        drop((half, other));
        assert!(waits.await.is_some());
        assert_eq!(answers.left(), LARGE_ANSWERS_BYTES);
    }
}
