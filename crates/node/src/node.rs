//! The node: its parts, and which of them takes which event.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_consensus::{Group, GroupConfig, Restored, Synced, Turn};
use ringfort_ring::Layout;
use ringfort_storage::NEXT_STEP;
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Configuration, DiskSpace, DiskState, Epoch, Index, Levels, NodeId, Now, PeerId, PeerMessage, Record,
    ShardId, Term,
};

use crate::abdicate::Abdicating;
use crate::birth::{Birth, Step};
use crate::figures::Tally;
use crate::forwards::Forwards;
use crate::layout::LayoutRequest;
use crate::leave::Phase;
use crate::marks::{KEEP_TICKS, Marks};
use crate::moving::Moving;
use crate::peers::Peers;
use crate::pending::Pending;
use crate::persist::GroupCommit;
use crate::rebalance::Planned;
use crate::renewal::{Own, Renewals};
use crate::replica::Replica;
use crate::reports::Reports;
use crate::rounds::Rounds;
use crate::said::Said;
use crate::slow_disk::SlowDisk;
use crate::snapshots::Snapshots;
use crate::transfer::Transfers;
use crate::{Answered, ApplyJob, Config, Effect, Event, FoundReplica, Identity, NodeError, Opened, ReadJob};

/// Ticks between two hellos before birth.
const HELLO_TICKS: u64 = 500 / TICK_MS;
/// Ticks between two lines about who is missing.
const WAITING_TICKS: u64 = 5_000 / TICK_MS;
/// Ticks between two reports to the other nodes, and between two looks at who should lead.
const REPORT_TICKS: u64 = 1_000 / TICK_MS;
/// Ticks between two looks at deadlines.
const DEADLINE_TICKS: u64 = 50 / TICK_MS;
/// Ticks between two looks at snapshots on their way.
const SNAPSHOT_TICKS: u64 = 100 / TICK_MS;
/// Ticks between two tries to hand leaderships over, while this node can't write.
const HAND_OVER_TICKS: u64 = 100 / TICK_MS;
/// How long a node that can't be born goes on, so that all who are in the same plight are told.
const DOOMED_TICKS: u64 = 500 / TICK_MS;

/// One shard, wherever its replicas are.
pub(crate) struct Slot {
    /// The replica on this node, if there is one and its table is open.
    pub(crate) replica: Option<Replica>,
    /// The leader of the latest term that was reported, for nodes without a replica.
    pub(crate) reported: Option<(Term, NodeId)>,
    /// The replica that this node has, open or not. Known once the log is open.
    pub(crate) own: Option<Own>,
    /// Why the replica on this node takes no part, if it does not: then there is none.
    pub(crate) damage: Option<String>,
    /// It takes no part because this version can't read its log: nothing is damaged.
    pub(crate) stands_still: bool,
    /// The group of a damaged replica that led, while it hands over.
    pub(crate) abdicating: Option<Box<Abdicating>>,
    /// Requests that nobody can take now.
    pub(crate) waiting: Vec<Pending>,
    /// Has something to say in this turn.
    pub(crate) dirty: bool,
}

impl Slot {
    /// The group that speaks for this node: its replica's, or that of one which hands over for the last time.
    fn group(&self) -> Option<&Group> {
        let abdicating = || self.abdicating.as_ref().map(|abdicating| &abdicating.group);
        self.replica.as_ref().map(|replica| &replica.group).or_else(abdicating)
    }

    /// Where a peer of this shard is.
    pub(crate) fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        match &self.replica {
            Some(replica) => replica.node_of(peer),
            None => self.group()?.configuration().node_of(peer),
        }
    }
}

/// What a turn has brought so far.
#[derive(Default)]
pub(crate) struct Out {
    pub(crate) first: Vec<Effect>,
    pub(crate) send: BTreeMap<NodeId, Vec<PeerMessage>>,
    pub(crate) apply: Vec<ApplyJob>,
    pub(crate) read: Vec<ReadJob>,
    pub(crate) reply: Vec<Answered>,
    pub(crate) last: Vec<Effect>,
}

/// One node of a cluster.
pub struct Node {
    pub(crate) id: NodeId,
    pub(crate) now: Now,
    pub(crate) replace_after_us: u64,
    /// Those that this process knows.
    pub(crate) levels: Levels,
    pub(crate) birth: Birth,
    /// Once born.
    pub(crate) layout: Option<Arc<Layout>>,
    pub(crate) layout_request: Option<LayoutRequest>,
    /// The tick at which all others were last asked for the layout.
    pub(crate) all_asked: Option<u64>,
    /// By shard number, once born; the meta group first.
    pub(crate) slots: Vec<Slot>,
    pub(crate) dirty: Vec<ShardId>,
    /// All local shards are open.
    pub(crate) serving: bool,
    /// Since when some local shard is open.
    opened_us: Option<u64>,
    /// Some replica may have reads that no round covers yet.
    pub(crate) reads_fresh: bool,
    pub(crate) commit: GroupCommit,
    pub(crate) rounds: Rounds,
    pub(crate) forwards: Forwards,
    pub(crate) peers: Peers,
    pub(crate) snapshots: Snapshots,
    pub(crate) renewals: Renewals,
    pub(crate) marks: Marks,
    pub(crate) reports: Reports,
    pub(crate) moving: Moving,
    pub(crate) transfers: Transfers,
    pub(crate) planned: Planned,
    pub(crate) pending: usize,
    pub(crate) pending_bytes: usize,
    pub(crate) ticks: u64,
    pub(crate) phase: Phase,
    /// Whether anything can be written.
    pub(crate) disk: DiskState,
    /// As it is told to others.
    pub(crate) space: DiskSpace,
    pub(crate) slow_disk: SlowDisk,
    /// That this node can't be born.
    pub(crate) doomed: Option<Doomed>,
    /// Why others refuse this node, as it was said.
    pub(crate) said: Said,
    pub(crate) tally: Tally,
    pub(crate) out: Out,
    /// Memory for one group's turn after the other; empty in between.
    pub(crate) turn: Turn,
}

/// Why this node can't be born.
#[derive(Debug)]
pub(crate) struct Doomed {
    /// The tick at which that became known.
    pub(crate) since: u64,
    pub(crate) reason: String,
    /// Whether a node of a cluster that is born says so.
    pub(crate) by_born: bool,
}

impl Node {
    /// A node as its flags and its directory have it. Nothing happens before its first tick.
    pub fn new(config: Config, identity: &Identity, now: Now) -> Result<Node, NodeError> {
        let (replace_after_us, levels) = (config.replace_after_ms * 1_000, config.levels);
        let birth = Birth::new(config, identity)?;
        let marks = || Marks::none(identity.incarnation, identity.process);
        let (marks, lost) = match identity.marks.as_ref().map(|kept| marks().with(kept)) {
            None => (marks(), None),
            Some(Ok(marks)) => (marks, None),
            Some(Err(malformed)) => (marks(), Some(malformed)),
        };
        let mut node = Node {
            id: birth.id(),
            now,
            replace_after_us,
            levels,
            birth,
            layout: None,
            layout_request: None,
            all_asked: None,
            slots: Vec::new(),
            dirty: Vec::new(),
            serving: false,
            opened_us: None,
            reads_fresh: false,
            commit: GroupCommit::default(),
            rounds: Rounds::new(identity.boot),
            forwards: Forwards::new(identity.boot),
            peers: Peers::default(),
            snapshots: Snapshots::new(identity.boot),
            renewals: Renewals::default(),
            marks,
            reports: Reports::default(),
            moving: Moving::default(),
            transfers: Transfers::default(),
            planned: Planned::default(),
            pending: 0,
            pending_bytes: 0,
            ticks: 0,
            phase: Phase::Running,
            disk: DiskState::Working,
            space: DiskSpace::default(),
            slow_disk: SlowDisk::default(),
            doomed: None,
            said: Said::default(),
            tally: Tally::default(),
            out: Out::default(),
            turn: Turn::default(),
        };
        if let Some(malformed) = lost {
            node.out.last.push(Effect::Notice(format!(
                "what was kept of the other nodes' logs can't be read ({malformed}): it is heard again from them"
            )));
        }
        if let Some(reason) = node.marks.refused() {
            node.out.last.push(Effect::Refused(reason.to_owned()));
            return Ok(node);
        }
        node.peers.follow(node.birth.listed(), node.now.monotonic_us);
        if node.birth.is_born() {
            node.be_born();
            if let Some(kept) = &identity.layout {
                node.adopt_kept(kept.clone())?;
            }
            node.tell_of_move();
        } else {
            node.step_birth();
        }
        Ok(node)
    }

    /// What people call a node.
    pub(crate) fn called(&self, node: NodeId) -> String {
        let member = self.layout.as_ref().and_then(|layout| layout.member(node));
        member.map_or_else(|| self.birth.called(node), |member| member.name.clone())
    }

    /// The layout that the cluster was born with, once it is.
    pub fn born_layout(&self) -> Option<Arc<Layout>> {
        self.birth.is_born().then(|| self.birth.layout())
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where a member can be reached, as far as this node knows.
    pub fn address_of(&self, node: NodeId) -> &str {
        if node == self.id {
            return self.birth.address();
        }
        let member = self.layout.as_ref().and_then(|layout| layout.member(node));
        self.moving.address(node).or(member.map(|member| &*member.address)).unwrap_or("HOST:PORT")
    }

    /// The cluster's number; 0 before birth.
    pub fn cluster(&self) -> u64 {
        self.layout.as_ref().map_or(0, |layout| layout.cluster)
    }

    /// Whether a read waits for a table to catch up: then [`Event::Applied`] is urgent, else it may come along
    /// with the next event.
    pub fn awaits_tables(&self) -> bool {
        let mut replicas = self.slots.iter().filter_map(|slot| slot.replica.as_ref());
        replicas.any(|replica| replica.reads.await_table())
    }

    /// How many shards have something to do in the next turn.
    pub fn shards_with_work(&self) -> usize {
        self.dirty.len()
    }

    /// The layout's version; 0 before birth.
    pub fn epoch(&self) -> Epoch {
        self.layout.as_ref().map_or(Epoch(0), |layout| layout.epoch)
    }

    /// The layout that it goes by, once the cluster is born.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Tick => self.tick(),
            Event::Requests(incoming) => self.handle_requests(incoming),
            Event::Peer { link, frame } => self.handle_frame(link, frame),
            Event::PeerUp(node) => self.handle_peer_up(node),
            Event::PeerLost(node) => self.handle_peer_lost(node),
            Event::BirthSaved => {
                let step = self.birth.saved();
                self.take_step(step);
                self.say_hello();
            }
            Event::Replicas { replicas, batch } => self.handle_replicas(&replicas, batch),
            Event::Opened(shards) => self.handle_opened(shards),
            Event::Layout(layout) => self.adopt(layout),
            Event::Persisted { number, batch } => {
                self.marks.persisted(batch);
                self.handle_persisted(number);
            }
            Event::MarksSaved(is_kept) => self.handle_marks_saved(is_kept),
            Event::Applied(indexes) => self.handle_applied(&indexes),
            Event::Fetched { shard, entries } => {
                self.with_replica(shard, |replica| replica.group.fetched(&entries));
                self.fetched_for_abdicating(shard, &entries);
            }
            Event::Stats(stats) => {
                for stat in stats {
                    self.with_replica(stat.shard, |replica| replica.stats = stat);
                }
            }
            Event::Replied(replies) => self.handle_replied(replies),
            Event::Compacted(bases) => {
                for (shard, base) in bases {
                    self.with_replica(shard, |replica| replica.group.compact(base));
                    self.compact_abdicating(shard, base);
                }
            }
            Event::SnapshotTaken { transfer, index } => self.handle_snapshot_taken(transfer, index),
            Event::ChunkRead { transfer, number, chunk } => self.handle_chunk_read(transfer, number, chunk),
            Event::ChunkStored { shard, generation, outcome } => {
                self.handle_chunk_stored(shard, generation, outcome);
            }
            Event::Installed { shard, index, revision, clock } => {
                self.with_replica(shard, |replica| replica.installed(revision, clock));
                self.tally.counts.snapshots_installed += 1;
                self.handle_applied(&[(shard, index)]);
            }
            Event::Disk(disk) => self.handle_disk(disk),
            Event::Space(space) => self.handle_space(space),
            Event::Damaged { shard, reason, is_readable } => self.handle_damaged(shard, reason, is_readable),
            Event::Unread { shard, reason } => self.stand_still(shard, reason, true),
            Event::Stop => self.stop(),
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if !self.birth.is_born() {
            if self.ticks % HELLO_TICKS == 1 {
                self.say_hello();
            }
            if self.ticks % WAITING_TICKS == HELLO_TICKS * 2 {
                let missing = self.birth.missing().join(", ");
                self.out.last.push(Effect::Notice(format!(
                    "waiting for {missing}: a new cluster forms once all of its nodes have reached each other"
                )));
            }
            if let Some(doomed) = self.doomed.take_if(|doomed| self.ticks - doomed.since >= DOOMED_TICKS) {
                if doomed.by_born && self.birth.is_dispensable() {
                    self.out.last.push(Effect::Discard);
                }
                self.out.last.push(Effect::Refused(doomed.reason));
            }
        }
        for number in 0..self.slots.len() {
            let Some(replica) = self.slots[number].replica.as_mut() else {
                self.tick_abdicating(ShardId(number as u32));
                continue;
            };
            replica.group.tick();
            // An idle shard costs no turn. (A handing-over that came to nothing ends in a tick, and lets writes go on.)
            if replica.group.has_turn() || replica.pending_writes() > 0 {
                self.mark(ShardId(number as u32));
            }
        }
        self.retry_waiting();
        self.retry_rounds();
        self.look_after_transfers();
        if self.ticks.is_multiple_of(DEADLINE_TICKS) {
            self.expire();
        }
        if self.ticks.is_multiple_of(SNAPSHOT_TICKS) {
            self.look_after_snapshots();
            self.follow_places();
            self.follow_layout();
        }
        if self.ticks.is_multiple_of(REPORT_TICKS) {
            self.record_commits();
            self.see_to_moves();
            self.send_reports();
            self.tell_the_silent();
            self.balance_leaders();
            self.ask_for_new_replicas();
            self.ask_about_groups();
            self.ask_to_be_known();
            self.raise_level();
            self.plan_layout();
            self.look_at_slow_disk();
        }
        if self.ticks.is_multiple_of(KEEP_TICKS) {
            self.keep_marks();
        }
        if !self.has_leaders_disk() && self.ticks.is_multiple_of(HAND_OVER_TICKS) {
            self.hand_over();
        }
        self.go_on_stopping();
    }

    pub(crate) fn say_hello(&mut self) {
        let hello = self.birth.hello();
        let me = self.id;
        for node in self.peers.all().into_iter().filter(|node| *node != me) {
            self.send(node, PeerMessage::Hello(hello.clone()));
        }
    }

    pub(crate) fn step_birth(&mut self) {
        let step = self.birth.step();
        self.take_step(step);
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Save(bytes) => self.out.first.push(Effect::SaveBirth(bytes)),
            Step::Born => self.be_born(),
        }
    }

    fn be_born(&mut self) {
        let layout = self.birth.layout();
        let shards = layout.shards.iter().map(|shard| (shard.shard, shard.born())).collect();
        self.slots = layout
            .shards
            .iter()
            .map(|_| Slot {
                replica: None,
                reported: None,
                own: None,
                damage: None,
                stands_still: false,
                abdicating: None,
                waiting: Vec::new(),
                dirty: false,
            })
            .collect();
        self.out.first.push(Effect::Open { born: Arc::clone(&layout), shards });
        self.layout = Some(layout);
        self.follow_members();
    }

    /// Whether some local shard is open, or there is none.
    pub(crate) fn is_any_open(&self) -> bool {
        self.serving || self.slots.iter().any(|slot| slot.replica.is_some())
    }

    /// For how long some local shard has been open, in microseconds.
    pub(crate) fn open_for_us(&self, now_us: u64) -> u64 {
        self.opened_us.map_or(0, |opened_us| now_us.saturating_sub(opened_us))
    }

    fn handle_opened(&mut self, shards: BTreeMap<ShardId, Opened>) {
        self.opened_us.get_or_insert(self.now.monotonic_us);
        for (shard, opened) in shards {
            let (me, mut configuration) = (opened.peer, opened.configuration);
            let own =
                Own::found(FoundReplica { peer: me, is_gone: false, generation: opened.base.generation });
            let own = *self.slots[shard.0 as usize].own.get_or_insert(own);
            if own.peer != me || own.is_gone {
                // Meanwhile it is to be made anew once more, or has come to its end.
                continue;
            }
            let restored = Restored {
                hard_state: opened.hard_state,
                base: opened.base,
                terms: opened.terms,
                last: opened.last,
                applied: opened.applied,
                tail: opened.tail,
            };
            if planted::is(Bug::EmptyConfigurationStands) && configuration.node_of(me).is_none() {
                configuration = Configuration::default();
            }
            let is_alone = configuration.deciding().count() <= 1;
            let is_first = configuration.voters.first().is_some_and(|first| first.peer == me);
            let mut group = Group::new(GroupConfig { shard, me, configuration }, &restored);
            if is_alone || (is_first && restored.hard_state.term == Term(0)) {
                group.campaign();
            }
            let (applied, revision, clock) = (opened.applied, opened.revision, opened.clock);
            let slot = &mut self.slots[shard.0 as usize];
            let mut replica = Replica::new(shard, group, applied, revision, clock);
            (replica.stats.keys_estimate, replica.stats.bytes_estimate) = opened.sizes;
            slot.replica = Some(replica);
            (slot.damage, slot.stands_still) = (None, false);
            self.has_begun(shard);
            self.mark(shard);
        }
        self.set_abstaining();
        self.serve_if_all_open();
    }

    pub(crate) fn serve_if_all_open(&mut self) {
        // What is begun meanwhile is open soon.
        let is_open = |slot: &Slot| slot.own.is_none_or(|own| own.is_gone) || slot.replica.is_some();
        let is_begun = |number| self.renewals.is_begun(ShardId(number));
        let all_open = self.renewals.is_log_open()
            && (0..)
                .zip(&self.slots)
                .all(|(number, slot)| is_open(slot) || slot.damage.is_some() || is_begun(number));
        if all_open && !self.serving {
            self.serving = true;
            self.out.last.push(Effect::Serving);
        }
    }

    fn handle_persisted(&mut self, number: u64) {
        self.begin_recorded(number);
        let proof = Synced::reported_by_driver();
        let released = self.commit.persisted(number);
        self.judge_disk(released.iter().map(|(shard, _)| *shard));
        for (shard, ticket) in released {
            let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else {
                self.release_abdicating(shard, ticket, &proof);
                continue;
            };
            let outgoing = replica.group.release(ticket, &proof);
            if let Some(base) = replica.group.take_installed() {
                self.install(shard, base);
            }
            self.send_raft(shard, outgoing);
            self.mark(shard);
        }
    }

    fn handle_applied(&mut self, indexes: &[(ShardId, Index)]) {
        let mut ready = Vec::new();
        for (shard, index) in indexes {
            if let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() {
                replica.applied_to(*index, &mut ready);
            }
        }
        self.emit_reads(ready);
    }

    pub(crate) fn step_raft(&mut self, from: NodeId, shard: ShardId, message: Bytes) {
        let Some((to, sender)) = ringfort_consensus::codec::ends(&message) else { return };
        self.notice_spoken_to(shard, to);
        let Some(slot) = self.slots.get_mut(shard.0 as usize) else { return };
        let Some(replica) = slot.replica.as_mut() else { return self.step_abdicating(shard, message) };
        replica.heard(sender, from);
        if let Some((index, _)) = ringfort_consensus::codec::snapshot(&message) {
            return self.step_snapshot(shard, message, index);
        }
        let is_behind =
            || replica.applying_bytes() > crate::turn::APPLYING_BYTES_MAX || self.commit.is_full();
        if self.commit.has_no_ticket_left() || (ringfort_consensus::codec::is_append(&message) && is_behind())
        {
            // As if it had been lost on the way: the leader sends it again, and meanwhile table and disk catch up.
            return;
        }
        if replica.group.step(message).is_err() {
            return;
        }
        let Some(known) = replica.group.lost() else { return self.mark(shard) };
        let last = replica.group.last();
        // It must not be forgotten with the process: at the next start nobody may be there who knows it.
        self.commit.add(shard, vec![Record::Lost(shard, known)], None, &mut replica.last_batch);
        let reason = format!(
            "the log of this node ends at index {last} of the shard, but the node has acknowledged everything up to {known}: its data \
             directory is older than it was, or has lost the end of its log; put it back as it was. {NEXT_STEP}"
        );
        self.handle_damaged(shard, reason, false);
    }

    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.out.send.entry(to).or_default().push(message);
    }

    /// This shard has something to say in this turn.
    pub(crate) fn mark(&mut self, shard: ShardId) {
        let slot = &mut self.slots[shard.0 as usize];
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(shard);
        }
    }

    fn with_replica(&mut self, shard: ShardId, act: impl FnOnce(&mut Replica)) {
        if let Some(replica) = self.slots.get_mut(shard.0 as usize).and_then(|slot| slot.replica.as_mut()) {
            act(replica);
            self.mark(shard);
        }
    }
}
