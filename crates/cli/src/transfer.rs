//! Moving a leadership: what `cluster transfer` does, the shell too.

use ringfort_client::Client;
use ringfort_types::limits::TRANSFER_HOLD_MS;
use ringfort_types::{ClusterState, NodeId, ShardId, Term};
use ringfort_view::name;

use crate::cluster::{called, find_node};
use crate::json::Object;
use crate::stop::Stop;

/// A node leads a shard, since it was asked for or before.
#[derive(Debug)]
pub(crate) struct Transferred {
    shard: ShardId,
    node: NodeId,
    name: String,
    term: Term,
    led_already: bool,
}

/// Has the shard's leader transfer its leadership to this node, and waits until it leads.
pub(crate) async fn transfer(client: &Client, shard: &str, node: &str) -> Result<Transferred, Stop> {
    let shard = number(shard)?;
    let state = client.cluster_state().await?;
    let node = find_node(&state, node)?.id;
    let before = leader(&state, shard, node)?;
    let term = client.transfer(shard, node).await?;
    let led_already = before == Some((node, term));
    Ok(Transferred { shard, node, name: name(&state, node), term, led_already })
}

fn number(shard: &str) -> Result<ShardId, Stop> {
    let number = shard.parse().map(ShardId);
    number.map_err(|_| {
        Stop::usage(format!("{shard:?} is no number of a shard: `ringfort cluster shards` lists them"))
    })
}

/// Who leads the shard, and in which term, if that is known; refused if there is no such shard, or this node has no replica of
/// it.
fn leader(state: &ClusterState, shard: ShardId, node: NodeId) -> Result<Option<(NodeId, Term)>, Stop> {
    let Some(known) = state.shards.iter().find(|known| known.shard == shard) else {
        let last = state.shards.last().map_or(0, |shard| shard.shard.0);
        return Err(Stop::usage(format!(
            "there is no shard {shard}: this cluster has shards 1 to {last}, and 0, the meta group"
        )));
    };
    if !known.replicas.iter().any(|(at, _)| *at == node) {
        let replicas: Vec<String> = known.replicas.iter().map(|(at, _)| name(state, *at)).collect();
        return Err(Stop::usage(format!(
            "{} has no replica of {}: choose one of {}",
            name(state, node),
            called(shard),
            replicas.join(", ")
        )));
    }
    Ok(known.leader.map(|leader| (leader, known.term)))
}

impl Transferred {
    pub(crate) fn text(&self) -> String {
        let (name, shard) = (&self.name, called(self.shard));
        let since = if self.led_already { "already" } else { "now" };
        let minutes = TRANSFER_HOLD_MS / 60_000;
        format!("{name} leads {shard} {since}, and keeps it for {minutes} minutes if it can")
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        Object::new()
            .field("shard", self.shard.0)
            .field("node", self.node.0)
            .field("name", &self.name)
            .field("term", self.term.0)
            .field("led_already", self.led_already)
            .field("kept_ms", TRANSFER_HOLD_MS)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeState, ReplicaReport, ShardState};

    use super::*;

    #[test]
    fn what_there_is_not_is_refused_with_what_there_is() {
        let node = |id| NodeState { id: NodeId(id), name: format!("node{id}"), ..NodeState::default() };
        let shard = |id| ShardState {
            shard: ShardId(id),
            leader: Some(NodeId(1)),
            term: Term(7),
            replicas: vec![(NodeId(1), ReplicaReport::default()), (NodeId(2), ReplicaReport::default())],
            ..ShardState::default()
        };
        let state = ClusterState {
            nodes: vec![node(1), node(2), node(3)],
            shards: vec![shard(0), shard(1)],
            ..ClusterState::default()
        };
        assert_eq!(leader(&state, ShardId(1), NodeId(2)), Ok(Some((NodeId(1), Term(7)))));
        for (refused, told) in [
            (number("one").map(drop), "`ringfort cluster shards`"),
            (leader(&state, ShardId(2), NodeId(2)).map(drop), "shards 1 to 1, and 0, the meta group"),
            (
                leader(&state, ShardId(0), NodeId(3)).map(drop),
                "of the meta group: choose one of node1, node2",
            ),
            (find_node(&state, "node9").map(drop), "the nodes are node1, node2, node3"),
        ] {
            let stop = refused.expect_err("refused");
            assert!(stop.code == 2 && stop.message.contains(told), "{stop:?}");
        }
        assert_eq!(find_node(&state, "2").map(|node| node.id), Ok(NodeId(2)));
    }
}
