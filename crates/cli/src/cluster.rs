//! How a cluster's state looks, as tables for people. What `status` prints, the shell too.

use std::fmt::Write;
use std::time::Duration;

use ringfort_types::{ClusterState, DiskState, NodeState, Presence, ShardId};
use ringfort_view::{Arriving, cluster_name, is_damaged, key_shards, lag, moving, name, unled};

use crate::stop::Stop;
use crate::{moves, show};

/// Most shards that are named in one line.
const NAMED_MAX: usize = 8;

/// The node that people call so, by its name, its address or its number.
pub(crate) fn find_node<'a>(state: &'a ClusterState, called: &str) -> Result<&'a NodeState, Stop> {
    let find = |is: &dyn Fn(&NodeState) -> bool| state.nodes.iter().find(|node| is(node));
    let found = find(&|node| node.name == called)
        .or_else(|| find(&|node| node.address == called))
        .or_else(|| find(&|node| node.id.to_string() == called));
    found.ok_or_else(|| {
        let mut names: Vec<String> = state.nodes.iter().map(|node| name(state, node.id)).collect();
        names.sort();
        Stop::usage(format!("there is no node {called}: the nodes are {}", names.join(", ")))
    })
}

/// What people call a shard.
pub(crate) fn called(shard: ShardId) -> String {
    if shard == ShardId::META { "the meta group".to_owned() } else { format!("shard {shard}") }
}

/// Fails if a shard has no leader: its keys can't be written, nor read but stale.
pub(crate) fn judge(state: &ClusterState) -> Result<(), Stop> {
    let (shards, meta) = unled(state);
    let all = key_shards(state).count() as u64;
    if shards.is_empty() && !meta {
        return Ok(());
    }
    let what = match shards.len() as u64 {
        0 => "the meta group has no leader".to_owned(),
        count if count == all => {
            "no shard has a leader: nothing can be written, nor read but stale".to_owned()
        }
        count => format!(
            "{count} of {} no leader: their keys can't be written, nor read but stale",
            show::count(all, "shard has", "shards have")
        ),
    };
    let down: Vec<String> = state
        .nodes
        .iter()
        .filter(|node| node.presence == Presence::Down)
        .map(|node| name(state, node.id))
        .collect();
    let damaged = damaged_beyond_a_majority(state);
    let what_to_do = if !down.is_empty() {
        format!("it takes a majority of each shard's replicas, so start what is down: {}", down.join(", "))
    } else if !damaged.is_empty() {
        format!("too many of its replicas are damaged for an election: see the log of {}", damaged.join(", "))
    } else {
        "an election takes a second or so, look again".to_owned()
    };
    Err(Stop::unavailable(format!("{what}; {what_to_do}")))
}

/// The nodes whose replicas are damaged of a shard that can't have a leader for that reason.
fn damaged_beyond_a_majority(state: &ClusterState) -> Vec<String> {
    let mut nodes = Vec::new();
    for shard in state.shards.iter().filter(|shard| shard.leader.is_none()) {
        let replicas = || shard.replicas.iter().map(|(node, _)| *node);
        let damaged: Vec<_> = replicas().filter(|node| is_damaged(state, *node, shard.shard)).collect();
        if 2 * damaged.len() >= replicas().count() {
            nodes.extend(damaged);
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into_iter().map(|node| name(state, node)).collect()
}

/// The first few of these shards.
pub(crate) fn named(shards: &[ShardId]) -> String {
    let name =
        |shard: &ShardId| if *shard == ShardId::META { "meta group".to_owned() } else { shard.to_string() };
    let mut names: Vec<_> = shards.iter().take(NAMED_MAX).map(name).collect();
    if shards.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// A line for each node. Weights and zones are shown once any node has one.
pub(crate) fn node_table(state: &ClusterState) -> String {
    let mut rows = Vec::new();
    let has_weights = state.nodes.iter().any(|node| node.weight > 1);
    let has_zones = state.nodes.iter().any(|node| !node.zone.is_empty());
    let mut nodes: Vec<_> = state.nodes.iter().collect();
    nodes.sort_by_key(|node| name(state, node.id));
    for node in nodes {
        let leads = key_shards(state).filter(|shard| shard.leader == Some(node.id)).count();
        let replicas =
            key_shards(state).filter(|shard| shard.replicas.iter().any(|(at, _)| *at == node.id)).count();
        let report = match node.report_age_ms {
            u64::MAX => "never".to_owned(),
            age => format!("{} ago", show::span(Duration::from_millis(age))),
        };
        let mut row = vec![
            name(state, node.id),
            node.address.clone(),
            match (node.presence, node.disk) {
                (Presence::Up, DiskState::Full) => "disk full",
                (Presence::Up, DiskState::Hung) => "disk slow",
                (Presence::Up, DiskState::Working) if !node.damaged.is_empty() => "damaged",
                (presence, _) => presence.name(),
            }
            .to_owned(),
            node.standing.to_string(),
            leads.to_string(),
            replicas.to_string(),
            format!("~{}", show::grouped(node.keys_estimate)),
            format!("~{}", show::bytes(node.bytes_estimate)),
            if node.space.total == 0 { "?".to_owned() } else { show::bytes(node.space.free) },
            report,
        ];
        if has_weights {
            row.push(node.weight.to_string());
        }
        if has_zones {
            row.push(node.zone.clone());
        }
        rows.push(row);
    }
    let mut heads = vec![
        "node",
        "address",
        "state",
        "standing",
        ">leads",
        ">replicas",
        ">keys",
        ">bytes",
        ">disk free",
        "reported",
    ];
    heads.extend(has_weights.then_some(">weight"));
    heads.extend(has_zones.then_some("zone"));
    show::table(&heads, &rows)
}

/// The nodes, and a line about the shards.
pub(crate) fn render(state: &ClusterState) -> String {
    let mut text = node_table(state);
    let shards = key_shards(state).count();
    let (unled, meta) = unled(state);
    let _ =
        write!(text, "cluster {}: {}, ", cluster_name(state), show::count(shards as u64, "shard", "shards"));
    if unled.is_empty() {
        text.push_str("all led");
    } else if unled.len() == shards {
        text.push_str("NONE HAS A LEADER");
    } else {
        let _ = write!(text, "{} WITHOUT A LEADER ({})", unled.len(), named(&unled));
    }
    if meta {
        text.push_str(", the meta group WITHOUT A LEADER");
    }
    // What nobody leads, nobody can lag behind.
    match key_shards(state).filter(|shard| shard.leader.is_some()).map(|shard| lag(state, shard)).max() {
        Some(lag) => {
            let _ = writeln!(text, "; largest lag {}", show::count(lag, "entry", "entries"));
        }
        None => text.push_str("; lag not known\n"),
    }
    // Of what nobody leads, nobody can say so.
    let is_led = |id: &ShardId| state.shards.iter().any(|shard| shard.shard == *id && shard.leader.is_some());
    let moving: Vec<ShardId> = moving(state).into_iter().filter(is_led).collect();
    if !moving.is_empty() {
        let shards = show::count(moving.len() as u64, "shard is", "shards are");
        let _ = writeln!(text, "{shards} moving ({})", named(&moving));
    }
    for node in Arriving::of(state) {
        let _ = writeln!(text, "{}", moves::text(&node));
    }
    let is_ahead = |node: &&NodeState| node.level_max > state.level;
    let ahead: Vec<String> = state.nodes.iter().filter(is_ahead).map(|node| name(state, node.id)).collect();
    if !ahead.is_empty() {
        let (level, who) = (state.level, ahead.join(", "));
        let _ = writeln!(text, "level {level} is in force, and more is known to {who}");
    }
    for node in state.nodes.iter().filter(|node| !node.damaged.is_empty()) {
        let _ = writeln!(
            text,
            "{} has {} that {} no part ({}): {} damaged, its log names the files",
            name(state, node.id),
            show::count(node.damaged.len() as u64, "replica", "replicas"),
            if node.damaged.len() == 1 { "takes" } else { "take" },
            named(&node.damaged),
            if node.damaged.len() == 1 { "its table is" } else { "their tables are" },
        );
    }
    text
}

/// A line for each shard.
pub(crate) fn shard_table(state: &ClusterState) -> String {
    let mut rows = Vec::new();
    for shard in &state.shards {
        let slots: Vec<_> = shard.slots.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        let replicas: Vec<_> = shard
            .replicas
            .iter()
            .map(|(node, report)| {
                let at = if is_damaged(state, *node, shard.shard) {
                    "damaged"
                } else {
                    &report.applied.to_string()
                };
                format!("{}@{at}", name(state, *node))
            })
            .collect();
        let keys = shard.replicas.iter().map(|(_, report)| report.keys_estimate).max().unwrap_or(0);
        let slots = if shard.shard == ShardId::META { "(layout)".to_owned() } else { slots.join(",") };
        rows.push(vec![
            shard.shard.to_string(),
            slots,
            shard.leader.map_or_else(|| "none".to_owned(), |leader| name(state, leader)),
            shard.term.to_string(),
            format!("~{}", show::grouped(keys)),
            shard.leader.map_or_else(|| "?".to_owned(), |_| lag(state, shard).to_string()),
            match (shard.is_moving, shard.leader) {
                (false, _) => "placed",
                (true, Some(_)) => "moving",
                (true, None) => "?",
            }
            .to_owned(),
            replicas.join(" "),
        ]);
    }
    let heads = [">shard", "slots", "leader", ">term", ">keys", ">lag", "state", "replicas (applied index)"];
    show::table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use ringfort_types::{
        DiskSpace, Epoch, Index, NodeId, PeerId, ReplicaReport, Role, ShardState, Slot, Standing,
    };

    use super::*;

    fn state() -> ClusterState {
        let free = DiskSpace { free: 12_340_000_000, total: 1 << 40 };
        let node = |id: u64, presence| NodeState {
            id: NodeId(id),
            name: format!("node{id}"),
            address: format!("127.0.0.1:5005{id}"),
            presence,
            keys_estimate: 63_436,
            bytes_estimate: 5_200_000,
            report_age_ms: if presence == Presence::Up { 400 } else { u64::MAX },
            space: if presence == Presence::Up { free } else { DiskSpace::default() },
            ..NodeState::default()
        };
        let report = |applied: u64| ReplicaReport {
            peer: PeerId(1),
            shard: ShardId(1),
            role: Role::Follower,
            term: ringfort_types::Term(2),
            last: Index(9),
            committed: Index(9),
            applied: Index(applied),
            revision: ringfort_types::Revision(3),
            keys_estimate: 7,
            bytes_estimate: 8,
            reached: Epoch(0),
        };
        let shard = |id: u32, leader: Option<u64>| ShardState {
            shard: ShardId(id),
            slots: vec![(Slot(0), Slot(16_383))],
            leader: leader.map(NodeId),
            replicas: vec![(NodeId(1), report(9)), (NodeId(2), report(5))],
            ..ShardState::default()
        };
        ClusterState {
            cluster: 0x0123_4567_89ab_cdef,
            nodes: vec![node(2, Presence::Down), node(1, Presence::Up)],
            shards: vec![shard(0, Some(1)), shard(1, Some(1)), shard(2, None)],
            ..ClusterState::default()
        }
    }

    #[test]
    fn nodes_and_shards_at_a_glance() {
        let expected = "\
node   address          state  standing  leads  replicas     keys    bytes  disk free  reported
node1  127.0.0.1:50051  up     active        1         2  ~63,436  ~5.2 MB    12.3 GB  400 ms ago
node2  127.0.0.1:50052  down   active        0         2  ~63,436  ~5.2 MB          ?  never
cluster 0123456789abcdef: 2 shards, 1 WITHOUT A LEADER (2); largest lag 4 entries
";
        let mut state = state();
        assert_eq!(render(&state), expected);
        (state.nodes[0].weight, state.nodes[1].weight) = (2, 1);
        state.nodes[1].zone = "east".into();
        let table = node_table(&state);
        let tails = ["reported    weight  zone", "400 ms ago       1  east", "never            2"];
        assert!(table.lines().zip(tails).all(|(line, tail)| line.ends_with(tail)), "{table}");
    }

    #[test]
    fn shards_without_a_leader_are_a_failure_and_have_no_lag() {
        let mut state = state();
        let some = judge(&state).expect_err("one is not led");
        assert_eq!(
            (some.code, some.message.as_str()),
            (
                3,
                "1 of 2 shards have no leader: their keys can't be written, nor read but stale; it takes a majority of each \
                 shard's replicas, so start what is down: node2"
            )
        );
        for shard in &mut state.shards {
            shard.leader = None;
        }
        let text = render(&state);
        assert!(
            text.ends_with("cluster 0123456789abcdef: 2 shards, NONE HAS A LEADER, the meta group WITHOUT A LEADER; lag not known\n"),
            "{text}"
        );
        assert!(
            judge(&state).is_err_and(|stop| stop.message.starts_with("no shard has a leader: nothing can"))
        );
        for shard in &mut state.shards {
            shard.leader = Some(NodeId(1));
        }
        assert_eq!(judge(&state), Ok(()));
    }

    #[test]
    fn a_replica_that_takes_no_part_is_shown_and_does_not_lag() {
        let mut state = state();
        state.nodes[0].presence = Presence::Up;
        state.nodes[0].damaged = vec![ShardId::META, ShardId(1), ShardId(2)];
        let text = render(&state);
        assert!(text.contains("127.0.0.1:50052  damaged"), "{text}");
        assert!(
            text.contains(
                "largest lag 0 entries\nnode2 has 3 replicas that take no part (meta group, 1, 2): "
            ),
            "{text}"
        );
        assert!(shard_table(&state).contains("node1@9 node2@damaged"), "{}", shard_table(&state));
        let json = ringfort_view::json(&state);
        assert_eq!(json["nodes"][0]["damaged_shards"], serde_json::json!([0, 1, 2]));
        assert_eq!(json["shards"][1]["replicas"][1]["damaged"], true);
        assert_eq!(json["shards"][1]["replicas"][0]["damaged"], false);
        let stop = judge(&state).expect_err("one is not led");
        assert!(
            stop.message
                .ends_with("; too many of its replicas are damaged for an election: see the log of node2"),
            "{}",
            stop.message
        );
    }

    #[test]
    fn what_moves_is_told_and_a_replica_that_comes_to_be_does_not_lag() {
        let mut state = state();
        state.nodes[0].standing = Standing::Leaving;
        assert!(!render(&state).contains("moving") && !shard_table(&state).contains("moving"));
        state.shards[1].is_moving = true;
        state.shards[1].replicas[1].1 = ReplicaReport::default();
        let text = render(&state);
        assert!(text.contains("node2  127.0.0.1:50052  down   leaving "), "{text}");
        let given = "node2 is being given 1 replica: ~0 B of ~8 B are there\n";
        let says = format!("; largest lag 0 entries\n1 shard is moving (1)\n{given}");
        assert!(text.ends_with(&says), "{text}");
        assert!(shard_table(&state).contains("  0  moving  node1@9 node2@0\n"), "{}", shard_table(&state));
        let json = ringfort_view::json(&state);
        assert_eq!(
            (&json["shards"][1]["moving"], &json["shards"][0]["moving"]),
            (&true.into(), &false.into())
        );
        assert_eq!((&json["nodes"][0]["standing"], &json["copies"]), (&"leaving".into(), &0.into()));
        state.shards[0].is_moving = true;
        assert!(render(&state).contains("2 shards are moving (meta group, 1)\n"), "{}", render(&state));
        // Nobody can tell of what nobody leads.
        state.shards[1].leader = None;
        assert!(render(&state).contains("1 shard is moving (meta group)\n"), "{}", render(&state));
        assert!(shard_table(&state).contains("  ?       node1@9"), "{}", shard_table(&state));
    }

    #[test]
    fn every_shard_has_a_line_and_the_meta_group_is_named() {
        let table = shard_table(&state());
        assert!(table.contains("    0  (layout)  node1"), "{table}");
        assert!(table.contains("node1@9 node2@5"), "{table}");
    }

    #[test]
    fn json_has_it_all() {
        let json = ringfort_view::json(&state());
        assert_eq!(json["nodes"][1]["leads"], 1);
        assert_eq!(json["nodes"][0]["report_age_ms"], serde_json::Value::Null);
        assert_eq!(json["shards"][2]["leader"], serde_json::Value::Null);
        assert_eq!(json["shards"][1]["replicas"][1]["applied"], 5);
    }
}
