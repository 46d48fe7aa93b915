//! The network: one connection each way between every two nodes.
//!
//! A connection keeps order and loses nothing until it breaks; then whatever is under way is lost, a suffix of
//! what was sent, and so is what is sent until the sender hears of it. That is what a TCP connection does. A
//! connection is named by a number that rises whenever it breaks.
//!
//! The node must hold against worse, though: frames that get lost one by one, that overtake each other, that come
//! twice, or late from an earlier connection, even to an earlier process. A link can be made to do each of these for a
//! while.

use ringfort_consensus::inspect::inspect;
use ringfort_node::Event;
use ringfort_types::{Answer, NodeId, PeerFrame, PeerMessage, RaftMessage, Refusal};

use crate::host::Work;
use crate::random::Random;
use crate::world::{Arrival, Next, World};

/// Until a sender hears that its connection is gone, at most, in microseconds.
const NOTICE_US_MAX: u64 = 60_000;
/// Between two tries to connect, at most, in microseconds.
const RETRY_US_MAX: u64 = 200_000;

/// From one node to another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    pub(crate) connection: u64,
    pub(crate) is_up: bool,
    /// How many faults keep it from being made.
    pub(crate) blocked: u32,
    /// What a message takes on top, in microseconds.
    pub(crate) slow_us: u64,
    /// So many of a hundred frames get lost.
    pub(crate) loses_percent: u64,
    /// So many of a hundred frames come twice.
    pub(crate) repeats_percent: u64,
    /// Frames take up to so much longer, each by itself, and so overtake each other; in microseconds.
    pub(crate) jitter_us: u64,
    arrived_us: u64,
    /// When its sender hears, or heard, of the last loss.
    pub(crate) lost_us: u64,
}

impl Link {
    pub(crate) fn mend(&mut self) {
        (self.slow_us, self.loses_percent, self.repeats_percent, self.jitter_us) = (0, 0, 0, 0);
    }
}

/// All links, by sender and receiver.
#[derive(Debug)]
pub(crate) struct Network {
    links: Vec<Vec<Link>>,
    message_us_max: u64,
}

impl Network {
    pub(crate) fn new(nodes: usize, message_us_max: u64) -> Network {
        Network { links: vec![vec![Link::default(); nodes]; nodes], message_us_max }
    }

    /// There is one more node.
    pub(crate) fn grow(&mut self) {
        let nodes = self.links.len() + 1;
        self.links.push(Vec::new());
        for links in &mut self.links {
            links.resize(nodes, Link::default());
        }
    }

    pub(crate) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }

    /// When a message that is sent now arrives: after those before it.
    fn arrival(&mut self, from: usize, to: usize, now_us: u64, random: &mut Random) -> u64 {
        let takes_us = random.between(50, self.message_us_max);
        let link = &mut self.links[from][to];
        if link.jitter_us > 0 {
            return now_us + takes_us + random.below(link.jitter_us);
        }
        link.arrived_us = (now_us + takes_us + link.slow_us).max(link.arrived_us + 1);
        link.arrived_us
    }

    pub(crate) fn heal(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.blocked = 0;
            link.mend();
        }
    }
}

impl World {
    /// Puts a frame on its way, if there is a connection.
    pub(crate) fn send(&mut self, from: usize, to: usize, mut frame: PeerFrame) {
        // A member may not have begun yet.
        if to >= self.hosts.len() || !self.network.link(from, to).is_up {
            return;
        }
        let link = *self.network.link(from, to);
        self.put_on_its_way(from, to, &frame, false);
        if link.repeats_percent > 0 && self.random.chance(link.repeats_percent) {
            frame.messages.retain(|message| !matches!(message, PeerMessage::Forward(_)));
            self.put_on_its_way(from, to, &frame, true);
        }
    }

    fn put_on_its_way(&mut self, from: usize, to: usize, frame: &PeerFrame, again: bool) {
        let link = *self.network.link(from, to);
        let bytes = frame.encode();
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes) as u32;
        let lost = link.loses_percent > 0 && self.random.chance(link.loses_percent);
        let fate = match (lost, again) {
            (true, _) => " (lost)",
            (false, true) => " (again)",
            (false, false) => "",
        };
        self.log(format_args!("n{} -> n{} {} bytes {hash:08x}{fate}", from + 1, to + 1, bytes.len()));
        if self.trace.is_kept() {
            for message in &frame.messages {
                self.trace.remark(format_args!("{}", show(message)));
            }
        }
        if lost {
            return;
        }
        let at = self.network.arrival(from, to, self.now_us, &mut self.random);
        let (connection, life) = (link.connection, self.hosts[to].life);
        let is_stray = link.jitter_us > 0;
        let arrival = Arrival { from, to, connection, life, is_stray, bytes };
        self.schedule_at(at, Next::Arrival(Box::new(arrival)));
    }

    pub(crate) fn arrive(&mut self, arrival: Arrival) {
        let Arrival { from, to, connection, life, is_stray, bytes } = arrival;
        let is_connected = self.network.link(from, to).connection == connection;
        let is_of_this_life = is_connected && self.hosts[to].life == life;
        if !(is_of_this_life || is_stray) || self.hosts[to].process.is_none() {
            return;
        }
        let frame = PeerFrame::decode(bytes).expect("what one node encodes another decodes");
        self.work(to, Work::Hear(Event::Peer { link: from as u64, frame }));
    }

    /// The connection breaks. Its sender will hear of it, and try to make another: never before it has heard.
    pub(crate) fn break_link(&mut self, from: usize, to: usize) {
        let heard_us = self.now_us + self.random.between(100, NOTICE_US_MAX);
        let life = self.hosts[from].life;
        let link = self.network.link(from, to);
        let was_up = std::mem::take(&mut link.is_up);
        link.connection += 1;
        link.lost_us = link.lost_us.max(heard_us);
        let (connection, lost_us) = (link.connection, link.lost_us);
        if was_up {
            let lost = Work::Hear(Event::PeerLost(node(to)));
            self.schedule_at(lost_us, Next::Work { host: from, life, work: lost });
        }
        self.schedule_at(lost_us + 1_000, Next::Connect { from, to, connection });
    }

    /// A process has begun: it has no connections yet.
    pub(crate) fn connect_all(&mut self, from: usize) {
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            let link = self.network.link(from, to);
            link.connection += 1;
            (link.is_up, link.lost_us) = (false, 0);
            let connection = link.connection;
            self.schedule(1_000, Next::Connect { from, to, connection });
        }
    }

    /// A process has ended: connections to it break, and nobody tries to make those from it.
    pub(crate) fn disconnect_all(&mut self, host: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let link = self.network.link(host, other);
            link.connection += 1;
            link.is_up = false;
            self.break_link(other, host);
        }
    }

    pub(crate) fn connect(&mut self, from: usize, to: usize, connection: u64) {
        let link = *self.network.link(from, to);
        if link.connection != connection || link.is_up || !self.wants_to_connect(from, to) {
            return;
        }
        if link.blocked > 0 || self.hosts[to].process.is_none() || !self.finds(from, to) {
            let again_us = self.random.between(RETRY_US_MAX / 4, RETRY_US_MAX);
            self.schedule(again_us, Next::Connect { from, to, connection });
            return;
        }
        assert!(
            self.now_us > link.lost_us,
            "a node is told that a peer is up before it has heard that it was lost"
        );
        self.network.link(from, to).is_up = true;
        self.log(format_args!("n{} is connected to n{}", from + 1, to + 1));
        self.work(from, Work::Hear(Event::PeerUp(node(to))));
    }
}

/// A host's number as a node: its place in the list of addresses.
pub(crate) fn node(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

/// The host of a node.
pub(crate) fn host_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

/// A message in a few words.
fn show(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft(RaftMessage { shard, message }) => match inspect(message) {
            Ok(seen) => format!("shard {shard}: {seen}"),
            Err(malformed) => format!("shard {shard}: {malformed}"),
        },
        PeerMessage::Forward(forward) => {
            format!("forward {} ({})", forward.id, crate::requests::show(&forward.call.request))
        }
        PeerMessage::Answer(Answer { id, reply }) => {
            format!("answer {id} ({})", crate::requests::show_reply(reply))
        }
        PeerMessage::Hello(hello) => format!("hello from {}, {:?}", hello.name, hello.stage),
        PeerMessage::Unknown(unknown) => format!("unknown message of kind {}", unknown.kind),
        PeerMessage::Refused(Refusal { reason, .. }) => format!("refused: {reason}"),
        PeerMessage::ReadProbe(probe) => format!("read round {} for {:?}", probe.round, probe.shards),
        PeerMessage::ReadProbeReply(reply) => {
            format!("read round {} confirmed but for {:?}", reply.round, reply.refused)
        }
        PeerMessage::ReadIndex(question) => {
            format!("shard {}: question {:#x} for an index", question.shard, question.number)
        }
        PeerMessage::ReadIndexReply(reply) => {
            format!("shard {}: answer to question {:#x}: {:?}", reply.shard, reply.number, reply.told)
        }
        PeerMessage::LogRecall(recall) => format!("your log was at batch {}", recall.synced),
        PeerMessage::LayoutWanted(_) => "layout wanted".to_owned(),
        PeerMessage::GroupWanted(wanted) => format!("who belongs to shard {}?", wanted.shard),
        PeerMessage::GroupTold(told) => {
            format!("shard {} has {:?} up to {}", told.shard, told.configuration, told.through)
        }
        PeerMessage::LayoutSent(sent) => format!("layout of {} bytes", sent.bytes.len()),
        PeerMessage::Report(report) => {
            format!("report {} of {} replicas", report.number, report.replicas.len())
        }
        PeerMessage::ReportChanges(changes) => {
            let (base, replicas) = (changes.base, changes.replicas.len() + changes.gone.len());
            format!("report {}: since {base}, {replicas} replicas have changed", changes.number)
        }
        PeerMessage::ReportReply(reply) => format!("report {} is here", reply.number),
        PeerMessage::SnapshotChunk(chunk) => {
            let (number, last) = (chunk.number, if chunk.is_last { ", the last" } else { "" });
            format!("shard {}: chunk {number} of snapshot {:#x}{last}", chunk.shard, chunk.transfer)
        }
        PeerMessage::SnapshotReply(reply) => {
            let (stored, verdict) = (reply.stored, reply.verdict);
            format!(
                "shard {}: {stored} chunks of snapshot {:#x} stored, {verdict:?}",
                reply.shard, reply.transfer
            )
        }
    }
}
