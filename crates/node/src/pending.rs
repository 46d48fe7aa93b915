//! A call on its way through a node.

use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Call, Code, Configuration, Copies, Door, Durability, Failure, NodeId, Outcome, Principal, Reply, Request,
    Token,
};

/// A call that has been admitted and must be answered exactly once.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) token: Token,
    pub(crate) call: Call,
    /// When its client gives up, on the monotonic clock.
    pub(crate) deadline_us: u64,
    /// Not to be passed on before this; the last try failed.
    pub(crate) retry_at_us: u64,
    /// A node that it was passed on to is gone, and may have done it: no later failure means that nothing happened.
    pub(crate) in_doubt: bool,
}

impl Pending {
    /// Whether it is about one replica, by its name: then no other one can answer it.
    pub(crate) fn is_of_one_replica(&self) -> bool {
        matches!(self.call.request, Request::DigestAt { .. })
    }
}

/// Who waits for a write that has been proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) token: Token,
    pub(crate) deadline_us: u64,
    pub(crate) weight: usize,
    pub(crate) durability: Durability,
    pub(crate) who: Principal,
    pub(crate) door: Door,
    pub(crate) in_doubt: bool,
}

impl Waiter {
    /// In the place of one that has been answered already.
    pub(crate) const NOBODY: Waiter = Waiter {
        token: Token::NOBODY,
        deadline_us: u64::MAX,
        weight: 0,
        durability: Durability { copies: Copies::Majority, patience_ms: 0 },
        who: Principal::NOBODY,
        door: Door::V1,
        in_doubt: false,
    };
}

impl Pending {
    /// Whether it may be asked again although an earlier try may have been carried out.
    pub(crate) fn may_be_repeated(&self) -> bool {
        let request = &self.call.request;
        self.call.stamp.is_some() || !request.is_write() || request.is_transfer()
    }

    pub(crate) fn waiter(&self) -> Waiter {
        let Pending { token, deadline_us, in_doubt, .. } = *self;
        let Call { durability, who, door, .. } = self.call;
        Waiter { token, deadline_us, weight: self.call.weight(), durability, who, door, in_doubt }
    }
}

/// A failure as it is after an earlier try whose fate is not known. What the shard itself has said of the write stands: it
/// knows the stamp, and so what became of the earlier try. Of a write that it has not seen yet it says that there is a gap
/// before it, or that the session is unknown; the earlier try may still come.
fn after_unknown_attempt(failure: Failure) -> Failure {
    let is_told_by_the_shard = matches!(failure.code, Code::FailedPrecondition | Code::OutOfRange);
    if is_told_by_the_shard || planted::is(Bug::DoubtForgotten) {
        return failure;
    }
    Failure { outcome: Outcome::Unknown, ..failure }
}

/// The response to a request of which an earlier attempt may have been carried out before this reply came.
pub(crate) fn after_attempts(reply: Reply, in_doubt: bool) -> Reply {
    match reply {
        Reply::Failed(failure) if in_doubt => Reply::Failed(after_unknown_attempt(failure)),
        reply => reply,
    }
}

/// What a client is told when nobody has taken its request in time, though this node leads the shard, if any does. Nothing has happened.
pub(crate) fn not_taken(
    shard: &str,
    group: &Configuration,
    leader: Option<NodeId>,
    is_reachable: impl Fn(NodeId) -> bool,
    called: impl Fn(NodeId) -> String,
) -> Failure {
    let deciding: Vec<NodeId> = group.deciding().map(|replica| replica.node).collect();
    let missing: Vec<NodeId> = deciding.iter().copied().filter(|node| !is_reachable(*node)).collect();
    let (replicas, reached) = (deciding.len(), deciding.len() - missing.len());
    let has_quorum = group.is_quorum(|peer| group.node_of(peer).is_some_and(&is_reachable));
    let message = match leader {
        _ if !has_quorum => {
            let missing: Vec<String> = missing.into_iter().map(called).collect();
            format!(
                "no quorum: {reached} of {shard}'s {replicas} replicas can be reached, {} are needed: start {}, or see why they \
                 can't be reached",
                group.least_quorum(),
                missing.join(", ")
            )
        }
        Some(leader) => format!(
            "{} leads {shard} and did not come to this in time: the node or its disk is held up (see `status`): try again",
            called(leader)
        ),
        None => {
            format!(
                "{shard} has no leader yet ({reached} of its {replicas} replicas are connected): try again"
            )
        }
    };
    Failure::rejected(Code::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use ringfort_types::{PeerId, Replica};

    use super::*;

    #[test]
    fn a_shard_that_is_led_is_not_said_to_have_no_leader() {
        let voters = (1..=3).map(|n| Replica { node: NodeId(n), peer: PeerId(n) }).collect();
        let group = Configuration { voters, ..Configuration::default() };
        let called = |node: NodeId| format!("n{node}");
        let told =
            |leader, up: u64| not_taken("shard 8", &group, leader, |node| node.0 <= up, called).message;
        let first = Some(NodeId(1));
        assert!(told(first, 3).starts_with("n1 leads shard 8 and did not come to this in time"));
        assert!(told(None, 3).starts_with("shard 8 has no leader yet (3 of its 3 replicas"));
        let missing = "no quorum: 1 of shard 8's 3 replicas can be reached, 2 are needed: start n2, n3, or see why they";
        assert!(told(first, 1).starts_with(missing));
    }

    #[test]
    fn what_the_shard_has_not_said_of_the_write_is_in_doubt() {
        let outcome = |code| after_unknown_attempt(Failure::rejected(code, "")).outcome;
        for code in [Code::FailedPrecondition, Code::OutOfRange] {
            assert_eq!(outcome(code), Outcome::Rejected, "{code:?}");
        }
        for code in [
            Code::InvalidArgument,
            Code::Unavailable,
            Code::NotLeader,
            Code::ResourceExhausted,
            Code::DeadlineExceeded,
            Code::Stopping,
            Code::SessionExpired,
            Code::SessionGap,
        ] {
            assert_eq!(outcome(code), Outcome::Unknown, "{code:?}");
        }
    }
}
