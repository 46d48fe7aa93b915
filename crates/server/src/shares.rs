//! What one user has under way at a node, over all of their connections: no more than half of what there may be, so that nobody
//! fills the node alone. Nobody in particular has no bound of their own: that may be any number of clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfort_types::limits::{USER_PENDING_BYTES_MAX, USER_PENDING_REQUESTS_MAX};
use ringfort_types::{Code, Failure, Principal};

use crate::metrics::Counter;

/// All users' shares.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    under_way: Mutex<BTreeMap<Principal, UnderWay>>,
    refused: Counter,
}

#[derive(Debug, Default)]
struct UnderWay {
    requests: usize,
    bytes: usize,
}

/// A request's part in its user's share, until it is answered.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<Shares>,
    who: Principal,
    bytes: usize,
}

impl Shares {
    /// One more request of so many bytes; none where there is no bound.
    pub(crate) fn enter(self: &Arc<Shares>, who: Principal, bytes: usize) -> Result<Option<Share>, Failure> {
        if who == Principal::NOBODY || who == Principal::NODE {
            return Ok(None);
        }
        let mut all = self.lock();
        let under_way = all.entry(who).or_default();
        // One request that is larger than that by itself is no reason to refuse it.
        let has_room = under_way.requests < USER_PENDING_REQUESTS_MAX
            && (under_way.bytes == 0 || under_way.bytes + bytes <= USER_PENDING_BYTES_MAX);
        if !has_room {
            self.refused.add(1);
            return Err(Failure::rejected(
                Code::ResourceExhausted,
                format!(
                    "this user has {} requests with {} bytes under way at this node, over all connections: send fewer at a time",
                    under_way.requests, under_way.bytes
                ),
            ));
        }
        under_way.requests += 1;
        under_way.bytes += bytes;
        Ok(Some(Share { of: self.clone(), who, bytes }))
    }

    /// How many requests found no room.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Principal, UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.of.lock();
        if let Some(under_way) = all.get_mut(&self.who) {
            under_way.requests -= 1;
            under_way.bytes -= self.bytes;
            if under_way.requests == 0 {
                all.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_half_of_the_node_and_nothing_is_kept_of_who_has_nothing_under_way() {
        let (shares, ada, bob) = (Arc::<Shares>::default(), Principal(1), Principal(2));
        let half = shares.enter(ada, USER_PENDING_BYTES_MAX / 2).unwrap();
        let more = shares.enter(ada, USER_PENDING_BYTES_MAX / 2).unwrap();
        let refused = shares.enter(ada, 1).unwrap_err();
        assert_eq!((refused.code, shares.refused()), (Code::ResourceExhausted, 1));
        assert!(refused.message.starts_with("this user has 2 requests with"), "{}", refused.message);
        // Others, and one that is large by itself.
        let large = shares.enter(bob, 2 * USER_PENDING_BYTES_MAX).unwrap();
        assert!(shares.enter(Principal::NOBODY, usize::MAX).unwrap().is_none());
        drop(half);
        drop(shares.enter(ada, 1).unwrap());
        let many: Vec<_> = (1..USER_PENDING_REQUESTS_MAX).map(|_| shares.enter(ada, 0).unwrap()).collect();
        assert!(shares.enter(ada, 0).is_err());
        drop((many, more, large));
        assert!(shares.lock().is_empty());
    }
}
