//! The network: one connection each way between every two nodes.
//!
//! A connection keeps order and loses nothing until it breaks; then whatever is under way is lost, a suffix of
//! what was sent, and so is what is sent until the sender hears of it. That is the node's contract, and what a
//! TCP connection does. A connection is named by a number that rises whenever it breaks.

use std::fmt::Write;

use bytes::Bytes;
use ringfort_node::Event;
use ringfort_types::{NodeId, PeerFrame, PeerMessage};

use crate::host::Work;
use crate::random::Random;
use crate::world::{Next, World};

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
    arrived_us: u64,
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

    pub(crate) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }

    /// When a message that is sent now arrives: after those before it.
    fn arrival(&mut self, from: usize, to: usize, now_us: u64, random: &mut Random) -> u64 {
        let takes_us = random.between(50, self.message_us_max);
        let link = &mut self.links[from][to];
        link.arrived_us = (now_us + takes_us + link.slow_us).max(link.arrived_us + 1);
        link.arrived_us
    }

    pub(crate) fn heal(&mut self) {
        for link in self.links.iter_mut().flatten() {
            (link.blocked, link.slow_us) = (0, 0);
        }
    }
}

impl World {
    /// Puts a frame on its way, if there is a connection.
    pub(crate) fn send(&mut self, from: usize, to: usize, frame: &PeerFrame) {
        let link = *self.network.link(from, to);
        if !link.is_up {
            return;
        }
        let bytes = frame.encode();
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes) as u32;
        let what = show(&frame.messages);
        self.log(format_args!("n{} -> n{} {} bytes {hash:08x}:{what}", from + 1, to + 1, bytes.len()));
        let at = self.network.arrival(from, to, self.now_us, &mut self.random);
        self.schedule_at(at, Next::Arrival { from, to, connection: link.connection, bytes });
    }

    pub(crate) fn arrive(&mut self, from: usize, to: usize, connection: u64, bytes: Bytes) {
        if self.network.link(from, to).connection != connection {
            return;
        }
        let frame = PeerFrame::decode(bytes).expect("what one node encodes another decodes");
        self.work(to, Work::Hear(Event::Peer { link: from as u64, frame }));
    }

    /// The connection breaks. Its sender will hear of it, and try to make another.
    pub(crate) fn break_link(&mut self, from: usize, to: usize) {
        let link = self.network.link(from, to);
        link.connection += 1;
        let (connection, was_up) = (link.connection, link.is_up);
        link.is_up = false;
        let notice_us = self.random.between(100, NOTICE_US_MAX);
        let life = self.hosts[from].life;
        if was_up {
            let lost = Work::Hear(Event::PeerLost(node(to)));
            self.schedule(notice_us, Next::Work { host: from, life, work: lost });
        }
        self.schedule(notice_us + 1_000, Next::Connect { from, to, connection });
    }

    /// A process has begun: it has no connections yet.
    pub(crate) fn connect_all(&mut self, from: usize) {
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            let link = self.network.link(from, to);
            link.connection += 1;
            link.is_up = false;
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
        if link.connection != connection || link.is_up || self.hosts[from].process.is_none() {
            return;
        }
        if link.blocked > 0 || self.hosts[to].process.is_none() {
            let again_us = self.random.between(RETRY_US_MAX / 4, RETRY_US_MAX);
            self.schedule(again_us, Next::Connect { from, to, connection });
            return;
        }
        self.network.link(from, to).is_up = true;
        self.log(format_args!("n{} is connected to n{}", from + 1, to + 1));
        self.work(from, Work::Hear(Event::PeerUp(node(to))));
    }
}

/// A host's number as a node: its place in the list of addresses.
pub(crate) fn node(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

/// A frame's messages in a few words.
fn show(messages: &[PeerMessage]) -> String {
    let mut text = String::new();
    for message in messages {
        let shown = match message {
            PeerMessage::Raft { shard, .. } => write!(text, " raft of {shard},"),
            PeerMessage::Forward(forward) => {
                write!(text, " forward {} ({}),", forward.id, crate::clients::show(&forward.request))
            }
            PeerMessage::Answer { id, reply } => {
                write!(text, " answer {id} ({}),", crate::clients::show_reply(reply))
            }
            PeerMessage::Hello(_) => write!(text, " hello,"),
            PeerMessage::Refused { .. } => write!(text, " refused,"),
            PeerMessage::ReadProbe(probe) => write!(text, " probe {},", probe.round),
            PeerMessage::ReadProbeReply(reply) => write!(text, " probed {},", reply.round),
            PeerMessage::Report(_) => write!(text, " report,"),
        };
        shown.expect("a string takes everything");
    }
    text
}
