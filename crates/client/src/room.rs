//! Room for requests in flight: so many, and so many bytes of them; further ones wait.

use std::time::Instant;

use ringfort_types::{Code, Failure};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::options::Options;

/// A request takes its bytes, and at least `weight_min`, so that this bounds their number too.
#[derive(Debug)]
pub(crate) struct Room {
    free: Semaphore,
    bytes: u32,
    weight_min: u32,
}

impl Room {
    pub(crate) fn new(options: &Options) -> Room {
        let bytes = u32::try_from(options.in_flight_bytes_max).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        let requests_max = u32::try_from(options.in_flight_max).unwrap_or(u32::MAX).clamp(1, bytes);
        Room { free: Semaphore::new(bytes as usize), bytes, weight_min: bytes / requests_max }
    }

    /// Room for one more request of this weight, until the permit is dropped.
    pub(crate) async fn admit(
        &self,
        weight: usize,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, Failure> {
        let weight = u32::try_from(weight).unwrap_or(u32::MAX).clamp(self.weight_min, self.bytes);
        if let Ok(room) = self.free.try_acquire_many(weight) {
            return Ok(room);
        }
        match tokio::time::timeout_at(deadline.into(), self.free.acquire_many(weight)).await {
            Ok(room) => Ok(room.expect("the semaphore is never closed")),
            Err(_) => Err(Failure::rejected(
                Code::ResourceExhausted,
                "this client has too many requests unanswered: send fewer at once",
            )),
        }
    }
}
