//! The replicas of this node: where the layout wants another one than there is, it begins, is made anew, or comes to its end.
//!
//! From when the meta group has put a fresh peer somewhere, two things go on without knowing of each other:
//!
//! - *whoever leads the group* (`follow`) takes one step after the other to what the layout says: peers that are not in it are demoted and
//!   removed, new ones added as learners, and made voters when they have caught up;
//! - *the node* has its log say which peer it is from then on, with nothing of the old one left: no entry, no term, no vote. Once that is
//!   durable the driver begins an empty table, and the new replica takes what the leader sends: the log, or a snapshot. A replica that is
//!   not in the layout comes to its end in the same way.
//!
//! A replica is made anew where it is because its log or table is damaged, or an operator wants it ([`LayoutChange::Renew`]): as another
//! peer. That is what makes it safe. What the old replica had acknowledged or voted for, and what is forgotten now, is nobody's word any
//! more.
//!
//! Invariants:
//! - a replica begins because the layout says so, and never because somebody speaks to it; before its record is durable nothing is said
//!   in its name; and no peer begins that the log knows to be older than the last one, whatever an old layout says;
//! - an old replica, with all that it has acknowledged, stays until its group goes on without it. It knows so from the configuration in
//!   force, if it is not in that and its log holds no later change; or from another replica's, if its log holds none after that one (it
//!   asks for it, since a leader tells nobody that it is removed); or from somebody who speaks to the new one, which is added after the
//!   old one is gone;
//! - nobody reads from a new one before it belongs to its group.
//!
//! A node asks for a new replica by itself where one of its own is damaged, and more than half of all replicas are whole elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Base, Call, Code, Configuration, DiskState, Epoch, Failure, Forward, GroupTold, GroupWanted, HardState,
    Index, LayoutChange, NodeId, PeerId, PeerMessage, Principal, Record, Replica as Place, Reply, Request,
    ShardId, Token,
};

use crate::leave::Phase;
use crate::node::Node;
use crate::replica::Replica;
use crate::{Effect, FoundReplica};

/// Replicas that a node asks for in one look.
const ASKED_MAX: usize = 8;
/// Of a node's own requests. Nobody waits for what comes of them.
const NOBODY_WAITS: Token = Token { origin: NodeId(0), id: 1 };

/// The replica of a shard that this node has, or had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// Who it is; 0 if there was none yet.
    pub(crate) peer: PeerId,
    /// Whether there is none any more, or none yet.
    pub(crate) is_gone: bool,
    /// The latest generation of its table that was begun.
    pub(crate) generation: u64,
    /// The one in use, if there is one.
    pub(crate) in_use: Option<u64>,
}

impl Own {
    /// Of a shard of which there was no replica here.
    const NONE: Own = Own { peer: PeerId(0), is_gone: true, generation: 0, in_use: None };

    pub(crate) fn found(FoundReplica { peer, is_gone, generation }: FoundReplica) -> Own {
        Own { peer, is_gone, generation, in_use: (!is_gone).then_some(generation) }
    }

    /// A number for a new table, never used before in this process; what an earlier one left was removed at the start.
    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }
}

/// What is to happen to a replica.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It begins, in place of another one or of none.
    Begin(PeerId),
    /// It ends.
    End,
}

/// A replica that begins or ends, whose record is on its way to the disk.
#[derive(Debug)]
struct Recorded {
    shard: ShardId,
    turn: Turn,
    /// Its table's.
    generation: u64,
    /// The batch that holds it.
    batch: u64,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    /// Which replicas there are is known.
    is_log_open: bool,
    recorded: Vec<Recorded>,
    /// Shards whose new replica is on its way: its record, or its table.
    begun: BTreeSet<ShardId>,
    /// Shards whose new replica somebody has spoken to.
    awaited: BTreeSet<ShardId>,
    /// The configurations that others have told, of groups whose replica here may have to end, each with up to where it is in force.
    told: BTreeMap<ShardId, (Configuration, Index)>,
}

impl Renewals {
    pub(crate) fn is_log_open(&self) -> bool {
        self.is_log_open
    }

    pub(crate) fn is_begun(&self, shard: ShardId) -> bool {
        self.begun.contains(&shard)
    }
}

/// As a node with replicas of its own.
impl Node {
    /// Who belongs to a shard's group, as far as this node's replica knows.
    pub fn configuration(&self, shard: ShardId) -> Option<&Configuration> {
        let replica = self.slots.get(shard.0 as usize)?.replica.as_ref()?;
        Some(replica.group.configuration())
    }

    pub(crate) fn handle_replicas(&mut self, replicas: &BTreeMap<ShardId, FoundReplica>, batch: u64) {
        for (shard, slot) in (0..).map(ShardId).zip(&mut self.slots) {
            slot.own = Some(replicas.get(&shard).map_or(Own::NONE, |found| Own::found(*found)));
        }
        self.renewals.is_log_open = true;
        self.marks.opened(batch);
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

    /// Whether the layout ever was another one. If not, every replica is where it should be.
    pub(crate) fn has_layout_moved(&self) -> bool {
        self.layout.as_ref().is_some_and(|layout| layout.placed > Epoch(1))
    }

    /// What the layout wants to happen to the replica here, if anything.
    fn wanted_turn(&self, shard: ShardId) -> Option<Turn> {
        let own = self.slots[shard.0 as usize].own?;
        let layout = self.layout.as_ref()?;
        let places = &layout.shard(shard)?.replicas;
        if let Some(place) = places.iter().find(|place| place.node == self.id) {
            return (place.peer > own.peer).then_some(Turn::Begin(place.peer));
        }
        // A layout that is older than the replica says nothing of it: a process may begin with one, and peers begin only once.
        let is_known = own.peer < layout.next_peer || planted::is(Bug::DestroyedByOldEpoch);
        (!own.is_gone && is_known).then_some(Turn::End)
    }

    /// Somebody has spoken to this peer of a shard.
    pub(crate) fn notice_spoken_to(&mut self, shard: ShardId, peer: PeerId) {
        let own = self.slots.get(shard.0 as usize).and_then(|slot| slot.own);
        if let Some(own) = own.filter(|own| own.is_gone && planted::is(Bug::ReplicaFromAMessage)) {
            return self.turn_over(shard, own, Turn::Begin(peer));
        }
        if own.is_some_and(|own| own.peer < peer && !own.is_gone) {
            self.renewals.awaited.insert(shard);
        }
    }

    /// Whether the replica here is nobody's any more.
    fn is_out(&self, shard: ShardId, own: Own) -> bool {
        let told = self.renewals.told.get(&shard);
        let slot = &self.slots[shard.0 as usize];
        if let Some(replica) = &slot.replica {
            let group = &replica.group;
            let is_out_of = |(told, through): &(_, Index)| group.is_out_of(told, *through);
            return !replica.is_busy() && (group.is_out() || told.is_some_and(is_out_of));
        }
        // One that is damaged acknowledges nothing any more.
        slot.damage.is_some() && told.is_some_and(|(told, _)| told.node_of(own.peer).is_none())
    }

    /// Now and then: begins and ends what the layout says.
    pub(crate) fn follow_places(&mut self) {
        if !self.has_layout_moved() || self.phase != Phase::Running || self.disk != DiskState::Working {
            return;
        }
        for shard in (0..self.slots.len() as u32).map(ShardId) {
            let (Some(turn), Some(own)) = (self.wanted_turn(shard), self.slots[shard.0 as usize].own) else {
                continue;
            };
            let slot = &self.slots[shard.0 as usize];
            let is_still = slot.replica.as_ref().map_or(slot.damage.is_some(), |replica| !replica.is_busy());
            let is_awaited = matches!(turn, Turn::Begin(_)) && self.renewals.awaited.contains(&shard);
            let is_free = own.is_gone || (is_awaited && is_still) || self.is_out(shard, own);
            if is_free || planted::is(Bug::ReplicaEndsTooEarly) {
                self.turn_over(shard, own, turn);
            }
        }
    }

    /// Has the log say that a replica begins or ends here.
    fn turn_over(&mut self, shard: ShardId, mut own: Own, turn: Turn) {
        let leader = self.leader_of(shard).map(|leader| (self.term_of(shard), leader));
        self.dissolve(shard);
        let slot = &mut self.slots[shard.0 as usize];
        slot.abdicating = None;
        slot.reported = leader.filter(|(_, leader)| *leader != self.id).or(slot.reported);
        self.forget_arriving(shard);
        self.renewals.awaited.remove(&shard);
        self.renewals.told.remove(&shard);
        let was_gone = own.is_gone;
        let generation = own.next_generation();
        let base = Base { generation, ..Base::default() };
        let mut records =
            vec![Record::Installed(shard, base), Record::HardState(shard, HardState::default())];
        match turn {
            Turn::Begin(peer) => {
                (own.peer, own.is_gone) = (peer, false);
                if !planted::is(Bug::RebuiltUnderOldId) {
                    records.push(Record::Replica(shard, peer));
                }
                self.renewals.begun.insert(shard);
                if !was_gone {
                    let line =
                        format!("the replica of shard {shard} on this node is made anew from the others");
                    self.out.last.push(Effect::Notice(line));
                }
            }
            Turn::End => {
                own.is_gone = true;
                records.push(Record::Gone(shard, own.peer));
                let slot = &mut self.slots[shard.0 as usize];
                (slot.damage, slot.stands_still) = (None, false);
                self.renewals.begun.remove(&shard);
            }
        }
        self.slots[shard.0 as usize].own = Some(own);
        let mut batch = 0;
        self.commit.add(shard, records, None, &mut batch);
        self.renewals.recorded.push(Recorded { shard, turn, generation, batch });
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

    /// A batch is durable: new replicas whose record it holds may begin, and old ones go.
    pub(crate) fn begin_recorded(&mut self, number: u64) {
        for recorded in self.renewals.recorded.extract_if(.., |recorded| recorded.batch <= number) {
            let Recorded { shard, turn, generation, .. } = recorded;
            let own = self.slots[shard.0 as usize].own.as_mut();
            // Else there is a still newer one, whose record is not durable yet.
            let Some(own) = own.filter(|own| own.generation == generation) else { continue };
            let replaces = own.in_use.take();
            match turn {
                Turn::Begin(peer) => {
                    own.in_use = Some(generation);
                    let born = self.birth.layout();
                    self.out.first.push(Effect::Begin { shard, peer, generation, replaces, born });
                }
                Turn::End => {
                    let end = replaces.map(|generation| Effect::End { shard, generation });
                    self.out.first.extend(end);
                }
            }
        }
    }

    /// Asks who belongs to the groups whose replicas here may have to end, since their leaders don't tell those that they have removed.
    pub(crate) fn ask_about_groups(&mut self) {
        if !self.has_layout_moved() || self.phase != Phase::Running {
            return;
        }
        let Some(layout) = self.layout.clone() else { return };
        for shard in &layout.shards {
            let own = self.slots[shard.shard.0 as usize].own.filter(|own| !own.is_gone);
            if own.is_none() || self.wanted_turn(shard.shard).is_none() {
                continue;
            }
            let others = shard.replicas.iter().map(|place| place.node).filter(|node| *node != self.id);
            for node in others.filter(|node| self.peers.is_up(*node)).collect::<Vec<_>>() {
                self.send(node, GroupWanted { shard: shard.shard }.into());
            }
        }
    }

    pub(crate) fn handle_group_wanted(&mut self, from: NodeId, GroupWanted { shard }: GroupWanted) {
        let replica = self.slots.get(shard.0 as usize).and_then(|slot| slot.replica.as_ref());
        if let Some(replica) = replica.filter(|replica| replica.is_member()) {
            let (configuration, through) = (replica.group.configuration().clone(), replica.emitted());
            self.send(from, GroupTold { shard, configuration, through }.into());
        }
    }

    pub(crate) fn handle_group_told(&mut self, told: GroupTold) {
        let GroupTold { shard, configuration, through } = told;
        let is_known = (shard.0 as usize) < self.slots.len() && self.wanted_turn(shard).is_some();
        let is_later =
            |(known, up_to): &(Configuration, Index)| (known.at, *up_to) < (configuration.at, through);
        if is_known && self.renewals.told.get(&shard).is_none_or(is_later) {
            self.renewals.told.insert(shard, (configuration, through));
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
            let is_left =
                slot.damage.is_some() && !slot.stands_still && !self.renewals.begun.contains(&shard.shard);
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
    pub(crate) fn ask_for(&mut self, change: LayoutChange) {
        let call = Call { who: Principal::NODE, ..Request::ChangeLayout(change).into() };
        match self.leader_of(ShardId::META) {
            Some(leader) if leader == self.id => self.take_in(NOBODY_WAITS, call),
            Some(leader) if self.peers.is_up(leader) => {
                self.send(leader, PeerMessage::Forward(Forward { id: NOBODY_WAITS.id, call }));
            }
            _ => {}
        }
    }
}
