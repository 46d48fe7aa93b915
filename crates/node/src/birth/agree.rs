//! What the flags of a node say, beside what its cluster was born with. Stored identity beats flags; a conflict is refused.

use ringfort_types::Incarnation;

use super::Map;
use crate::{Config, NodeError};

/// Refuses flags that differ from the map of a cluster that is not born yet.
pub(super) fn agree(stored: &Map, config: &Config, me: Incarnation) -> Result<(), NodeError> {
    let conflict = |what, was: String, given: String| {
        Err(NodeError::Conflict { what, stored: was, given, flags: flags(stored, me) })
    };
    let born: Vec<&str> = stored.nodes.iter().map(|node| node.address.as_str()).collect();
    if config.addresses != born {
        return conflict("list of nodes", born.join(","), config.addresses.join(","));
    }
    for (node, given) in stored.nodes.iter().zip(&config.names) {
        if !given.is_empty() && *given != node.name {
            return conflict("node name", format!("{} at {}", node.name, node.address), given.clone());
        }
    }
    agree_on_numbers(stored, config, me)
}

/// The same of what is no matter of who the nodes are, and where: of a born cluster its layout says that.
pub(super) fn agree_on_numbers(map: &Map, config: &Config, me: Incarnation) -> Result<(), NodeError> {
    for (what, stored, given) in [
        ("number of shards", map.shards, config.shards),
        ("number of replicas", map.replicas, config.replicas),
    ] {
        if stored != given {
            return Err(NodeError::Conflict {
                what,
                stored: stored.to_string(),
                given: given.to_string(),
                flags: flags(map, me),
            });
        }
    }
    Ok(())
}

/// The flags that say what the map says, for the node with this directory.
fn flags(map: &Map, me: Incarnation) -> String {
    let others: Vec<String> = map
        .nodes
        .iter()
        .filter(|node| node.incarnation != me)
        .map(|node| format!("{}={}", node.name, node.address))
        .collect();
    let peers =
        if others.is_empty() { "no --peers".to_owned() } else { format!("--peers {}", others.join(",")) };
    format!("{peers} --shards {} --replicas {}", map.shards, map.replicas)
}
