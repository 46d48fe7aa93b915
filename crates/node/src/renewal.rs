//! A replica that is made anew where it is, as another peer of its group.
//!
//! Its log or table is damaged, or an operator wants it: then the meta group gives its place to a fresh peer ([`LayoutChange::Renew`]).
//! From then on two things go on without knowing of each other:
//!
//! - *whoever leads the group* takes one step after the other to what the layout says ([`next_step`]): the old peer is demoted and
//!   removed, the new one added as a learner, and made a voter when it has caught up;
//! - *the node* ends its old replica, and has its log say which peer it is from then on, with nothing of the old one left: no entry, no
//!   term, no vote. Once that is durable the driver begins an empty table, and the new replica takes what the leader sends: the log, or
//!   a snapshot.
//!
//! That the peer is another one is what makes it safe. What the old replica had acknowledged or voted for, and what is forgotten now, is
//! nobody's word any more.
//!
//! Invariants:
//! - a replica begins because the layout says so, and never because somebody speaks to it; before its record is durable nothing is said
//!   in its name;
//! - an old replica, with all that it has acknowledged, stays until its group goes on without it: it has been demoted, or somebody speaks
//!   to the new one, which is added after the old one is gone;
//! - nobody reads from a new one before it belongs to its group.
//!
//! A node asks for this by itself where a replica of its own is damaged, and more than half of all replicas are whole elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_consensus::Group;
use ringfort_ring::{NextStep, Progress, next_step};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Base, Call, Code, Configuration, DiskState, Failure, Forward, HardState, Index, LayoutChange, NodeId,
    PeerId, PeerMessage, Record, Replica as Place, Reply, Request, ShardId, Token,
};

use crate::Effect;
use crate::leave::Phase;
use crate::node::Node;
use crate::replica::Replica;
use crate::state::HANDOVER_LAG_MAX;

/// Replicas that a node asks for in one look.
const ASKED_MAX: usize = 8;
/// How fast a learner has to take in what its leader had at the last look: a round shorter than an election (Raft thesis, 4.2.1).
const ROUND_US_MAX: u64 = 500_000;
/// Such rounds in a row, before it is made a voter.
const ROUNDS: u32 = 2;
/// Of a node's own requests. Nobody waits for what comes of them.
const NOBODY_WAITS: Token = Token { origin: NodeId(0), id: 1 };

/// The replica of a shard that this node has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// Who it is.
    pub(crate) peer: PeerId,
    /// The latest generation of its table that was begun.
    pub(crate) generation: u64,
    /// The one in use.
    pub(crate) in_use: u64,
}

impl Own {
    /// A number for a new table, never used before in this process; what an earlier one left was removed at the start.
    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }
}

/// A new replica whose record is on its way to the disk.
#[derive(Debug)]
struct Recorded {
    shard: ShardId,
    peer: PeerId,
    /// Its table's.
    generation: u64,
    /// The batch that holds it.
    batch: u64,
    /// The generation of the table that was in use.
    replaces: u64,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    recorded: Vec<Recorded>,
    /// Shards whose new replica is on its way: its record, or its table.
    begun: BTreeSet<ShardId>,
    /// Shards whose new replica somebody has spoken to.
    awaited: BTreeSet<ShardId>,
}

/// How a learner keeps up.
#[derive(Debug)]
pub(crate) struct Catching {
    /// The leader's last entry when the round began.
    goal: Index,
    since_us: u64,
    /// Rounds in a row that were fast enough.
    rounds: u32,
}

/// The learners of a group that this node leads.
#[derive(Debug, Default)]
pub(crate) struct Learners(BTreeMap<PeerId, Catching>);

impl Learners {
    /// Those that have caught up.
    fn look(&mut self, group: &Group, now_us: u64) -> BTreeSet<PeerId> {
        let learners: BTreeSet<PeerId> =
            group.configuration().learners.iter().map(|learner| learner.peer).collect();
        self.0.retain(|peer, _| learners.contains(peer));
        let mut caught_up = BTreeSet::new();
        for peer in learners {
            let new = Catching { goal: group.last(), since_us: now_us, rounds: 0 };
            let known = self.0.entry(peer).or_insert(new);
            let is_fast = now_us.saturating_sub(known.since_us) <= ROUND_US_MAX;
            if group.matched(peer).is_some_and(|matched| matched >= known.goal) {
                let rounds = if is_fast { known.rounds + 1 } else { 0 };
                *known = Catching { goal: group.last(), since_us: now_us, rounds };
            } else if !is_fast {
                known.rounds = 0;
            }
            if known.rounds >= ROUNDS {
                caught_up.insert(peer);
            }
        }
        caught_up
    }
}

/// Whether a group is what it should be, in whatever order.
fn is_reached(configuration: &Configuration, target: &[Place]) -> bool {
    let Configuration { voters, learners, .. } = configuration;
    let is_voter = |place: &Place| voters.contains(place);
    !configuration.is_joint()
        && learners.is_empty()
        && voters.len() == target.len()
        && target.iter().all(is_voter)
}

/// As a node with replicas of its own.
impl Node {
    /// Who belongs to a shard's group, as far as this node's replica knows.
    pub fn configuration(&self, shard: ShardId) -> Option<&Configuration> {
        let replica = self.slots.get(shard.0 as usize)?.replica.as_ref()?;
        Some(replica.group.configuration())
    }

    pub(crate) fn handle_replicas(&mut self, replicas: BTreeMap<ShardId, (PeerId, u64)>) {
        for (shard, (peer, generation)) in replicas {
            self.slots[shard.0 as usize].own = Some(Own { peer, generation, in_use: generation });
        }
    }

    /// Whether this node's replica of a shard does not belong to its group yet.
    pub(crate) fn is_new(&self, shard: ShardId) -> bool {
        let replica = self.slots[shard.0 as usize].replica.as_ref();
        replica.is_some_and(|replica| !replica.is_member())
    }

    /// The new replica of this shard is open, or can't be.
    pub(crate) fn has_begun(&mut self, shard: ShardId) {
        if self.renewals.recorded.iter().all(|recorded| recorded.shard != shard) {
            self.renewals.begun.remove(&shard);
        }
    }

    /// Whether any replica ever was to be made anew. If not, there is nothing to look for.
    fn is_any_renewed(&self) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.next_peer > self.birth.layout().next_peer)
    }

    /// The replica that the layout wants to be here in place of the one that is.
    fn wanted_anew(&self, shard: ShardId) -> Option<PeerId> {
        let own = self.slots[shard.0 as usize].own?;
        let places = &self.layout.as_ref()?.shard(shard)?.replicas;
        let wanted = places.iter().find(|place| place.node == self.id)?.peer;
        (wanted > own.peer).then_some(wanted)
    }

    /// Somebody has spoken to this peer of a shard.
    pub(crate) fn notice_spoken_to(&mut self, shard: ShardId, peer: PeerId) {
        let own = self.slots.get(shard.0 as usize).and_then(|slot| slot.own);
        if own.is_some_and(|own| own.peer < peer) {
            self.renewals.awaited.insert(shard);
        }
    }

    /// Now and then: makes anew what the layout says.
    pub(crate) fn make_anew(&mut self) {
        if !self.is_any_renewed() || self.phase != Phase::Running || self.disk != DiskState::Working {
            return;
        }
        for number in 0..self.slots.len() as u32 {
            let shard = ShardId(number);
            let Some(wanted) = self.wanted_anew(shard) else { continue };
            let slot = &self.slots[number as usize];
            let is_out = |replica: &Replica| !replica.group.configuration().decides(replica.group.me());
            let is_spoken_to = self.renewals.awaited.contains(&shard);
            let may_begin = match &slot.replica {
                Some(replica) => (is_spoken_to || is_out(replica)) && !replica.is_busy(),
                None => slot.damage.is_some() && is_spoken_to,
            };
            if may_begin {
                self.begin_anew(shard, wanted);
            }
        }
    }

    fn begin_anew(&mut self, shard: ShardId, peer: PeerId) {
        self.dissolve(shard);
        self.slots[shard.0 as usize].abdicating = None;
        self.forget_arriving(shard);
        self.renewals.awaited.remove(&shard);
        let own = self.slots[shard.0 as usize].own.as_mut().expect("looked at before");
        own.peer = peer;
        let (replaces, generation) = (own.in_use, own.next_generation());
        let base = Base { generation, ..Base::default() };
        let mut records = vec![
            Record::Installed(shard, base),
            Record::HardState(shard, HardState::default()),
            Record::Replica(shard, peer),
        ];
        if planted::is(Bug::RebuiltUnderOldId) {
            records.truncate(2);
        }
        let mut batch = 0;
        self.commit.add(shard, records, None, &mut batch);
        self.renewals.recorded.push(Recorded { shard, peer, generation, batch, replaces });
        self.renewals.begun.insert(shard);
        let line = format!("the replica of shard {shard} on this node is made anew from the others");
        self.out.last.push(Effect::Notice(line));
    }

    /// Nothing more is asked of this node's replica of a shard, if it has one: what waits there goes elsewhere, and of what it has
    /// proposed nobody here will hear. What is left of it.
    pub(crate) fn dissolve(&mut self, shard: ShardId) -> Option<Replica> {
        let mut replica = self.slots[shard.0 as usize].replica.take()?;
        let now = self.now;
        let (unproposed, in_doubt, reads) = replica.dissolve();
        for (waiter, stamped) in unproposed {
            self.route(crate::turn::from_command(shard, waiter, stamped, now));
        }
        for waiter in in_doubt.into_iter().filter(|waiter| waiter.token != Token::NOBODY) {
            let message = "this node's replica takes no part any more; the write may have taken effect";
            self.answer_waiter(waiter, Reply::Failed(Failure::unknown(Code::Unavailable, message)));
        }
        for asked in reads {
            self.route(asked);
        }
        Some(replica)
    }

    /// A batch is durable: new replicas whose record it holds may begin.
    pub(crate) fn begin_recorded(&mut self, number: u64) {
        let layout = self.birth.layout();
        for recorded in self.renewals.recorded.extract_if(.., |recorded| recorded.batch <= number) {
            let Recorded { shard, peer, generation, replaces, .. } = recorded;
            let own = self.slots[shard.0 as usize].own.as_mut();
            // Else there is a still newer one, whose record is not durable yet.
            let Some(own) = own.filter(|own| own.peer == peer) else { continue };
            own.in_use = generation;
            let born = layout.clone();
            self.out.first.push(Effect::Begin { shard, peer, generation, replaces, born });
        }
    }

    /// Asks the meta group to give the places of damaged replicas to fresh peers.
    pub(crate) fn ask_for_new_replicas(&mut self) {
        let Some(layout) = self.layout.clone() else { return };
        if self.phase != Phase::Running || self.disk != DiskState::Working {
            return;
        }
        let mut changes = Vec::new();
        for (slot, shard) in self.slots.iter().zip(&layout.shards) {
            let is_left = slot.damage.is_some() && !self.renewals.begun.contains(&shard.shard);
            let Some(own) = slot.own.filter(|_| is_left) else { continue };
            let replica = Place { node: self.id, peer: own.peer };
            let is_whole = |place: &&Place| {
                self.peers.has_open(place.node, shard.shard)
                    && !self.peers.is_damaged(place.node, shard.shard)
            };
            let whole = shard.replicas.iter().filter(is_whole).count();
            let is_asked = !shard.replicas.contains(&replica);
            if !is_asked && 2 * whole > shard.replicas.len() && changes.len() < ASKED_MAX {
                changes.push(LayoutChange::Renew { shard: shard.shard, replica });
            }
        }
        for change in changes {
            self.ask_for(change);
        }
    }

    /// Has the meta group change the layout, if somebody leads it. Whoever still wants it asks again.
    fn ask_for(&mut self, change: LayoutChange) {
        let call = Call::from(Request::ChangeLayout(change));
        match self.leader_of(ShardId::META) {
            Some(leader) if leader == self.id => self.take_in(NOBODY_WAITS, call),
            Some(leader) if self.peers.is_up(leader) => {
                self.send(leader, PeerMessage::Forward(Forward { id: NOBODY_WAITS.id, call }));
            }
            _ => {}
        }
    }
}

/// As the leader of groups.
impl Node {
    /// Now and then: takes the groups that this node leads a step further to what the layout says.
    pub(crate) fn follow_layout(&mut self) {
        if !self.is_any_renewed() || self.phase != Phase::Running || self.disk != DiskState::Working {
            return;
        }
        let Some(layout) = self.layout.clone() else { return };
        let now_us = self.now.monotonic_us;
        for shard in &layout.shards {
            let id = shard.shard;
            let slot = &mut self.slots[id.0 as usize];
            let Some(replica) = slot.replica.as_mut().filter(|replica| replica.takes_writes()) else {
                continue;
            };
            let me = replica.group.me();
            if is_reached(replica.group.configuration(), &shard.replicas) {
                continue;
            }
            let mut caught_up = replica.learners.look(&replica.group, now_us);
            let configuration = replica.group.configuration();
            let can_lead = |place: &Place| self.peers.can_lead(place.node, id, now_us);
            let keeps_up = |place: &Place| replica.lag(place.peer).is_some_and(|lag| lag <= HANDOVER_LAG_MAX);
            let able = configuration.voters.iter().filter(|voter| can_lead(voter) && keeps_up(voter));
            let able = able.map(|voter| voter.peer).collect();
            let open: BTreeSet<PeerId> = configuration
                .learners
                .iter()
                .filter(|learner| can_lead(learner))
                .map(|learner| learner.peer)
                .collect();
            caught_up.retain(|peer| open.contains(peer));
            let progress = Progress { leader: me, caught_up, able };
            let done = match next_step(configuration, &shard.replicas, &progress) {
                NextStep::Done | NextStep::Wait | NextStep::Impossible => false,
                NextStep::Change(change) => replica.group.propose_change(&change).is_some(),
                NextStep::HandOver(peer) => {
                    replica.hand_over_to(peer);
                    true
                }
            };
            if done {
                self.mark(id);
            }
        }
    }
}
