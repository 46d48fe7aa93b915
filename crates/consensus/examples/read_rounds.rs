//! What one round of ReadIndex costs a cluster of three nodes: the `raft` crate's own, group by group, beside
//! one probe a peer for all groups (`docs/decisions/0002-read-probes.md`).
//!
//! `cargo run --release -p ringfort-consensus --example read_rounds`

#![expect(clippy::disallowed_types, reason = "a benchmark reads the clock")]

use std::time::Instant;

use raft::eraftpb::{ConfState, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use ringfort_types::{
    Epoch, Incarnation, LogMark, NodeId, PeerFrame, PeerId, PeerMessage, ReadProbe, ReadProbeReply, ShardId,
    Term,
};

const GROUPS: u32 = 64;
const ROUNDS: u32 = 2_000;

/// Three replicas of one group; the first one leads.
fn group() -> [RawNode<MemStorage>; 3] {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut nodes = [1, 2, 3].map(|id| {
        let store = MemStorage::new_with_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
        let config = Config {
            id,
            election_tick: 20,
            heartbeat_tick: 4,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        RawNode::new(&config, store, &logger).expect("a valid configuration")
    });
    nodes[0].campaign().expect("it may");
    exchange(&mut nodes);
    assert_eq!(nodes[0].raft.state, StateRole::Leader);
    nodes
}

/// Delivers messages until nobody has any; each crosses the wire as bytes. The reads that became ready.
fn exchange(nodes: &mut [RawNode<MemStorage>; 3]) -> usize {
    let mut answered = 0;
    loop {
        let mut sent: Vec<Message> = Vec::new();
        for node in nodes.iter_mut().filter(|node| node.has_ready()) {
            let mut ready = node.ready();
            answered += ready.take_read_states().len();
            sent.extend(ready.take_messages());
            if let Some(state) = ready.hs() {
                node.mut_store().wl().set_hardstate(state.clone());
            }
            node.mut_store().wl().append(ready.entries()).expect("no gap");
            sent.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            sent.extend(light.take_messages());
            node.advance_apply();
        }
        if sent.is_empty() {
            return answered;
        }
        for message in sent {
            let to = message.to as usize - 1;
            nodes[to].step(message).expect("a known peer");
        }
    }
}

fn main() {
    let mut groups: Vec<_> = (0..GROUPS).map(|_| group()).collect();
    let began = Instant::now();
    let mut reads = 0;
    for round in 0..ROUNDS {
        for nodes in &mut groups {
            nodes[0].read_index(round.to_le_bytes().to_vec());
            reads += exchange(nodes);
        }
    }
    assert_eq!(reads as u32, ROUNDS * GROUPS);
    let crates = began.elapsed();

    let terms: Vec<(ShardId, PeerId, Term)> =
        (1..=GROUPS).map(|shard| (ShardId(shard), PeerId(1), Term(u64::from(shard)))).collect();
    let frame = |from, to, message| PeerFrame {
        from: NodeId(from),
        to: NodeId(to),
        incarnation: Incarnation(1),
        cluster: 1,
        epoch: Epoch(1),
        log: LogMark::NONE,
        messages: vec![message],
    };
    let began = Instant::now();
    let mut confirmed = 0;
    for round in 0..u64::from(ROUNDS) {
        for peer in 2..=3 {
            let probe = ReadProbe { boot: 1, round, shards: terms.clone() };
            let asked = frame(1, peer, PeerMessage::ReadProbe(probe)).encode();
            let asked = PeerFrame::decode(asked).expect("our own encoding");
            let PeerMessage::ReadProbe(probe) = &asked.messages[0] else { unreachable!("just sent") };
            let refused = probe
                .shards
                .iter()
                .filter(|(shard, _, term)| terms[shard.0 as usize - 1].2 != *term)
                .map(|(shard, ..)| *shard)
                .collect();
            let reply = ReadProbeReply { boot: probe.boot, round: probe.round, refused };
            let answered = frame(peer, 1, PeerMessage::ReadProbeReply(reply)).encode();
            let answered = PeerFrame::decode(answered).expect("our own encoding");
            let PeerMessage::ReadProbeReply(reply) = &answered.messages[0] else { unreachable!("just sent") };
            confirmed += terms.iter().filter(|(shard, ..)| !reply.refused.contains(shard)).count();
        }
    }
    assert_eq!(confirmed as u32, ROUNDS * GROUPS * 2);
    let probes = began.elapsed();
    let per = |time: std::time::Duration| time.as_nanos() as f64 / f64::from(ROUNDS * GROUPS) / 1_000.0;
    println!(
        "{GROUPS} groups, three nodes, all nodes' work, without encoding for the crate: {:.3} us a group and round \
         by the crate, {:.3} us by probes: {:.0} times less",
        per(crates),
        per(probes),
        per(crates) / per(probes)
    );
}
