//! The other nodes: who is connected, what they say, and whom this node won't listen to.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfort_ring::Layout;
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Answer, BirthStage, DiskState, Hello, Incarnation, LayoutWanted, NodeId, PeerFrame, PeerMessage,
    RaftMessage, Refusal, RefusalKind, ShardId,
};

use crate::Effect;
use crate::marks::speaks_for_replicas;
use crate::node::{Doomed, Node};
use crate::reports::Heard;
use crate::skipped::Skipped;

/// Who has been connected for so long and has not reported does not speak to this node, or can't.
const SILENT_US: u64 = 2_000_000;
/// A report is due every second.
const REPORT_LATE_US: u64 = 2_500_000;

/// What is known of one node.
#[derive(Debug, Default)]
struct Peer {
    /// Since when this node has known it.
    since_us: u64,
    up: bool,
    /// Since when it has been connected, if it is.
    up_since_us: u64,
    report: Heard,
    /// Whether it was given since the connection was made: else it may be of an earlier life.
    report_is_fresh: bool,
    reported_at_us: Option<u64>,
    /// The last of this node's own reports that it is known to have; 0 if none is.
    has_report: u64,
    /// Since the connection was made.
    skipped: Skipped,
}

/// The cluster's members, this node among them; before birth the nodes of the list.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
}

impl Peers {
    /// These are the members from now on. Those that are none any more.
    pub(crate) fn follow(&mut self, members: impl IntoIterator<Item = NodeId>, now_us: u64) -> Vec<NodeId> {
        let mut before = std::mem::take(&mut self.peers);
        let new = || Peer { since_us: now_us, ..Peer::default() };
        self.peers = members.into_iter().map(|id| (id, before.remove(&id).unwrap_or_else(new))).collect();
        before.into_keys().collect()
    }

    pub(crate) fn all(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    /// Those that are connected.
    pub(crate) fn all_up(&self) -> Vec<NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.up).map(|(node, _)| *node).collect()
    }

    /// For how long this node has known it.
    pub(crate) fn known_for_us(&self, node: NodeId, now_us: u64) -> u64 {
        self.get(node).map_or(0, |peer| now_us.saturating_sub(peer.since_us))
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.up)
    }

    /// A node's last report and when it came.
    pub(crate) fn report(&self, node: NodeId) -> Option<(&Heard, u64)> {
        let peer = self.get(node)?;
        Some((&peer.report, peer.reported_at_us?))
    }

    /// It has just reported: this is what changes about what is known of it.
    pub(crate) fn hear_report(&mut self, node: NodeId, now_us: u64, change: impl FnOnce(&mut Heard)) {
        if let Some(peer) = self.get_mut(node) {
            change(&mut peer.report);
            (peer.report_is_fresh, peer.reported_at_us) = (true, Some(now_us));
        }
    }

    /// The last of this node's own reports that it is known to have; 0 if none is.
    pub(crate) fn has_report(&self, node: NodeId) -> u64 {
        self.get(node).map_or(0, |peer| peer.has_report)
    }

    pub(crate) fn set_has_report(&mut self, node: NodeId, number: u64) {
        if let Some(peer) = self.get_mut(node) {
            peer.has_report = number;
        }
    }

    /// Whether it is connected and has reported in time.
    pub(crate) fn is_lively(&self, node: NodeId, now_us: u64) -> bool {
        self.is_up(node) && self.report(node).is_some_and(|(_, at_us)| now_us - at_us <= REPORT_LATE_US)
    }

    /// Whether it has been connected for a while, and does not report.
    pub(crate) fn is_silent(&self, node: NodeId, now_us: u64) -> bool {
        let is_late = |peer: &Peer| peer.up && now_us.saturating_sub(peer.up_since_us) >= SILENT_US;
        self.get(node).is_some_and(is_late) && !self.is_lively(node, now_us)
    }

    /// Whether it has reported since it was connected.
    pub(crate) fn is_heard(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.up && peer.report_is_fresh)
    }

    /// Whether it has reported, since it was connected, that its replica of this shard is open.
    pub(crate) fn has_open(&self, node: NodeId, shard: ShardId) -> bool {
        self.get(node)
            .is_some_and(|peer| peer.up && peer.report_is_fresh && peer.report.replicas.contains_key(&shard))
    }

    /// Whether it has reported that its replica of this shard takes no part, since its table is damaged.
    pub(crate) fn is_damaged(&self, node: NodeId, shard: ShardId) -> bool {
        self.get(node).is_some_and(|peer| peer.report.damaged.contains(&shard))
    }

    /// Whether it has not reported that its disk takes nothing.
    pub(crate) fn can_write(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.report.disk == DiskState::Working)
    }

    /// Whether it has reported that its disk takes writes, long after the others' do.
    pub(crate) fn is_slow(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.report.is_slow)
    }

    /// Whether it could lead this shard at once, as far as it has reported: it lives, its replica is open, its disk takes writes.
    pub(crate) fn can_lead(&self, node: NodeId, shard: ShardId, now_us: u64) -> bool {
        self.is_lively(node, now_us) && self.has_open(node, shard) && self.can_write(node)
    }

    /// Whether it could decide in this shard's group, as far as it has reported. Who is too slow to lead is not too slow for that.
    pub(crate) fn can_decide(&self, node: NodeId, shard: ShardId, now_us: u64) -> bool {
        let can_write = self.can_write(node) || self.is_slow(node);
        self.is_lively(node, now_us) && self.has_open(node, shard) && can_write
    }

    /// What it has said that is not known here.
    pub(crate) fn skipped(&mut self, node: NodeId) -> Option<&mut Skipped> {
        Some(&mut self.get_mut(node)?.skipped)
    }

    fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    fn get_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.get_mut(&node)
    }
}

/// Ticks until the others are asked again for a layout with somebody in it who is not known.
const ASK_ALL_TICKS: u64 = 500 / TICK_MS;

impl Node {
    /// The layout has other members, perhaps.
    pub(crate) fn follow_members(&mut self) {
        let Some(layout) = self.layout.clone() else { return };
        for gone in self.peers.follow(layout.members.iter().map(|member| member.id), self.now.monotonic_us) {
            self.forget_peer(gone);
            self.marks.forget(gone);
        }
    }

    /// Whether this node belongs to the cluster, and with this data directory.
    fn knows(&self, node: NodeId, incarnation: Incarnation) -> bool {
        match &self.layout {
            Some(layout) => match layout.member(node) {
                Some(member) => member.incarnation == incarnation || planted::is(Bug::WipedNodeVotes),
                None => {
                    (node < layout.next_node && planted::is(Bug::RemovedNodeSpeaks))
                        || (self.birth.knows(node, incarnation) && planted::is(Bug::GoneForgotten))
                }
            },
            None => self.birth.knows(node, incarnation),
        }
    }

    pub(crate) fn handle_peer_up(&mut self, node: NodeId) {
        let now_us = self.now.monotonic_us;
        if let Some(peer) = self.peers.get_mut(node) {
            peer.up_since_us = now_us;
            (peer.up, peer.report_is_fresh, peer.has_report) = (true, false, 0);
            peer.skipped = Skipped::default();
            let hello = self.birth.hello();
            self.send(node, PeerMessage::Hello(hello));
            // Whoever has just started can pass requests on before it has opened what it has itself.
            self.send_reports_to(&[node]);
            self.resend_chunks(node);
        }
    }

    pub(crate) fn handle_peer_lost(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.up = false;
        self.marks.lost(node);
        self.forget_peer(node);
    }

    /// What was on its way to this node will not be answered.
    fn forget_peer(&mut self, node: NodeId) {
        self.handle_lost_forwards(node);
        for slot in &mut self.slots {
            if let Some(replica) = slot.replica.as_mut()
                && let Some(peer) = replica.peer_on(node)
            {
                replica.group.report_unreachable(peer);
            }
        }
    }

    pub(crate) fn handle_frame(&mut self, link: u64, frame: PeerFrame) {
        let known = self.knows(frame.from, frame.incarnation);
        let mine = frame.to == self.id && frame.from != self.id;
        let same_cluster = frame.cluster == self.cluster() && frame.cluster != 0;
        let speaks = mine && known && same_cluster;
        if frame.cluster != 0 && !same_cluster && self.birth.is_upstart() {
            self.give_way_to(&frame);
        }
        let mut refused = false;
        let mut is_heard = false;
        if speaks {
            self.notice_epoch(frame.from, frame.epoch);
            is_heard = self.hear_mark(link, frame.from, frame.log);
        }
        for message in frame.messages {
            match message {
                PeerMessage::Hello(hello) if speaks && hello.stage == BirthStage::Born => {
                    let goes = self.goes_with(link, frame.from, &hello);
                    refused |= !goes;
                    if goes && is_heard {
                        refused |= !self.hear_address(link, frame.from, &hello);
                    }
                }
                PeerMessage::Hello(hello) if !self.birth.listens_to(frame.incarnation, &hello) => {}
                PeerMessage::Hello(hello) => refused |= !self.handle_hello(link, frame.incarnation, &hello),
                PeerMessage::Refused(refusal) => self.handle_refused(refusal, frame.cluster != 0),
                // Whoever was away for long may know none of those who are members now.
                PeerMessage::LayoutSent(sent) if mine && same_cluster && !known => {
                    self.handle_layout_sent(frame.from, sent);
                }
                // Before birth, and from those who are not known, nothing else counts.
                _ if !speaks || refused => {}
                // Nor what a process says of replicas that may have lost something.
                message if !is_heard && speaks_for_replicas(&message) => {}
                message => self.handle_message(frame.from, message),
            }
        }
        let known = known || self.knows(frame.from, frame.incarnation);
        if !self.birth.is_born() || known || refused {
            return;
        }
        let is_later = |layout: &Arc<Layout>| frame.epoch > layout.epoch || frame.from >= layout.next_node;
        if same_cluster && self.layout.as_ref().is_some_and(is_later) {
            // It may have joined since.
            self.ask_all_for_layout();
        } else if frame.cluster != 0 || self.birth.has_joined() {
            let refusal = self.why_unknown(frame.from, same_cluster, frame.cluster != 0);
            self.out.first.push(Effect::Refuse { link, with: refusal.into() });
        }
    }

    /// Now and then: tells the layout to those who are connected and say nothing. They may go by one that is so old that nobody in it is
    /// there any more: then they are connected with nobody, and could never ask.
    pub(crate) fn tell_the_silent(&mut self) {
        if !self.has_layout_moved() {
            return;
        }
        for node in
            self.peers.all_up().into_iter().filter(|node| !self.peers.is_heard(*node)).collect::<Vec<_>>()
        {
            self.handle_layout_wanted(node);
        }
    }

    fn ask_all_for_layout(&mut self) {
        if self.all_asked.is_some_and(|tick| self.ticks - tick < ASK_ALL_TICKS) {
            return;
        }
        self.all_asked = Some(self.ticks);
        for node in self.peers.all_up() {
            self.send(node, LayoutWanted.into());
        }
    }

    /// A member of another cluster looks for one of its own here, where this node has made a cluster of its own out of nothing. It may be that
    /// member, whose data directory is lost: then its answers are wrong that there is no such key.
    fn give_way_to(&mut self, frame: &PeerFrame) {
        let is_born = |hello: &&Hello| hello.stage == BirthStage::Born;
        let mut hellos = frame.messages.iter().filter_map(|message| match message {
            PeerMessage::Hello(hello) => Some(hello),
            _ => None,
        });
        let Some(hello) = hellos.find(is_born) else { return };
        let (me, address) = (self.called(self.id), self.birth.address());
        self.refuse_to_go_on(format!(
            "{} at {} looks for a member of its cluster at {address}, where this node has just made a cluster of its own in an empty data \
             directory. If it is to be a cluster of its own, give it another address, and another directory. If it was that member, and its \
             directory is lost, it gets all that it had from the others, in an empty directory DIR: ringfort start --id {me} --addr {address} \
             --data-dir DIR --join {} --replace",
            hello.name, hello.address, hello.address
        ));
    }

    /// Why a node is not listened to.
    fn why_unknown(&self, node: NodeId, same_cluster: bool, has_cluster: bool) -> Refusal {
        let stranger = |reason| Refusal { kind: RefusalKind::Stranger, reason };
        let Some(layout) = self.layout.as_ref().filter(|_| same_cluster) else {
            let (me, address) = (self.called(self.id), self.birth.address());
            let whose = if has_cluster {
                format!(
                    "if {me} at {address} has another data directory than before, see to that node; if this one is left of a cluster that was \
                     lost, "
                )
            } else {
                String::new()
            };
            return stranger(format!(
                "it is not of the cluster that {me} belongs to: {whose}start it with --join {address}, on an empty data directory"
            ));
        };
        match layout.member(node) {
            Some(member) => stranger(format!(
                "{} has another data directory than the one it became a member with",
                member.name
            )),
            None if node < layout.next_node => {
                let reason = "this node has been removed from its cluster".to_owned();
                Refusal { kind: RefusalKind::Removed, reason }
            }
            None => stranger(format!("no member of this cluster has the number {node}")),
        }
    }

    /// Why a node that is not born is refused which has the address that a member has moved to: the lists from before say nothing of that.
    fn is_of_moved(&self, incarnation: Incarnation, hello: &Hello) -> Option<String> {
        let members = &self.layout.as_ref()?.members;
        let member = members.iter().find(|member| member.address == hello.address)?;
        let is_another = member.incarnation != incarnation && !self.birth.lists(&hello.address);
        is_another.then(|| self.birth.another_directory(&member.name, &member.address))
    }

    /// Why a node that is not born is refused that has found a cluster which was born without it: no list helps it any more.
    fn is_late(&self, hello: &Hello) -> Option<String> {
        let is_late = self.birth.is_born() && !self.birth.lists(&hello.address);
        is_late.then(|| {
            format!(
                "{0} is none of this cluster's nodes, and the cluster is there already, so --peers can't add it: start it with --join {1} in \
                 place of --peers",
                hello.address,
                self.birth.address()
            )
        })
    }

    fn handle_hello(&mut self, link: u64, incarnation: Incarnation, hello: &Hello) -> bool {
        let heard = self
            .is_of_moved(incarnation, hello)
            .or_else(|| self.is_late(hello))
            .map_or_else(|| self.birth.handle_hello(incarnation, hello), Err);
        match heard {
            Ok(node) => {
                self.step_birth();
                if self.birth.is_born() && hello.stage < ringfort_types::BirthStage::Born {
                    // It may have missed that the cluster is born.
                    let mine = self.birth.hello();
                    self.send(node, PeerMessage::Hello(mine));
                }
                true
            }
            Err(reason) => {
                if self.birth.awaits(&hello.address) {
                    // Neither can be born without the other.
                    self.doom(reason.clone(), false);
                }
                // If it is of a cluster, and this node is about to end, it says that then.
                let notice = format!("refused {}: {reason}", hello.address);
                let is_told_then = self.doomed.is_some() && hello.stage == BirthStage::Born;
                if !is_told_then && self.said.is_news(&notice, self.ticks) {
                    self.out.last.push(Effect::Notice(notice));
                }
                let refusal = Refusal { kind: RefusalKind::Stranger, reason };
                self.out.first.push(Effect::Refuse { link, with: refusal.into() });
                false
            }
        }
    }

    /// A node that is not born yet can't go on if another one won't have it. A born one goes on with those who
    /// will: who refuses it may be the stranger.
    fn handle_refused(&mut self, Refusal { kind, reason }: Refusal, by_born: bool) {
        if !self.birth.is_born() {
            return self.doom(reason, by_born);
        }
        let effect = match kind {
            RefusalKind::Stranger if self.said.is_news(&reason, self.ticks) => {
                Effect::Notice(format!("another node refuses this one: {reason}"))
            }
            RefusalKind::Stranger => return,
            RefusalKind::Removed => Effect::Removed,
            RefusalKind::SecondProcess => Effect::Refused(reason),
        };
        self.out.last.push(effect);
    }

    fn doom(&mut self, reason: String, by_born: bool) {
        let since = self.ticks;
        self.doomed.get_or_insert(Doomed { since, reason, by_born });
    }

    fn handle_message(&mut self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Raft(RaftMessage { shard, message }) => self.step_raft(from, shard, message),
            PeerMessage::Forward(forward) => self.handle_forward(from, forward),
            PeerMessage::Answer(Answer { id, reply }) => self.handle_answer(from, id, reply),
            PeerMessage::ReadProbe(probe) => self.handle_probe(from, &probe),
            PeerMessage::ReadProbeReply(reply) => self.handle_probe_reply(from, &reply),
            PeerMessage::ReadIndex(question) => self.handle_read_index(from, question),
            PeerMessage::ReadIndexReply(reply) => self.handle_read_index_reply(from, &reply),
            PeerMessage::Report(report) => self.handle_report(from, report),
            PeerMessage::ReportChanges(changes) => self.handle_report_changes(from, changes),
            PeerMessage::ReportReply(reply) => self.handle_report_reply(from, reply),
            PeerMessage::SnapshotChunk(chunk) => self.handle_snapshot_chunk(from, chunk),
            PeerMessage::SnapshotReply(reply) => self.handle_snapshot_reply(from, reply),
            PeerMessage::LayoutWanted(LayoutWanted) => self.handle_layout_wanted(from),
            PeerMessage::LayoutSent(sent) => self.handle_layout_sent(from, sent),
            PeerMessage::GroupWanted(wanted) => self.handle_group_wanted(from, wanted),
            PeerMessage::GroupTold(told) => self.handle_group_told(told),
            PeerMessage::LogRecall(recall) => self.handle_log_recall(from, recall),
            PeerMessage::Unknown(unknown) => self.handle_unknown(from, &unknown),
            PeerMessage::Hello(_) | PeerMessage::Refused { .. } => unreachable!("handled before"),
        }
    }
}
