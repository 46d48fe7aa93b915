//! Where a request goes: to a replica here, to another node, or into the queue of a shard without a leader.
//!
//! A shard whose replica here is not open yet is as good as one without a replica here: others are asked, those first
//! that are known to have theirs open. What names this node is refused until then.

use ringfort_types::limits::{HEARTBEAT_MS, SHARD_PENDING_REQUESTS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Call, Code, Consistency, Copies, DiskState, Failure, Forward, NodeId, Outcome, PeerMessage,
    Replica as Place, Reply, Request, ShardId, Term, Token,
};

use crate::admission;
use crate::node::Node;
use crate::pending::{Pending, after_attempts, not_taken};
use crate::replica::Replica;
use crate::turn::APPLYING_BYTES_MAX;
use crate::{Answered, Incoming};

/// Shortest time between two tries to pass a request on.
const RETRY_MS: u64 = 25;
/// How much earlier than its client's time is over a write that was passed on is told how many copies it has.
const COUNT_COPIES_US: u64 = 150_000;

impl Node {
    pub(crate) fn handle_requests(&mut self, incoming: Vec<Incoming>) {
        for Incoming { token, call } in incoming {
            self.take_in(token, call);
        }
    }

    pub(crate) fn handle_forward(&mut self, from: NodeId, forward: Forward) {
        self.take_in(Token { origin: from, id: forward.id }, forward.call);
    }

    pub(crate) fn take_in(&mut self, token: Token, call: Call) {
        // How the cluster is it tells to the end.
        let may_refuse = token.origin == self.id && !call.request.is_about_cluster();
        let refused = self.refusal_by_stop().filter(|_| may_refuse);
        if let Err(failure) = refused.map_or_else(|| self.admit(&token, &call), Err) {
            self.out.reply.push(Answered { token, reply: Reply::Failed(failure), leader: None });
            return;
        }
        self.pending += 1;
        self.pending_bytes += call.weight();
        let deadline_us = self.now.monotonic_us + u64::from(call.timeout_ms) * 1_000;
        self.route(Pending { token, call, deadline_us, retry_at_us: 0, in_doubt: false });
    }

    fn admit(&self, token: &Token, call: &Call) -> Result<(), Failure> {
        let Some(layout) = &self.layout else {
            call.validate()?;
            return Err(admission::not_born(&self.birth.missing()));
        };
        if token.origin == self.id || !planted::is(Bug::ForwardsNotJudged) {
            admission::is_allowed(call, layout)?;
        }
        call.validate()?;
        admission::fits(call, layout)?;
        admission::has_room(call, self.pending, self.pending_bytes)
    }

    fn shard_of(&self, request: &Request) -> Option<ShardId> {
        match request {
            Request::Scan(scan) => Some(scan.shard),
            Request::Digest { shard }
            | Request::DigestAt { shard, .. }
            | Request::OpenSession { shard }
            | Request::Transfer { shard, .. } => Some(*shard),
            Request::ClusterState | Request::Users => None,
            Request::ChangeLayout(_) => Some(ShardId::META),
            _ => Some(self.layout.as_ref()?.shard_of_slot(request.slot()?)),
        }
    }

    /// Puts a pending request where it can be done.
    pub(crate) fn route(&mut self, asked: Pending) {
        let Some(shard) = self.shard_of(&asked.call.request) else {
            let reply = match (&asked.call.request, &self.layout) {
                (Request::Users, Some(layout)) => Reply::Users(layout.users.shown_to(asked.call.who)),
                _ => Reply::Cluster(Box::new(self.cluster_state())),
            };
            return self.answer(asked, reply);
        };
        if shard.0 as usize >= self.slots.len() {
            let failure = Failure::rejected(
                Code::FailedPrecondition,
                format!("there is no shard {shard}: this cluster has shards 1 to {}", self.slots.len() - 1),
            );
            return self.fail(asked, failure);
        }
        match &asked.call.request {
            Request::DigestAt { node, index, .. } => {
                let (node, index) = (*node, *index);
                if node == self.id
                    && let Some(failure) = self.damage_of(shard)
                {
                    self.fail(asked, failure);
                } else if node == self.id && self.is_opening(shard) {
                    // Nobody else can answer. Whoever asks decides whether to wait.
                    let failure = self.still_opening(shard, "");
                    self.fail(asked, failure);
                } else if node == self.id && self.is_new(shard) {
                    let message = format!(
                        "the replica of shard {shard} on {} is being made anew from the others: try again in a moment",
                        self.called(self.id)
                    );
                    self.fail(asked, Failure::rejected(Code::Unavailable, message));
                } else if node == self.id {
                    self.digest_here(shard, index, asked);
                } else {
                    self.pass_on(shard, node, asked);
                }
            }
            Request::Scan(scan) if scan.at.is_some() => {
                let at = scan.at.expect("just looked at");
                self.scan_at(shard, at, asked);
            }
            Request::Get { consistency: Consistency::Stale, .. }
            | Request::GetMany { consistency: Consistency::Stale, .. } => {
                let applied =
                    self.slots[shard.0 as usize].replica.as_ref().map(crate::replica::Replica::applied);
                self.read_here(shard, applied.unwrap_or_default(), asked);
            }
            Request::Transfer { to, .. } => {
                let to = *to;
                self.route_transfer(shard, to, asked);
            }
            request if request.is_write() => self.route_write(shard, asked),
            _ => self.route_read(shard, asked),
        }
    }

    /// A digest that this node's replica is asked for. An index that it has not reached may be one that there is not, which the
    /// leader knows.
    fn digest_here(&mut self, shard: ShardId, index: ringfort_types::Index, asked: Pending) {
        let replica = self.slots[shard.0 as usize].replica.as_ref();
        if replica.is_some_and(|replica| replica.applied() < index) {
            self.route_read(shard, asked);
        } else {
            self.read_here(shard, index, asked);
        }
    }

    /// A page at an index that a list says it was at. One that this replica has not reached may be one that there is not, which
    /// the leader knows.
    fn scan_at(&mut self, shard: ShardId, at: ringfort_types::Index, asked: Pending) {
        let ahead = self.slots[shard.0 as usize].replica.as_ref().filter(|replica| at > replica.group.last());
        match ahead {
            Some(replica) if replica.leads() => {
                let last = replica.group.last();
                let why = format!(
                    "shard {shard} can't be read at index {at}: its log ends at {last}; begin the list anew, without indexes"
                );
                self.fail(asked, Failure::rejected(Code::FailedPrecondition, why));
            }
            Some(_) if !self.is_forwarded(&asked) => self.pass_to_leader(shard, asked),
            _ => self.read_here(shard, at, asked),
        }
    }

    /// A read at an index that is known: any replica will do, but not this node if it has none.
    fn read_here(&mut self, shard: ShardId, at: ringfort_types::Index, asked: Pending) {
        let (keeps_up, is_stuck) = (self.keeps_up(shard), self.is_table_stuck(shard));
        let replica = self.slots[shard.0 as usize].replica.as_mut();
        if let Some(replica) = replica.filter(|_| keeps_up) {
            if is_stuck && !asked.is_of_one_replica() && at > replica.applied() {
                return self.pass_to_leader(shard, asked);
            }
            replica.reads.add_at(at, asked);
            let mut ready = Vec::new();
            replica.release_reads(&mut ready);
            return self.emit_reads(ready);
        }
        if self.is_forwarded(&asked) && !self.is_opening(shard) {
            let failure = Failure::rejected(
                Code::FailedPrecondition,
                format!("{} has no replica of shard {shard}", self.called(self.id)),
            );
            return self.fail(asked, failure);
        }
        let layout = self.layout.as_ref().expect("shards exist after birth");
        let places = &layout.shard(shard).expect("a known shard").replicas;
        let is_up = |node: &NodeId| self.peers.is_up(*node);
        let leader = self.leader_of(shard).filter(is_up);
        let mut nodes = places.iter().map(|place| place.node).filter(is_up);
        let open = nodes.clone().find(|node| self.peers.has_open(*node, shard));
        let up = nodes.next();
        match leader.or(open).or(up) {
            Some(node) => self.pass_on(shard, node, asked),
            None => self.wait(shard, asked, RETRY_MS),
        }
    }

    fn route_write(&mut self, shard: ShardId, asked: Pending) {
        let refusal = self.refusal_by_disk();
        match self.slots[shard.0 as usize].replica.as_mut() {
            Some(replica) if replica.leads() => {
                if !replica.takes_writes() {
                    return self.wait(shard, asked, RETRY_MS);
                }
                if let Some(refusal) = refusal {
                    return self.fail(asked, refusal);
                }
                if replica.pending_writes() >= SHARD_PENDING_REQUESTS_MAX {
                    let failure = Failure::rejected(
                        Code::ResourceExhausted,
                        format!(
                            "shard {shard} has {SHARD_PENDING_REQUESTS_MAX} writes waiting: send fewer at a time"
                        ),
                    );
                    return self.fail(asked, failure);
                }
                if replica.applying_bytes() > APPLYING_BYTES_MAX || self.commit.is_full() {
                    // What is committed already has to be in the table first, and what is proposed on the disk.
                    return self.wait(shard, asked, RETRY_MS);
                }
                replica.add_write(asked);
                self.mark(shard);
            }
            _ => self.pass_to_leader(shard, asked),
        }
    }

    /// A read that has to see what is committed now. The leader asks a majority whether it leads, unless a lease says
    /// so; another replica asks the leader for an index; a node without one passes the read on.
    fn route_read(&mut self, shard: ShardId, asked: Pending) {
        let now_us = self.now.monotonic_us;
        let is_leased = matches!(
            asked.call.request,
            Request::Get { consistency: Consistency::Lease, .. }
                | Request::GetMany { consistency: Consistency::Lease, .. }
        );
        let knows_leader = self.leader_of(shard).is_some_and(|leader| self.peers.is_up(leader));
        let keeps_up = self.keeps_up(shard);
        match self.slots[shard.0 as usize].replica.as_mut() {
            Some(replica) if replica.leads() => {
                if is_leased && let Some(index) = replica.leased_index(now_us) {
                    return self.read_here(shard, index, asked);
                }
                replica.reads.add(asked);
                self.reads_fresh = true;
                self.mark(shard);
            }
            Some(replica) if knows_leader && !is_leased && asked.retry_at_us <= now_us && keeps_up => {
                replica.reads.add(asked);
                self.reads_fresh = true;
            }
            _ => self.pass_to_leader(shard, asked),
        }
    }

    pub(crate) fn pass_to_leader(&mut self, shard: ShardId, asked: Pending) {
        match self.leader_of(shard) {
            Some(leader)
                if self.may_pass_on(&asked, leader) && asked.retry_at_us <= self.now.monotonic_us =>
            {
                self.pass_on(shard, leader, asked);
            }
            _ => self.wait(shard, asked, RETRY_MS),
        }
    }

    fn pass_on(&mut self, shard: ShardId, node: NodeId, asked: Pending) {
        if !self.peers.is_up(node) || !self.may_pass_on(&asked, node) {
            return self.wait(shard, asked, RETRY_MS);
        }
        let mut left_us = asked.deadline_us.saturating_sub(self.now.monotonic_us);
        let waits_there =
            asked.call.durability.copies != Copies::Majority || asked.call.request.is_transfer();
        if waits_there {
            // Who leads then says how many copies there are, or whether another leads, and has to do so before it is too late here.
            left_us -= (left_us / 3).min(COUNT_COPIES_US);
        }
        let timeout_ms = (left_us / 1_000).max(1) as u32;
        let call = asked.call.clone().within(timeout_ms);
        // A digest is asked of a node by name.
        let by_name = asked.is_of_one_replica();
        let led = (!by_name && self.leader_of(shard) == Some(node)).then_some(shard);
        let id = self.forwards.add(node, led, asked);
        self.send(node, PeerMessage::Forward(Forward { id, call }));
    }

    /// Keeps a request until somebody leads its shard. What another node passed on goes back to it instead,
    /// unless this node leads and is only not ready yet: no request goes round in circles (PITFALLS 19).
    pub(crate) fn wait(&mut self, shard: ShardId, mut asked: Pending, retry_ms: u64) {
        if self.is_lost(shard)
            && let Some(failure) = self.damage_of(shard)
        {
            return self.fail(asked, failure);
        }
        let forwarded = self.is_forwarded(&asked);
        let slot = &mut self.slots[shard.0 as usize];
        if forwarded && !slot.replica.as_ref().is_some_and(crate::replica::Replica::leads) {
            let message = format!("{} does not lead shard {shard}", self.birth.called(self.id));
            // That a transfer may have been begun here, whoever has passed it on takes for granted.
            asked.in_doubt &= !asked.call.request.is_transfer();
            return self.fail(asked, Failure::rejected(Code::NotLeader, message));
        }
        asked.retry_at_us = self.now.monotonic_us + retry_ms * 1_000;
        slot.waiting.push(asked);
    }

    /// Tries again what waits for a leader.
    pub(crate) fn retry_waiting(&mut self) {
        for number in 0..self.slots.len() {
            if !self.slots[number].waiting.is_empty() {
                self.retry_waiting_of(ShardId(number as u32), false);
            }
        }
    }

    /// Tries again what waits for this shard's leader; `at_once` if the leader has just changed.
    pub(crate) fn retry_waiting_of(&mut self, shard: ShardId, at_once: bool) {
        let waiting = std::mem::take(&mut self.slots[shard.0 as usize].waiting);
        for mut asked in waiting {
            if at_once {
                asked.retry_at_us = 0;
            }
            if asked.retry_at_us > self.now.monotonic_us {
                self.slots[shard.0 as usize].waiting.push(asked);
            } else if let Err(refusal) = self.is_allowed(&asked) {
                // The layout may be a later one by now.
                self.fail(asked, refusal);
            } else {
                self.route(asked);
            }
        }
    }

    fn is_allowed(&self, asked: &Pending) -> Result<(), Failure> {
        self.layout.as_ref().map_or(Ok(()), |layout| admission::is_allowed(&asked.call, layout))
    }

    /// Another node has answered what was passed on to it.
    pub(crate) fn handle_answer(&mut self, from: NodeId, id: u64, reply: Reply) {
        let Some(mut asked) = self.forwards.answered(from, id) else { return };
        if let Reply::Failed(failure) = &reply
            && failure.outcome == Outcome::Rejected
            && failure.code == Code::NotLeader
            && let Some(shard) = self.shard_of(&asked.call.request)
        {
            // It has surely not happened. The other node may learn of its leadership, or this one of another. (Only a transfer may
            // have been begun there.)
            asked.in_doubt |= asked.call.request.is_transfer();
            return self.wait(shard, asked, HEARTBEAT_MS / 2);
        }
        self.pending -= 1;
        self.pending_bytes -= asked.call.weight();
        let routed = asked.call.request.slot().is_some();
        let reply = after_attempts(reply, asked.in_doubt);
        self.out.reply.push(Answered { token: asked.token, reply, leader: routed.then_some(from) });
    }

    /// What was passed on to a node that is gone is asked elsewhere, unless it is a write without a place in a session:
    /// that one may have happened, and would happen again.
    pub(crate) fn handle_lost_forwards(&mut self, node: NodeId) {
        for mut asked in self.forwards.take_lost(node) {
            if !asked.may_be_repeated() {
                let failure = Failure::unknown(
                    Code::Unavailable,
                    "the connection to the shard's leader broke; the write may still take effect",
                );
                self.fail(asked, failure);
            } else if let Some(shard) = self.shard_of(&asked.call.request) {
                asked.in_doubt |= asked.call.request.is_write();
                self.wait(shard, asked, RETRY_MS);
            }
        }
    }

    /// This shard's leader has changed: what the one before it has not answered is asked again, for it may hang, and a
    /// connection that brings nothing counts as lost only after seconds.
    pub(crate) fn take_back_forwards(&mut self, shard: ShardId) {
        let Some(leader) = self.leader_of(shard) else { return };
        for mut asked in self.forwards.take_outdated(shard, leader) {
            asked.in_doubt |= asked.call.request.is_write();
            self.route(asked);
        }
    }

    /// The node that leads this shard, as far as is known here.
    pub(crate) fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.slots.get(shard.0 as usize)?;
        self.lead_of(shard).1
    }

    /// A term of this shard, and who leads in it, as far as is known here.
    fn lead_of(&self, shard: ShardId) -> (Term, Option<NodeId>) {
        let slot = &self.slots[shard.0 as usize];
        let reported = slot.reported.map(|(term, node)| (term, Some(node)));
        let Some(replica) = &slot.replica else { return reported.unwrap_or_default() };
        let known = (replica.group.term(), replica.leader_node());
        match (known, reported) {
            // One whose place is elsewhere now may never hear again who leads.
            ((_, None), Some(reported)) if !self.has_its_place(shard, replica) => reported,
            // One whose disk takes nothing can't take part in an election, and may not hear of its end either.
            ((term, None), Some(reported)) if self.disk != DiskState::Working && reported.0 >= term => {
                reported
            }
            _ => known,
        }
    }

    /// Whether the layout wants this replica where it is.
    fn has_its_place(&self, shard: ShardId, replica: &Replica) -> bool {
        let place = Place { node: self.id, peer: replica.group.me() };
        let layout = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        layout.is_some_and(|shard| shard.replicas.contains(&place))
    }

    /// Whether this node's replica of a shard hears what is written: reads that wait for that can be left to it. One that is new does not
    /// yet, and one whose place is elsewhere now may not any more.
    fn keeps_up(&self, shard: ShardId) -> bool {
        let replica = self.slots[shard.0 as usize].replica.as_ref();
        replica.is_some_and(|replica| {
            replica.leads() || (replica.is_member() && self.has_its_place(shard, replica))
        })
    }

    /// Whether this shard has a replica on this node that is not open yet.
    pub(crate) fn is_opening(&self, shard: ShardId) -> bool {
        let slot = &self.slots[shard.0 as usize];
        let has_place = || {
            let layout = self.layout.as_ref().and_then(|layout| layout.shard(shard));
            layout.is_some_and(|shard| shard.replicas.iter().any(|place| place.node == self.id))
        };
        slot.replica.is_none() && slot.damage.is_none() && slot.own.map_or_else(has_place, |own| !own.is_gone)
    }

    /// What is told of a shard whose replica here is not open yet, and what else there is to say.
    pub(crate) fn still_opening(&self, shard: ShardId, more: &str) -> Failure {
        let me = self.called(self.id);
        let message = format!(
            "{me} is still reading its replica of shard {shard} from its disk{more}: try again in a moment"
        );
        Failure::rejected(Code::Unavailable, message)
    }

    /// The term that this leader has, or at which none is known here.
    pub(crate) fn term_of(&self, shard: ShardId) -> Term {
        self.lead_of(shard).0
    }

    /// What is told of a request that nobody has taken in time.
    pub(crate) fn not_taken(&self, shard: ShardId) -> Failure {
        let layout = self.layout.as_ref().expect("shards exist after birth");
        // Who decides is known to a replica that does so itself; of others, where they are to be.
        let own = self.configuration(shard).filter(|_| !self.is_new(shard));
        let group = own.cloned().unwrap_or_else(|| layout.shard(shard).expect("a known shard").born());
        let name =
            if shard == ShardId::META { "the meta group".to_owned() } else { format!("shard {shard}") };
        let is_reachable = |node| node == self.id || self.peers.is_up(node);
        let leader = self.leader_of(shard).filter(|leader| is_reachable(*leader));
        not_taken(&name, &group, leader, is_reachable, |node| self.called(node))
    }

    /// No request goes round in circles: what another node has passed on stays here. (A transfer ends with the node that is wanted,
    /// and goes there from whoever has transferred to it.)
    fn may_pass_on(&self, asked: &Pending, node: NodeId) -> bool {
        let ends_there = matches!(asked.call.request, Request::Transfer { to, .. } if to == node);
        !self.is_forwarded(asked) || (ends_there && node != self.id)
    }

    fn is_forwarded(&self, asked: &Pending) -> bool {
        asked.token.origin != self.id
    }
}
