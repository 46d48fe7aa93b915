//! A request on its way through a node.

use ringfort_types::{Code, Failure, Request, Stamp, Token};

/// A request that has been admitted and must be answered exactly once.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) token: Token,
    pub(crate) stamp: Option<Stamp>,
    /// How many replicas a write is to be on; 0 for a majority.
    pub(crate) copies: u32,
    pub(crate) request: Request,
    /// When its client gives up, on the monotonic clock.
    pub(crate) deadline_us: u64,
    /// Not to be passed on before this; the last try failed.
    pub(crate) retry_at_us: u64,
}

/// Who waits for a write that has been proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    pub(crate) deadline_us: u64,
    pub(crate) weight: usize,
    /// As in [`Asked::copies`].
    pub(crate) copies: u32,
}

impl Waiter {
    /// In the place of one that has been answered already.
    pub(crate) const NOBODY: Waiter =
        Waiter { token: Token::NOBODY, deadline_us: u64::MAX, weight: 0, copies: 0 };
}

impl Asked {
    pub(crate) fn waiter(&self) -> Waiter {
        let Asked { token, deadline_us, copies, .. } = *self;
        Waiter { token, deadline_us, weight: self.request.weight(), copies }
    }
}

/// What a client is told when nobody could take its request in time. Nothing has happened.
pub(crate) fn no_leader(shard: &str, reachable: usize, replicas: usize) -> Failure {
    let message = if reachable * 2 > replicas {
        format!(
            "{shard} has no leader yet ({reachable} of its {replicas} replicas can be reached): try again"
        )
    } else {
        format!(
            "no quorum: {reachable} of {shard}'s {replicas} replicas can be reached, {} are needed: start the missing \
             nodes",
            replicas / 2 + 1
        )
    };
    Failure::rejected(Code::Unavailable, message)
}
