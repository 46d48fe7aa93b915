//! What one user has under way at a node, over all of their connections, and of large answers in memory: no more than half of what there may be, so that nobody
//! fills the node alone. Those who are nobody in particular have three quarters for each address that they come from, as with connections: an
//! address may be a proxy's, or this machine's, behind which there are many.
//!
//! A connection with many calls finds out once whose share it takes of ([`Shares::of`]); to enter and to leave are additions then.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfort_types::limits::{
    ADDRESS_LARGE_ANSWERS_BYTES, ADDRESS_PENDING_BYTES_MAX, ADDRESS_PENDING_REQUESTS_MAX,
    USER_LARGE_ANSWERS_BYTES, USER_PENDING_BYTES_MAX, USER_PENDING_REQUESTS_MAX,
};
use ringfort_types::{Code, Failure, Principal};
use tokio::sync::Semaphore;

use crate::audit::Asker;
use crate::metrics::Counter;
use crate::network::network;

/// Those that have nothing under way are forgotten when there are this many more than there were after the last time.
const SWEEP_AFTER: usize = 64;

/// All shares.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    known: Mutex<Known>,
    refused: [Counter; 2],
}

#[derive(Debug, Default)]
struct Known {
    under_way: BTreeMap<Whose, Arc<UnderWay>>,
    sweep_at: usize,
}

/// Who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    User(Principal),
    Address(IpAddr),
}

impl Whose {
    fn of(asker: Asker) -> Option<Whose> {
        match asker.who {
            Principal::NODE => None,
            Principal::NOBODY | Principal::STRANGER => asker.from.map(|from| Whose::Address(network(from))),
            user => Some(Whose::User(user)),
        }
    }
}

/// What somebody has under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    whose: Whose,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes that they may have of large answers which are not taken yet (`room`).
    pub(crate) large_answers: Arc<Semaphore>,
}

/// A request's part in it, until it is answered.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<UnderWay>,
    bytes: usize,
}

impl UnderWay {
    /// Whether nobody has it, or any of its room.
    fn is_idle(self: &Arc<UnderWay>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.large_answers) == 1
    }
}

impl Shares {
    /// Where this one's requests are counted; nowhere, where there is no bound: of what the node does itself.
    pub(crate) fn of(&self, asker: Asker) -> Option<Arc<UnderWay>> {
        let whose = Whose::of(asker)?;
        let mut known = self.lock();
        if let Some(under_way) = known.under_way.get(&whose) {
            return Some(under_way.clone());
        }
        if known.under_way.len() >= known.sweep_at {
            known.under_way.retain(|_, under_way| !under_way.is_idle());
            known.sweep_at = known.under_way.len() + SWEEP_AFTER;
        }
        let large_answers = match whose {
            Whose::User(_) => USER_LARGE_ANSWERS_BYTES,
            Whose::Address(_) => ADDRESS_LARGE_ANSWERS_BYTES,
        };
        let under_way = UnderWay {
            whose,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            large_answers: Arc::new(Semaphore::new(large_answers)),
        };
        Some(known.under_way.entry(whose).or_insert(Arc::new(under_way)).clone())
    }

    /// One more request of so many bytes.
    pub(crate) fn enter(&self, of: Option<&Arc<UnderWay>>, bytes: usize) -> Result<Option<Share>, Failure> {
        let Some(of) = of else { return Ok(None) };
        let share = Share { of: of.clone(), bytes };
        let requests_before = of.requests.fetch_add(1, Ordering::Relaxed);
        let bytes_before = of.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (requests_max, bytes_max) = match of.whose {
            Whose::User(_) => (USER_PENDING_REQUESTS_MAX, USER_PENDING_BYTES_MAX),
            Whose::Address(_) => (ADDRESS_PENDING_REQUESTS_MAX, ADDRESS_PENDING_BYTES_MAX),
        };
        // One request that is larger than that by itself is no reason to refuse it.
        if requests_before < requests_max && (bytes_before == 0 || bytes_before + bytes <= bytes_max) {
            return Ok(Some(share));
        }
        let (who, refused) = match of.whose {
            Whose::User(_) => ("this user has", &self.refused[0]),
            Whose::Address(_) => ("clients at this address who name no user have", &self.refused[1]),
        };
        refused.add(1);
        Err(Failure::rejected(
            Code::ResourceExhausted,
            format!(
                "{who} {requests_before} requests with {bytes_before} bytes under way at this node, over all connections: send fewer at a \
                 time"
            ),
        ))
    }

    /// How many requests found no room: of users, and of addresses.
    pub(crate) fn refused(&self) -> [u64; 2] {
        self.refused.each_ref().map(Counter::get)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.requests.fetch_sub(1, Ordering::Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_half_of_the_node() {
        let shares = Shares::default();
        let enter = |who, bytes| shares.enter(shares.of(Asker::from(Principal(who))).as_ref(), bytes);
        let half = enter(1, USER_PENDING_BYTES_MAX / 2).unwrap();
        let more = enter(1, USER_PENDING_BYTES_MAX / 2).unwrap();
        let refused = enter(1, 1).unwrap_err();
        assert_eq!((refused.code, shares.refused()), (Code::ResourceExhausted, [1, 0]));
        assert!(refused.message.starts_with("this user has 2 requests with"), "{}", refused.message);
        // Others, and one that is large by itself.
        let _large = enter(2, 2 * USER_PENDING_BYTES_MAX).unwrap();
        assert!(
            shares.enter(shares.of(Asker::from(Principal::NODE)).as_ref(), usize::MAX).unwrap().is_none()
        );
        drop(half);
        drop(enter(1, 1).unwrap());
        let many: Vec<_> = (1..USER_PENDING_REQUESTS_MAX).map(|_| enter(1, 0).unwrap()).collect();
        assert!(enter(1, 0).is_err());
        drop((many, more));
        assert!(enter(1, USER_PENDING_BYTES_MAX).is_ok(), "nothing is left of those that were refused");
    }

    #[test]
    fn nobody_in_particular_has_three_quarters_for_each_address() {
        let shares = Shares::default();
        let at = |address: &str| Asker { who: Principal::NOBODY, from: Some(address.parse().unwrap()) };
        let enter = |address, bytes| shares.enter(shares.of(at(address)).as_ref(), bytes);
        let _all = (enter("10.0.0.1", 1).unwrap(), enter("10.0.0.1", ADDRESS_PENDING_BYTES_MAX - 1).unwrap());
        let refused = enter("10.0.0.1", 1).unwrap_err();
        assert_eq!((refused.code, shares.refused()), (Code::ResourceExhausted, [0, 1]));
        assert!(refused.message.starts_with("clients at this address who name no user have 2 requests"));
        assert!(enter("10.0.0.2", 1).is_ok());
        // A network that one host may have as a whole is one.
        let _all =
            (enter("2001:db8::1", 1).unwrap(), enter("2001:db8::2", ADDRESS_PENDING_BYTES_MAX - 1).unwrap());
        assert!(enter("2001:db8::3", 1).is_err());
        // Whoever names a user there has that user's.
        let ada = Asker { who: Principal(1), ..at("10.0.0.1") };
        assert!(shares.enter(shares.of(ada).as_ref(), 1).is_ok());
    }

    #[test]
    fn nothing_is_kept_for_long_of_those_who_have_nothing_under_way() {
        let shares = Shares::default();
        let of = |number| shares.of(Asker::from(Principal(number)));
        let kept = shares.enter(of(1).as_ref(), 1).unwrap();
        (2..10_000).for_each(|number| drop(of(number)));
        assert!(shares.lock().under_way.len() <= SWEEP_AFTER + 1);
        assert!(shares.lock().under_way.contains_key(&Whose::User(Principal(1))));
        drop(kept);
    }
}
