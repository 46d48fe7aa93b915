//! A node's state in one line, now and then.

use std::time::{Duration, SystemTime};

use ringfort_server::Observer;
use ringfort_types::{ClusterState, Presence};

use crate::json::Object;
use crate::sink::Sink;

/// Prints the line at once and then each time that `every` has passed, for as long as it is polled.
pub(crate) async fn print(every: Duration, node: Observer, out: Sink, json: bool) {
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        times.tick().await;
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let state = node.cluster().await;
        if json {
            out.line(object(&now.to_string(), state.as_ref().map_err(|failure| failure.message.as_str())));
            continue;
        }
        let said = match state {
            Ok(state) => line(&state),
            Err(failure) => format!("its state is not known: {}", failure.message),
        };
        out.line(format!("{now} {said}"));
    }
}

/// `node1 127.0.0.1:50051 keys=~12 members=3 up=2: node1, node2, node3 (down)`
fn line(state: &ClusterState) -> String {
    let up = state.nodes.iter().filter(|node| node.presence == Presence::Up).count();
    let member = |node: &ringfort_types::NodeState| match node.presence {
        Presence::Up => node.name.clone(),
        other => format!("{} ({})", node.name, other.name()),
    };
    let members: Vec<String> = state.nodes.iter().map(member).collect();
    let me = state.nodes.iter().find(|node| node.id == state.node);
    let (name, address, keys) =
        me.map_or(("?", "?", 0), |me| (me.name.as_str(), me.address.as_str(), me.keys_estimate));
    format!("{name} {address} keys=~{keys} members={} up={up}: {}", members.len(), members.join(", "))
}

/// The same as an object.
fn object(time: &str, state: Result<&ClusterState, &str>) -> Vec<u8> {
    let object = Object::new().field("time", time);
    let state = match state {
        Ok(state) => state,
        Err(why) => return object.field("error", why).finish(),
    };
    let me = state.nodes.iter().find(|node| node.id == state.node);
    let members: Vec<_> = state
        .nodes
        .iter()
        .map(|node| serde_json::json!({ "name": node.name, "state": node.presence.name() }))
        .collect();
    object
        .field("name", me.map(|me| me.name.as_str()))
        .field("address", me.map(|me| me.address.as_str()))
        .field("keys_estimate", me.map(|me| me.keys_estimate))
        .field("members", members)
        .finish()
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeId, NodeState};

    use super::*;

    #[test]
    fn a_line_says_who_it_is_who_is_there_and_what_it_holds() {
        let node = |id, name: &str, presence| NodeState {
            id: NodeId(id),
            name: name.into(),
            address: format!("127.0.0.1:555{id}"),
            presence,
            keys_estimate: 10 * id,
            ..NodeState::default()
        };
        let nodes = vec![
            node(1, "leader", Presence::Up),
            node(2, "member1", Presence::Up),
            node(3, "member2", Presence::Down),
        ];
        let state = ClusterState { node: NodeId(2), nodes, ..ClusterState::default() };
        assert_eq!(
            line(&state),
            "member1 127.0.0.1:5552 keys=~20 members=3 up=2: leader, member1, member2 (down)"
        );
    }
}
