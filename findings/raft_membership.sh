#!/usr/bin/env bash
# raft 0.7.0 (crates.io, raft-rs).
#
# Usual guess: the crate is a port of etcd's raft, so it guards changes of membership as that does: who is no voter does not stand for
#   election even if told to, a leader that is demoted steps down, and a change that can't be made now is refused with an error.
# Seen:
#     a learner told to campaign     asks the voters for their votes, and with them leads as a learner
#     a leader demoted to learner    goes on leading, and an entry that it is given is committed by the others
#     a second change while one is not applied   `propose_conf_change` says Ok, and an empty normal entry is appended
# Why it matters: a library user who calls `campaign` for a new replica, or waits for "the leader that left", gets a leader outside of
#   its own configuration; and one who takes Ok for "proposed" waits for a change that is in no log. (etcd-io/raft asks
#   `promotable()` first, and has `StepDownOnRemoval`.)
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/crate/src"
cat >"$tmp/crate/Cargo.toml" <<'TOML'
[package]
name = "membership"
version = "0.0.0"
edition = "2024"
[dependencies]
raft = { version = "=0.7.0", default-features = false, features = ["protobuf-codec"] }
slog = "=2.7.0"
protobuf = "=2.28.0"
[profile.dev]
debug = 0
TOML
cat >"$tmp/crate/src/main.rs" <<'RS'
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, EntryType, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

/// Peer 1 to 3, of whom 3 is a learner; entries are applied unless `applies` is false.
struct Group {
    nodes: Vec<RawNode<MemStorage>>,
    committed: Vec<(EntryType, Vec<u8>)>,
    applies: bool,
}

impl Group {
    fn new(voters: Vec<u64>, learners: Vec<u64>) -> Group {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            let state = ConfState { voters: voters.clone(), learners: learners.clone(), ..ConfState::default() };
            let config = Config { id, election_tick: 10, heartbeat_tick: 3, ..Config::default() };
            RawNode::new(&config, MemStorage::new_with_conf_state(state), &logger).expect("a good configuration")
        };
        Group { nodes: (1..=3).map(node).collect(), committed: Vec::new(), applies: true }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        while let Some(at) = self.nodes.iter().position(|node| node.has_ready()) {
            let (mut messages, mut entries) = (Vec::new(), Vec::new());
            let node = &mut self.nodes[at];
            let mut ready = node.ready();
            messages.extend(ready.take_messages());
            if let Some(state) = ready.hs() {
                node.mut_store().wl().set_hardstate(state.clone());
            }
            node.mut_store().wl().append(ready.entries()).expect("it goes on from the log");
            messages.extend(ready.take_persisted_messages());
            entries.extend(ready.take_committed_entries());
            let mut light = node.advance(ready);
            messages.extend(light.take_messages());
            entries.extend(light.take_committed_entries());
            for entry in entries {
                if at == 0 {
                    self.committed.push((entry.get_entry_type(), entry.data.to_vec()));
                }
                if self.applies && entry.get_entry_type() == EntryType::EntryConfChange {
                    let mut change = ConfChange::default();
                    change.merge_from_bytes(&entry.data).expect("it was encoded so");
                    let state = self.nodes[at].apply_conf_change(&change).expect("it follows");
                    self.nodes[at].mut_store().wl().set_conf_state(state);
                }
            }
            if self.applies {
                self.nodes[at].advance_apply();
            }
            for message in messages {
                self.deliver(message);
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        // What a node refuses has no effect.
        let _ = self.nodes[message.to as usize - 1].step(message);
    }
}

fn change(kind: ConfChangeType, peer: u64) -> ConfChange {
    ConfChange { change_type: kind, node_id: peer, ..ConfChange::default() }
}

fn learner() {
    let mut group = Group::new(vec![1, 2], vec![3]);
    group.nodes[2].campaign().expect("nothing is refused");
    group.settle();
    let leads = group.nodes[2].raft.state == StateRole::Leader;
    println!("a learner that was told to campaign {}", if leads { "leads" } else { "does not lead" });
}

fn demoted() {
    let mut group = Group::new(vec![1, 2, 3], vec![]);
    group.nodes[0].campaign().expect("a voter");
    group.settle();
    group.nodes[0].propose_conf_change(vec![], change(ConfChangeType::AddLearnerNode, 1)).expect("it leads");
    group.settle();
    let node = &group.nodes[0].raft;
    let is_voter = node.prs().conf().voters().contains(1);
    let leads = node.state == StateRole::Leader;
    group.nodes[0].propose(vec![], b"after".to_vec()).expect("it leads");
    group.settle();
    let done = group.committed.iter().any(|(_, data)| data == b"after");
    println!("a leader that was demoted: voter {is_voter}, leads {leads}, commits {done}");
}

fn refused() {
    let mut group = Group::new(vec![1, 2], vec![]);
    group.nodes[0].campaign().expect("a voter");
    group.settle();
    group.applies = false;
    for peer in [3, 4] {
        let said = group.nodes[0].propose_conf_change(vec![], change(ConfChangeType::AddLearnerNode, peer));
        print!("{} ", if said.is_ok() { "Ok" } else { "refused" });
    }
    group.settle();
    let kinds: Vec<_> = group.committed.iter().rev().take(2).rev().map(|(kind, data)| (*kind, !data.is_empty())).collect();
    println!("for two changes at once; entries with data: {kinds:?}");
}

fn main() {
    learner();
    demoted();
    refused();
}
RS
(cd "$tmp/crate" && CARGO_TARGET_DIR="$tmp/target" cargo run -q -j1) | tee "$tmp/seen"

diff - "$tmp/seen" <<'EOT' || { echo "The behaviour has changed." >&2; exit 1; }
a learner that was told to campaign leads
a leader that was demoted: voter false, leads true, commits true
Ok Ok for two changes at once; entries with data: [(EntryConfChange, true), (EntryNormal, false)]
EOT
echo "As described."
