//! Rounds of reads: one question to each peer for all shards that have reads waiting, and a follower's question to the
//! leader, which takes part in a round of its own.
//!
//! What the `raft` crate does with a heartbeat per group and follower, a node that leads many groups does here
//! with one message per peer (`docs/decisions/0002-read-probes.md`). The argument is that of ReadIndex (Raft
//! thesis, 6.4): the read takes the leader's commit index *before* the question is sent; whoever confirms the
//! term *after* it was sent had given no vote for a later one until then; so a majority's word means that no
//! later leader existed when the question was sent, and no write that the index misses was acknowledged.
//!
//! A follower that has a table need not have its reads done elsewhere: it asks the leader for an index, once for all reads
//! that wait, and reads at it. With the index it hears how much is committed, so that it does not wait for the
//! next heartbeat to say so. Reads whose index its table does not come to go to the leader.
//!
//! The numbers of rounds and questions are bound to the boot count (PITFALLS 16b). Lost ones are asked again by timer.

use std::collections::BTreeMap;

use ringfort_types::limits::{HEARTBEAT_MS, READ_ROUNDS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    DiskState, NodeId, PeerMessage, ReadIndex, ReadIndexReply, ReadProbe, ReadProbeReply, ShardId,
};

use crate::ReadJob;
use crate::node::Node;
use crate::replica::Replica;

/// A round, or a question, that is not settled after this long is given up, and its reads are asked about anew.
const ROUND_US_MAX: u64 = 150_000;

#[derive(Debug)]
struct UnderWay {
    began_us: u64,
    /// Those that no majority has confirmed yet.
    shards: Vec<ShardId>,
}

#[derive(Debug)]
pub(crate) struct Rounds {
    boot: u64,
    last: u64,
    under_way: BTreeMap<u64, UnderWay>,
    /// The number of the last question to a leader.
    last_question: u64,
}

impl Rounds {
    pub(crate) fn new(boot: u64) -> Rounds {
        let last_question = if planted::is(Bug::QuestionNumberReused) { 0 } else { boot << 40 };
        Rounds { boot, last: 0, under_way: BTreeMap::new(), last_question }
    }

    fn next_question(&mut self) -> u64 {
        self.last_question += 1;
        self.last_question
    }

    /// Whether a further round may begin; otherwise the reads wait and share the next one.
    fn may_begin(&self) -> bool {
        self.under_way.len() < READ_ROUNDS_MAX
    }

    /// The number of the next round.
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn begun(&mut self, number: u64, now_us: u64, shards: Vec<ShardId>) {
        if !shards.is_empty() {
            self.under_way.insert(number, UnderWay { began_us: now_us, shards });
        }
    }

    /// Takes in an answer: the shards whose term one more replica confirms.
    fn answered(&self, reply: &ReadProbeReply) -> Vec<ShardId> {
        if reply.boot != self.boot {
            return Vec::new();
        }
        let Some(round) = self.under_way.get(&reply.round) else { return Vec::new() };
        round.shards.iter().filter(|shard| !reply.refused.contains(shard)).copied().collect()
    }

    /// Keeps the shards of a round that still wait; a round without any is over.
    fn settle(&mut self, number: u64, mut waits: impl FnMut(ShardId) -> bool) {
        if let Some(round) = self.under_way.get_mut(&number) {
            round.shards.retain(|shard| waits(*shard));
            if round.shards.is_empty() {
                self.under_way.remove(&number);
            }
        }
    }

    /// Ends rounds that take too long: their shards.
    fn take_overdue(&mut self, now_us: u64) -> Vec<(u64, Vec<ShardId>)> {
        self.under_way
            .extract_if(.., |_, round| now_us.saturating_sub(round.began_us) > ROUND_US_MAX)
            .map(|(number, round)| (number, round.shards))
            .collect()
    }
}

/// As the leader of its shards.
impl Node {
    /// Asks for all fresh reads at once whether this node still leads their shards, or who leads them for an index.
    pub(crate) fn begin_round(&mut self) {
        if !self.reads_fresh {
            return;
        }
        self.reads_fresh = false;
        let number = self.rounds.may_begin().then(|| self.rounds.next());
        let now_us = self.now.monotonic_us;
        let mut probes: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
        let mut shards = Vec::new();
        let mut ready = Vec::new();
        for slot in 0..self.slots.len() {
            let shard = ShardId(slot as u32);
            let Some(replica) = self.slots[slot].replica.as_mut().filter(|replica| replica.reads.are_fresh())
            else {
                continue;
            };
            if !replica.leads() {
                self.ask_leader(shard);
                continue;
            }
            let Some((number, term)) =
                number.and_then(|number| Some((number, replica.begin_round(number, now_us)?)))
            else {
                self.reads_fresh = true;
                continue;
            };
            if replica.reads.wait_for(number) {
                shards.push(shard);
                let configuration = replica.group.configuration();
                let learners = configuration.learners.iter().copied();
                let asks_learners = planted::is(Bug::LearnerCounts);
                for place in configuration.deciding().chain(learners.filter(|_| asks_learners)) {
                    if place.node != self.id {
                        probes.entry(place.node).or_default().push((shard, place.peer, term));
                    }
                }
            } else {
                replica.release_reads(&mut ready);
                self.tell_indexes(shard);
            }
        }
        if let Some(number) = number {
            for (node, shards) in probes {
                let boot = self.rounds.boot;
                self.send(node, PeerMessage::ReadProbe(ReadProbe { boot, round: number, shards }));
            }
            self.rounds.begun(number, now_us, shards);
        }
        self.emit_reads(ready);
    }

    /// Rounds and questions that got lost are asked again.
    pub(crate) fn retry_rounds(&mut self) {
        let now_us = self.now.monotonic_us;
        for (number, shards) in self.rounds.take_overdue(now_us) {
            for shard in shards {
                if let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() {
                    replica.reads.abandon_rounds(number);
                    self.reads_fresh = true;
                    self.mark(shard);
                }
            }
        }
        for replica in self.slots.iter_mut().filter_map(|slot| slot.replica.as_mut()) {
            if replica.reads.asked_in_vain(now_us.saturating_sub(ROUND_US_MAX)) {
                replica.reads.ask_again();
                self.reads_fresh = true;
            }
            replica.reads.look_at_table(replica.applied(), now_us);
        }
        for number in 0..self.slots.len() {
            self.pass_on_unserved(ShardId(number as u32));
        }
    }

    /// Confirms the terms that this node is at, for shards whose leader it takes the asker to be.
    pub(crate) fn handle_probe(&mut self, from: NodeId, probe: &ReadProbe) {
        let mut refused = Vec::new();
        for (shard, peer, term) in &probe.shards {
            let slot = self.slots.get_mut(shard.0 as usize);
            // Another replica than the one that is asked has forgotten whom that one voted for.
            let is_it = |replica: &Replica| replica.group.me() == *peer;
            match slot.and_then(|slot| slot.replica.as_mut()).filter(|replica| is_it(replica)) {
                Some(replica) if replica.group.term() == *term && replica.leader_node() == Some(from) => {
                    replica.group.heard_leader();
                }
                Some(_) if planted::is(Bug::ReadNotBoundToTerm) => {}
                None if planted::is(Bug::ProbeCountsTheNode) => {}
                _ => refused.push(*shard),
            }
        }
        let reply = ReadProbeReply { boot: probe.boot, round: probe.round, refused };
        self.send(from, PeerMessage::ReadProbeReply(reply));
    }

    pub(crate) fn handle_probe_reply(&mut self, from: NodeId, reply: &ReadProbeReply) {
        let now_us = self.now.monotonic_us;
        let mut ready = Vec::new();
        for shard in self.rounds.answered(reply) {
            if let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() {
                replica.confirm(reply.round, from, now_us);
                replica.release_reads(&mut ready);
                self.reads_fresh |= replica.reads.are_fresh();
            }
            self.tell_indexes(shard);
        }
        let slots = &self.slots;
        self.rounds.settle(reply.round, |shard| {
            slots[shard.0 as usize]
                .replica
                .as_ref()
                .is_some_and(|replica| replica.reads.wait_for(reply.round))
        });
        self.emit_reads(ready);
    }

    /// A follower wants to know where it may read.
    pub(crate) fn handle_read_index(&mut self, from: NodeId, question: ReadIndex) {
        let ReadIndex { shard, number } = question;
        let slot = self.slots.get_mut(shard.0 as usize);
        match slot.and_then(|slot| slot.replica.as_mut()) {
            Some(replica) if replica.leads() && replica.peer_on(from).is_some() => {
                replica.reads.add_question(from, number);
                self.reads_fresh = true;
                self.mark(shard);
            }
            _ => {
                let reply = ReadIndexReply { shard, number, told: None };
                self.send(from, PeerMessage::ReadIndexReply(reply));
            }
        }
    }

    /// Sends what followers of this shard wait for.
    pub(crate) fn tell_indexes(&mut self, shard: ShardId) {
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
        for (node, reply) in replica.reads.take_told() {
            self.send(node, PeerMessage::ReadIndexReply(reply));
        }
    }

    /// Hands reads to the driver.
    pub(crate) fn emit_reads(&mut self, ready: Vec<ReadJob>) {
        self.pending -= ready.len();
        self.pending_bytes -= ready.iter().map(|job| job.request.weight()).sum::<usize>();
        self.out.read.extend(ready);
    }
}

/// As a follower.
impl Node {
    /// Asks this shard's leader for an index, unless it has been asked already. If there is none, the reads wait for one.
    fn ask_leader(&mut self, shard: ShardId) {
        let leader = self.leader_of(shard).filter(|leader| self.peers.is_up(*leader));
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
        let Some(leader) = leader else {
            for asked in replica.reads.take_fresh() {
                self.wait(shard, asked, HEARTBEAT_MS / 2);
            }
            return;
        };
        if replica.reads.may_ask() {
            let number = self.rounds.next_question();
            replica.reads.begin_asking(number, leader, self.now.monotonic_us);
            self.send(leader, PeerMessage::ReadIndex(ReadIndex { shard, number }));
        }
    }

    /// The leader says where this node may read.
    pub(crate) fn handle_read_index_reply(&mut self, from: NodeId, reply: &ReadIndexReply) {
        let shard = reply.shard;
        let slot = self.slots.get_mut(shard.0 as usize);
        let Some(replica) = slot.and_then(|slot| slot.replica.as_mut()) else { return };
        let refused = replica.reads.hear(from, reply, replica.group.term());
        if let Some((term, index)) = reply.told {
            replica.group.learn_commit(term, index);
        }
        let mut ready = Vec::new();
        replica.release_reads(&mut ready);
        self.reads_fresh |= replica.reads.are_fresh();
        self.mark(shard);
        self.emit_reads(ready);
        self.pass_on_unserved(shard);
        for asked in refused {
            self.wait(shard, asked, HEARTBEAT_MS / 2);
        }
    }

    /// Whether the table of this follower may never have what a read waits for: a disk that takes nothing lets no entry reach it.
    pub(crate) fn is_table_stuck(&self, shard: ShardId) -> bool {
        let replica = self.slots[shard.0 as usize].replica.as_ref().filter(|replica| !replica.leads());
        replica.is_some_and(|replica| {
            self.disk != DiskState::Working || replica.reads.is_stuck(replica.applied())
        })
    }

    /// Gives the reads to the leader that wait for a table which does not get on.
    fn pass_on_unserved(&mut self, shard: ShardId) {
        let awaits_table =
            |replica: &mut Replica| replica.reads.await_table().then(|| replica.reads.take_unserved());
        if !self.is_table_stuck(shard) {
            return;
        }
        let unserved = self.slots[shard.0 as usize].replica.as_mut().and_then(awaits_table);
        for asked in unserved.unwrap_or_default() {
            self.pass_to_leader(shard, asked);
        }
    }
}
