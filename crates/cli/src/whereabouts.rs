//! Where a key is: its slot, its shard, the replicas, and who leads. What `where` prints, the shell too.

use bytes::Bytes;
use ringfort_types::{ClusterState, Consistency, NodeId, Presence, Request, ShardState, Slot, slot_of};
use ringfort_view::{is_damaged, name, presence_of};
use serde_json::json;

use crate::cluster::called;
use crate::json::Object;
use crate::stop::Stop;

/// A key's place in the cluster, as one of its nodes knows it.
#[derive(Debug)]
pub(crate) struct Whereabouts<'a> {
    state: &'a ClusterState,
    key: &'a [u8],
    slot: Slot,
    shard: &'a ShardState,
}

impl<'a> Whereabouts<'a> {
    /// Refuses what can't be a key.
    pub(crate) fn validate(key: &[u8]) -> Result<(), Stop> {
        let key = Bytes::copy_from_slice(key);
        Ok(Request::Get { key, consistency: Consistency::Stale }.validate()?)
    }

    pub(crate) fn of(state: &'a ClusterState, key: &'a [u8]) -> Result<Whereabouts<'a>, Stop> {
        Whereabouts::validate(key)?;
        let slot = slot_of(key);
        let has_slot = |shard: &&ShardState| {
            shard.slots.iter().any(|(first, last)| (first.0..=last.0).contains(&slot.0))
        };
        let unknown =
            || Stop::unavailable(format!("no node says yet which shard has slot {}: try again", slot.0));
        let shard = state.shards.iter().find(has_slot).ok_or_else(unknown)?;
        Ok(Whereabouts { state, key, slot, shard })
    }

    /// Who leads, unless the asked node knows that whoever did is gone.
    fn leader(&self) -> Option<NodeId> {
        self.shard.leader.filter(|leader| presence_of(self.state, *leader) != Presence::Down)
    }

    pub(crate) fn text(&self) -> String {
        let replicas: Vec<String> =
            self.shard.replicas.iter().map(|(node, _)| name(self.state, *node)).collect();
        let leader = self.leader().map_or_else(|| "unknown".to_owned(), |leader| name(self.state, leader));
        format!(
            "slot {}, {}, replicas {}, leader {leader}",
            self.slot.0,
            called(self.shard.shard),
            replicas.join(" ")
        )
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        let replica = |node: NodeId| {
            json!({
                "node": node.0,
                "name": name(self.state, node),
                "state": presence_of(self.state, node).name(),
                "damaged": is_damaged(self.state, node, self.shard.shard),
            })
        };
        let replicas: Vec<_> = self.shard.replicas.iter().map(|(node, _)| replica(*node)).collect();
        Object::new()
            .bytes("key", self.key)
            .field("slot", self.slot.0)
            .field("shard", self.shard.shard.0)
            .field("leader", self.leader().map(|leader| leader.0))
            .field("leader_name", self.leader().map(|leader| name(self.state, leader)))
            .field("replicas", replicas)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeState, ReplicaReport, ShardId};

    use super::*;

    fn state(leader: Option<u64>, presence: Presence) -> ClusterState {
        let node =
            |id| NodeState { id: NodeId(id), name: format!("node{id}"), presence, ..NodeState::default() };
        let shard = |id, slots| ShardState {
            shard: ShardId(id),
            slots,
            leader: leader.map(NodeId),
            replicas: vec![(NodeId(2), ReplicaReport::default()), (NodeId(1), ReplicaReport::default())],
            ..ShardState::default()
        };
        ClusterState {
            nodes: vec![node(1), node(2)],
            shards: vec![
                shard(0, vec![]),
                shard(1, vec![(Slot(0), Slot(8_191))]),
                shard(2, vec![(Slot(8_192), Slot(16_383))]),
            ],
            ..ClusterState::default()
        }
    }

    fn text(state: &ClusterState, key: &[u8]) -> String {
        Whereabouts::of(state, key).expect("it is somewhere").text()
    }

    #[test]
    fn a_key_and_its_part_in_braces_are_where_their_slot_is() {
        let state = state(Some(1), Presence::Up);
        assert_eq!(text(&state, b"foo"), "slot 12182, shard 2, replicas node2 node1, leader node1");
        assert_eq!(text(&state, b"{user1000}name"), "slot 3443, shard 1, replicas node2 node1, leader node1");
        let json = Whereabouts::of(&state, b"\xff").expect("it is somewhere").json();
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!((&json["key_base64"], &json["leader_name"]), (&"/w==".into(), &"node1".into()));
        assert_eq!(Whereabouts::of(&state, b"").expect_err("no key").code, 2);
    }

    #[test]
    fn whoever_is_not_known_to_lead_does_not() {
        for state in [state(None, Presence::Up), state(Some(1), Presence::Down)] {
            assert!(text(&state, b"foo").ends_with("leader unknown"));
            let json = Whereabouts::of(&state, b"foo").expect("it is somewhere").json();
            let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert!(json["leader"].is_null() && json["leader_name"].is_null(), "{json}");
        }
    }
}
