//! Leaderships that an operator moves ([`Request::Transfer`](ringfort_types::Request::Transfer)).
//!
//! The request goes to the shard's leader, which begins Raft's transfer (thesis, 3.10) and keeps the request. Once the wanted node
//! leads, it goes on to that one at once, which says so; if another one leads, whoever has asked begins again there.
//!
//! Balancing (`state`) would move the leadership back within a second. So the wanted node holds it for [`TRANSFER_HOLD_MS`]: not
//! beyond its leadership, nor its process, nor the leader preference that was in force; and it does not keep a node from handing
//! over because it stops or can't write.
//!
//! Invariant: what is kept here waits for a transfer that this replica has begun, for the end of another one, or for the first report
//! of a node that has just started. It is looked at in
//! every tick, so whatever becomes of the replica, nothing stays here.

use std::collections::BTreeMap;

use ringfort_types::limits::{TICK_MS, TRANSFER_HOLD_MS};
use ringfort_types::{Code, Failure, LeaderPreference, NodeId, Outcome, PeerId, Reply, ShardId, count};

use crate::leave::Phase;
use crate::node::Node;
use crate::pending::Pending;
use crate::replica::Replica;
use crate::state::HANDOVER_LAG_MAX;

/// Ticks from one attempt to the next. The leader takes no writes during one, which is an election timeout at most.
const ATTEMPT_TICKS: u64 = 2_000 / TICK_MS;
const HOLD_TICKS: u64 = TRANSFER_HOLD_MS / TICK_MS;

/// What operators have asked for.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    /// Requests with the leader that is to give its leadership away.
    waiting: BTreeMap<ShardId, Vec<Waiting>>,
    /// Leaderships that this node has been given.
    held: BTreeMap<ShardId, Hold>,
}

#[derive(Debug)]
struct Waiting {
    to: NodeId,
    /// No attempt before this tick.
    next_tick: u64,
    /// Why there was none yet.
    why_not: Option<String>,
    asked: Pending,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    until_tick: u64,
    preference: LeaderPreference,
}

impl Transfers {
    /// Whether balancing leaves this leadership where it is.
    pub(crate) fn holds(&mut self, shard: ShardId, tick: u64, preference: LeaderPreference) -> bool {
        let Some(hold) = self.held.get(&shard) else { return false };
        let holds = tick < hold.until_tick && hold.preference == preference;
        if !holds {
            self.held.remove(&shard);
        }
        holds
    }
}

impl Node {
    pub(crate) fn route_transfer(&mut self, shard: ShardId, to: NodeId, mut asked: Pending) {
        let replica = self.slots[shard.0 as usize].replica.as_ref().filter(|replica| replica.leads());
        let Some(replica) = replica else { return self.pass_to_leader(shard, asked) };
        let (is_free, term) = (replica.group.can_propose(), replica.group.term());
        if to == self.id && is_free && self.phase == Phase::Running {
            self.hold(shard);
            return self.answer(asked, Reply::Leads { term });
        }
        let transferee = match self.transferee(shard, to) {
            Ok(transferee) => transferee,
            Err(why) => {
                // An earlier attempt may yet have come to something.
                let outcome = if asked.in_doubt { Outcome::Unknown } else { Outcome::Rejected };
                let failure = Failure { outcome, code: Code::FailedPrecondition, message: why };
                return self.fail(asked, failure);
            }
        };
        let mut next_tick = self.ticks;
        let mut why_not = None;
        if to != self.id && !self.peers.is_heard(to) {
            why_not = Some(format!("{} has just started and has not reported yet", self.called(to)));
        } else if !is_free {
            why_not = Some(format!("the leader of {} is just changing", called(shard)));
        } else if let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() {
            replica.hand_over_to(transferee);
            asked.in_doubt = true;
            next_tick += ATTEMPT_TICKS;
            self.mark(shard);
        }
        self.transfers.waiting.entry(shard).or_default().push(Waiting { to, next_tick, why_not, asked });
    }

    /// The replica on this node, which could lead the shard now, as far as the node has reported; or why it can't.
    fn transferee(&self, shard: ShardId, to: NodeId) -> Result<PeerId, String> {
        let replica = self.slots[shard.0 as usize].replica.as_ref().expect("it leads");
        let (called, of) = (self.called(to), called(shard));
        let voters = &replica.group.configuration().voters;
        let Some(voter) = voters.iter().find(|voter| voter.node == to) else {
            let able: Vec<String> = voters.iter().map(|voter| self.called(voter.node)).collect();
            return Err(format!(
                "{called} has no replica that could lead {of}: choose one of {}",
                able.join(", ")
            ));
        };
        if to == self.id {
            return match self.phase {
                Phase::Running => Ok(voter.peer),
                _ => Err(format!("{called} is stopping, and gives {of} away")),
            };
        }
        let why = if !self.peers.is_up(to) {
            format!("{called} is down, as {} sees it: start it first", self.called(self.id))
        } else if !self.peers.is_heard(to) {
            return Ok(voter.peer);
        } else if self.peers.is_damaged(to, shard) {
            format!(
                "the replica of {of} on {called} is damaged and takes no part: the log of {called} names the file"
            )
        } else if !self.peers.is_lively(to, self.now.monotonic_us) {
            format!("{called} has said nothing for seconds: it hangs, or is cut off; see to it first")
        } else if !self.peers.has_open(to, shard) {
            format!("{called} is still reading its replica of {of} from its disk: try again in a moment")
        } else if !self.peers.can_write(to) {
            format!("the disk of {called} is full or hangs, so it can't lead {of}: see to that disk first")
        } else {
            return caught_up(replica, voter.peer).map_err(|lag| {
                format!("{called} has not caught up with {of} ({lag}): try again once it has")
            });
        };
        Err(why)
    }

    fn hold(&mut self, shard: ShardId) {
        let Some(preference) = self.layout.as_ref().map(|layout| layout.leader_preference) else { return };
        self.transfers.held.insert(shard, Hold { until_tick: self.ticks + HOLD_TICKS, preference });
    }

    /// The leader of this shard has changed.
    pub(crate) fn go_on_with_transfers(&mut self, shard: ShardId) {
        if !self.leads(shard) {
            self.transfers.held.remove(&shard);
        }
        for Waiting { asked, .. } in self.transfers.waiting.remove(&shard).unwrap_or_default() {
            self.route(asked);
        }
    }

    pub(crate) fn look_after_transfers(&mut self) {
        for shard in self.transfers.waiting.keys().copied().collect::<Vec<_>>() {
            if !self.leads(shard) {
                self.go_on_with_transfers(shard);
                continue;
            }
            for Waiting { to, next_tick, why_not, asked } in
                self.transfers.waiting.remove(&shard).unwrap_or_default()
            {
                if asked.deadline_us <= self.now.monotonic_us {
                    let why = format!("{} has not taken over {} yet", self.called(to), called(shard));
                    let not_begun =
                        |why| Failure::rejected(Code::Unavailable, format!("{why}: try again in a moment"));
                    self.fail(asked, why_not.map_or_else(|| late(&why), not_begun));
                } else if self.ticks >= next_tick {
                    // The last attempt came to nothing, or another one was under way.
                    self.route_transfer(shard, to, asked);
                } else {
                    let waiting = Waiting { to, next_tick, why_not, asked };
                    self.transfers.waiting.entry(shard).or_default().push(waiting);
                }
            }
        }
    }

    fn leads(&self, shard: ShardId) -> bool {
        self.slots[shard.0 as usize].replica.as_ref().is_some_and(Replica::leads)
    }
}

/// The failure of a transfer that may yet succeed.
pub(crate) fn late(why: &str) -> Failure {
    let message = format!("{why}, and may still do so: `ringfort cluster shards` shows who leads");
    Failure::unknown(Code::DeadlineExceeded, message)
}

fn called(shard: ShardId) -> String {
    if shard == ShardId::META { "the meta group".to_owned() } else { format!("shard {shard}") }
}

/// This peer, if it has what it needs to lead; or what it lacks.
fn caught_up(replica: &Replica, peer: PeerId) -> Result<PeerId, String> {
    if replica.group.awaits_snapshot(peer).is_some() {
        return Err("it waits for a whole table".to_owned());
    }
    let lag = replica.lag(peer).unwrap_or(replica.group.last().0);
    if lag > HANDOVER_LAG_MAX {
        return Err(format!("it is {} behind", count(lag, "entry", "entries")));
    }
    Ok(peer)
}
