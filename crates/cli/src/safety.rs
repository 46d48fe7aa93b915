//! Whether a node can be stopped and every shard goes on: what `safe-to-stop` finds out, the shell too.
//!
//! A replica on another node counts if that node has reported since the question was asked (so it hangs as little as it is down),
//! its disk takes writes, and the replica is open, takes part, and has all entries that were committed when the question was
//! asked. Nodes report once a second, so an answer takes about as long. Of each shard the replicas that count have to be a
//! majority of its configuration, and somebody has to lead.
//!
//! Of a shard that is moving nobody tells who decides in its group meanwhile: other nodes may than those where it should be, and any
//! node may be one of them. So nothing is safe until it has moved.
//!
//! It is a look at the cluster and reserves nothing: whoever stops two nodes asks again in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use ringfort_client::Client;
use ringfort_types::{
    ClusterState, Configuration, DiskState, Index, NodeId, NodeState, PeerId, Presence, Replica,
    ReplicaReport, ShardId, ShardState, Term,
};
use ringfort_view::{is_damaged, key_shards, name, presence_of};
use serde_json::json;

use crate::cluster::{find_node, named};
use crate::json::Object;
use crate::show;
use crate::stop::Stop;

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(200);
/// A node whose report is older than this has missed two.
const SILENT_MS: u64 = 2_500;

/// Why a replica does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Down,
    /// It has said nothing for seconds.
    Silent,
    /// It has not reported since the question was asked, and is not late yet.
    Unheard,
    DiskFull,
    DiskHung,
    Damaged,
    Opening,
    /// By so many entries.
    Behind(u64),
}

impl Trouble {
    /// Whether it may be over at the next look.
    fn passes(self) -> bool {
        matches!(self, Trouble::Unheard | Trouble::Opening | Trouble::Behind(_))
    }

    fn word(self) -> &'static str {
        match self {
            Trouble::Down => "down",
            Trouble::Silent => "silent",
            Trouble::Unheard => "unknown",
            Trouble::DiskFull => "disk_full",
            Trouble::DiskHung => "disk_hung",
            Trouble::Damaged => "damaged",
            Trouble::Opening => "opening",
            Trouble::Behind(_) => "behind",
        }
    }

    /// What is said of a node that has it, and what to do.
    fn line(self, node: &str) -> String {
        match self {
            Trouble::Down => format!("{node} is down: start it, and ask again once it has caught up"),
            Trouble::Silent => {
                format!("{node} has said nothing for seconds: it hangs, or is cut off; see to it first")
            }
            Trouble::Unheard => format!("{node} has not been heard of yet: ask again in a moment"),
            Trouble::DiskFull => format!("the disk of {node} is full: make room there first"),
            Trouble::DiskHung => {
                format!(
                    "the disk of {node} does not finish its syncs, or long after the others: look at that disk first"
                )
            }
            Trouble::Damaged => {
                format!("replicas on {node} are damaged and take no part: its log names the files")
            }
            Trouble::Opening => {
                format!("{node} is still reading replicas from its disk: ask again in a moment")
            }
            Trouble::Behind(entries) => format!(
                "{node} is {} behind: ask again once it has caught up",
                show::count(entries, "entry", "entries")
            ),
        }
    }
}

/// What was committed when the question was asked.
#[derive(Debug, Default)]
struct Committed(BTreeMap<ShardId, Index>);

impl Committed {
    fn of(state: &ClusterState) -> Committed {
        let newest = |shard: &ShardState| shard.replicas.iter().map(|(_, report)| report.committed).max();
        Committed(state.shards.iter().map(|shard| (shard.shard, newest(shard).unwrap_or_default())).collect())
    }
}

/// A shard that would be left without a majority.
#[derive(Debug)]
struct Unsafe {
    shard: ShardId,
    group: Configuration,
    led: bool,
    /// Its group is not where it should be yet.
    moving: bool,
    /// The others that count.
    left: usize,
    troubles: Vec<(NodeId, Trouble)>,
}

impl Unsafe {
    /// Whether another look may find it well.
    fn passes(&self, stops: NodeId) -> bool {
        let lasts = |node| self.troubles.iter().any(|(of, trouble)| *of == node && !trouble.passes());
        is_quorum(&self.group, |node| node != stops && !lasts(node))
    }

    /// Whether nothing but reports is lacking.
    fn is_unheard(&self, stops: NodeId) -> bool {
        let has = |node| {
            self.troubles.iter().any(|(of, trouble)| *of == node && !matches!(trouble, Trouble::Unheard))
        };
        self.led && !self.moving && is_quorum(&self.group, |node| node != stops && !has(node))
    }
}

/// What was found out.
#[derive(Debug)]
pub(crate) struct Safety {
    node: NodeId,
    called: String,
    is_down: bool,
    /// Of keys; there is the meta group, too.
    shards: u64,
    unsafe_shards: Vec<Unsafe>,
    names: BTreeMap<NodeId, String>,
}

/// Looks at the cluster until the node can be stopped, or it is clear of which shards that would be too much, or the time is over.
pub(crate) async fn safety(client: &Client, node: &str, timeout: Duration) -> Result<Safety, Stop> {
    let begun = Instant::now();
    let mut committed = None;
    loop {
        let state = client.cluster_state().await?;
        let stops = find_node(&state, node)?.id;
        let committed = &*committed.get_or_insert_with(|| Committed::of(&state));
        let found = Safety::of(&state, stops, committed, begun.elapsed());
        let is_over = begun.elapsed() + LOOK >= timeout;
        if found.is_final() {
            return Ok(found);
        }
        if is_over {
            return found.known();
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Safety {
    fn of(state: &ClusterState, stops: NodeId, committed: &Committed, asked_for: Duration) -> Safety {
        let unsafe_shards = state
            .shards
            .iter()
            .filter_map(|shard| judge(state, shard, stops, committed, asked_for))
            .collect();
        Safety {
            node: stops,
            called: name(state, stops),
            is_down: presence_of(state, stops) == Presence::Down,
            shards: key_shards(state).count() as u64,
            unsafe_shards,
            names: state.nodes.iter().map(|node| (node.id, name(state, node.id))).collect(),
        }
    }

    pub(crate) fn is_safe(&self) -> bool {
        self.unsafe_shards.is_empty()
    }

    /// Whether no later look can change anything about it. One shard that is unsafe for good makes the node unsafe, but of the others it is to be
    /// known, too, which they are.
    fn is_final(&self) -> bool {
        !self.unsafe_shards.iter().any(|shard| shard.passes(self.node))
    }

    /// Fails if it is not known whether it is safe.
    fn known(self) -> Result<Safety, Stop> {
        let is_unheard = self.unsafe_shards.iter().all(|shard| shard.is_unheard(self.node));
        if self.is_safe() || !is_unheard {
            return Ok(self);
        }
        let unheard = self.reasons().into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        Err(Stop::unavailable(format!(
            "not known whether {} can be stopped: {}; a --timeout of 3s or more lets all report",
            self.called,
            unheard.join("; ")
        )))
    }

    /// Each reason once, with the shards that it is one for.
    fn reasons(&self) -> Vec<(String, Vec<ShardId>)> {
        let mut troubles: BTreeMap<(NodeId, &str), (Trouble, Vec<ShardId>)> = BTreeMap::new();
        let (mut unled, mut alone, mut moving) = (Vec::new(), Vec::new(), Vec::new());
        for found in &self.unsafe_shards {
            // What passes matters only where nothing worse is in the way.
            let lasts = !found.passes(self.node);
            let mut reasons =
                found.troubles.iter().filter(|(_, trouble)| !lasts || !trouble.passes()).peekable();
            if !found.led && !lasts {
                unled.push(found.shard);
            }
            if found.moving && !lasts {
                moving.push(found.shard);
            }
            if lasts && reasons.peek().is_none() {
                alone.push(found.shard);
            }
            for (node, trouble) in reasons {
                let (worst, shards) =
                    troubles.entry((*node, trouble.word())).or_insert((*trouble, Vec::new()));
                *worst = (*worst).max(*trouble);
                shards.push(found.shard);
            }
        }
        let mut reasons = Vec::new();
        for ((node, _), (trouble, shards)) in troubles {
            let node = self.names.get(&node).cloned().unwrap_or_else(|| format!("node number {node}"));
            reasons.push((trouble.line(&node), shards));
        }
        if !unled.is_empty() {
            reasons
                .push(("nobody is known to lead: ask again after an election, a second or so".into(), unled));
        }
        if !moving.is_empty() {
            let line =
                "replicas are moving, and any node may still be needed for that: ask again when they have";
            reasons.push((line.into(), moving));
        }
        if !alone.is_empty() {
            let line =
                format!("too few other nodes have replicas: nothing is served while {} is down", self.called);
            reasons.push((line, alone));
        }
        reasons
    }

    pub(crate) fn text(&self) -> String {
        let node = &self.called;
        if self.is_safe() {
            let already = if self.is_down { " (it is down already)" } else { "" };
            return format!(
                "safe: without {node}{already}, {} and the meta group have majorities that are up and have caught up",
                show::count(self.shards, "shard", "shards")
            );
        }
        let shards: Vec<ShardId> = self.unsafe_shards.iter().map(|found| found.shard).collect();
        let mut text = format!(
            "not safe: without {node}, {} of {} would have no majority that is up and has caught up ({})",
            shards.len(),
            show::count(self.shards + 1, "shard", "shards"),
            named(&shards)
        );
        for (line, of) in self.reasons() {
            text.push_str("\n  ");
            text.push_str(&line);
            if of != shards {
                let _ = write!(text, " ({})", named(&of));
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        let unsafe_shards = self.unsafe_shards.iter().map(|found| {
            let missing = found.troubles.iter().map(|(node, trouble)| {
                let behind = match trouble {
                    Trouble::Behind(entries) => Some(*entries),
                    _ => None,
                };
                json!({ "node": node.0, "name": self.names.get(node), "why": trouble.word(), "behind": behind })
            });
            json!({
                "shard": found.shard.0,
                "replicas": found.group.deciding().count(),
                "needed": found.group.least_quorum(),
                "left": found.left,
                "led": found.led,
                "moving": found.moving,
                "missing": missing.collect::<Vec<_>>(),
            })
        });
        Object::new()
            .field("node", self.node.0)
            .field("name", &self.called)
            .field("safe", self.is_safe())
            .field("shards", self.shards)
            .field("unsafe_shards", unsafe_shards.collect::<Vec<_>>())
            .finish()
    }
}

/// What speaks against stopping a node, as far as this shard is concerned.
fn judge(
    state: &ClusterState,
    shard: &ShardState,
    stops: NodeId,
    committed: &Committed,
    asked_for: Duration,
) -> Option<Unsafe> {
    let group = configuration(shard);
    let newest = committed.0.get(&shard.shard).copied().unwrap_or_default();
    let others = shard.replicas.iter().filter(|(node, _)| *node != stops);
    let troubles: Vec<(NodeId, Trouble)> = others
        .clone()
        .filter_map(|(node, report)| {
            let known = state.nodes.iter().find(|known| known.id == *node);
            let trouble = match known {
                _ if is_damaged(state, *node, shard.shard) => Some(Trouble::Damaged),
                Some(known) => of_node(known, asked_for).or_else(|| of_replica(report, newest)),
                None => Some(Trouble::Unheard),
            };
            Some((*node, trouble?))
        })
        .collect();
    let in_trouble: BTreeSet<NodeId> = troubles.iter().map(|(node, _)| *node).collect();
    let led = shard.leader.is_some_and(|leader| presence_of(state, leader) != Presence::Down);
    let moving = shard.is_moving;
    if led && !moving && is_quorum(&group, |node| node != stops && !in_trouble.contains(&node)) {
        return None;
    }
    let left = others.count() - troubles.len();
    Some(Unsafe { shard: shard.shard, group, led, moving, left, troubles })
}

/// What the state tells of a shard's configuration: all its replicas decide.
fn configuration(shard: &ShardState) -> Configuration {
    let replica = |(node, _): &(NodeId, ReplicaReport)| Replica { node: *node, peer: PeerId(node.0) };
    Configuration::born(shard.replicas.iter().map(replica).collect())
}

fn is_quorum(group: &Configuration, holds: impl Fn(NodeId) -> bool) -> bool {
    group.is_quorum(|peer| group.node_of(peer).is_some_and(&holds))
}

fn of_node(node: &NodeState, asked_for: Duration) -> Option<Trouble> {
    match (node.presence, node.disk) {
        (Presence::Down, _) => Some(Trouble::Down),
        (Presence::Unknown, _) => Some(Trouble::Unheard),
        (Presence::Up, _) if node.report_age_ms > SILENT_MS => Some(Trouble::Silent),
        (Presence::Up, DiskState::Full) => Some(Trouble::DiskFull),
        (Presence::Up, DiskState::Hung) => Some(Trouble::DiskHung),
        // It may have gone since.
        (Presence::Up, _) if u128::from(node.report_age_ms) > asked_for.as_millis() => Some(Trouble::Unheard),
        (Presence::Up, DiskState::Working) => None,
    }
}

fn of_replica(report: &ReplicaReport, newest: Index) -> Option<Trouble> {
    if report.term == Term(0) {
        return Some(Trouble::Opening);
    }
    let lag = newest.0.saturating_sub(report.last.0);
    (lag > 0).then_some(Trouble::Behind(lag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Duration = Duration::from_millis(1_500);

    /// Three nodes that have just reported, and three shards on all of them, led by node1 and with everything up to index 9.
    fn state() -> ClusterState {
        let node = |id| NodeState {
            id: NodeId(id),
            name: format!("node{id}"),
            presence: Presence::Up,
            report_age_ms: 400,
            ..NodeState::default()
        };
        let replica = |id: u64, shard| {
            let report = ReplicaReport {
                shard,
                term: Term(2),
                last: Index(9),
                committed: Index(9),
                ..ReplicaReport::default()
            };
            (NodeId(id), report)
        };
        let shard = |id| ShardState {
            shard: ShardId(id),
            leader: Some(NodeId(1)),
            replicas: (1..=3).map(|node| replica(node, ShardId(id))).collect(),
            ..ShardState::default()
        };
        ClusterState {
            nodes: (1..=3).map(node).collect(),
            shards: (0..3).map(shard).collect(),
            ..ClusterState::default()
        }
    }

    fn found(state: &ClusterState, stops: u64) -> Safety {
        Safety::of(state, NodeId(stops), &Committed::of(state), ASKED)
    }

    #[track_caller]
    fn assert_unsafe(state: &ClusterState, stops: u64, says: &str) -> Safety {
        let found = found(state, stops);
        assert!(!found.is_safe() && found.text().contains(says), "{}", found.text());
        found
    }

    #[test]
    fn each_node_can_do_without_one_of_the_others() {
        let state = state();
        assert!((1..=3).all(|node| found(&state, node).is_safe()));
        assert_eq!(
            found(&state, 2).text(),
            "safe: without node2, 2 shards and the meta group have majorities that are up and have caught up"
        );
    }

    #[test]
    fn what_counts_for_nothing_is_named_with_what_to_do() {
        type Spoil = fn(&mut ClusterState);
        let cases: [(Spoil, &str, bool); 7] = [
            (|state| state.nodes[2].presence = Presence::Down, "node3 is down: start it", false),
            (|state| state.nodes[2].report_age_ms = 2_501, "node3 has said nothing for seconds", false),
            (|state| state.nodes[2].disk = DiskState::Full, "the disk of node3 is full", false),
            (|state| state.nodes[2].disk = DiskState::Hung, "does not finish its syncs", false),
            (|state| state.nodes[2].damaged = (0..3).map(ShardId).collect(), "on node3 are damaged", false),
            (
                |state| {
                    state.shards.iter_mut().for_each(|shard| shard.replicas[2].1 = ReplicaReport::default());
                },
                "node3 is still reading replicas",
                true,
            ),
            (
                |state| state.shards.iter_mut().for_each(|shard| shard.replicas[2].1.last = Index(4)),
                "node3 is 5 entries behind",
                true,
            ),
        ];
        for (spoil, says, passes) in cases {
            let mut state = state();
            spoil(&mut state);
            let found_out = assert_unsafe(&state, 2, says);
            assert!(found_out.unsafe_shards.iter().all(|shard| shard.passes(NodeId(2)) == passes), "{says}");
            assert!(found_out.known().is_ok_and(|known| !known.is_safe()), "{says}: it is known");
            // Of the one that counts for nothing itself nothing is lost.
            assert!(found(&state, 3).is_safe(), "{says}");
        }
    }

    #[test]
    fn one_shard_is_enough_and_is_named() {
        let mut state = state();
        state.nodes[2].damaged = vec![ShardId(1)];
        let found =
            assert_unsafe(&state, 1, "1 of 3 shards would have no majority that is up and has caught up (1)");
        let json: serde_json::Value = serde_json::from_slice(&found.json()).expect("JSON");
        let shard = &json["unsafe_shards"][0];
        assert_eq!((&shard["shard"], &shard["left"], &shard["needed"]), (&1.into(), &1.into(), &2.into()));
        assert_eq!(shard["missing"][0]["why"], "damaged");
        state.nodes[1].presence = Presence::Down;
        let text = self::found(&state, 1).text();
        assert!(
            text.contains("(meta group, 1, 2)") && text.contains("take no part: its log names the files (1)"),
            "{text}"
        );
    }

    #[test]
    fn who_has_not_reported_since_is_not_known_to_be_well() {
        for spoil in [(|node: &mut NodeState| node.report_age_ms = 1_600) as fn(&mut NodeState), |node| {
            (node.presence, node.report_age_ms) = (Presence::Unknown, u64::MAX);
        }] {
            let mut state = state();
            spoil(&mut state.nodes[2]);
            let found_out = assert_unsafe(&state, 2, "node3 has not been heard of yet");
            let stop = found_out.known().expect_err("it is not known");
            assert!(
                stop.code == 3 && stop.message.starts_with("not known whether node2 can be stopped"),
                "{stop:?}"
            );
            // It would not be enough either way.
            state.nodes[0].presence = Presence::Down;
            assert!(found(&state, 2).known().is_ok_and(|known| !known.is_safe()));
        }
    }

    #[test]
    fn one_shard_that_is_unsafe_for_good_does_not_end_the_look_at_the_others() {
        let mut state = state();
        let down = NodeState {
            id: NodeId(4),
            name: "node4".into(),
            presence: Presence::Down,
            ..state.nodes[0].clone()
        };
        state.nodes.push(down);
        state.shards[2].replicas[2].0 = NodeId(4);
        assert!(found(&state, 3).is_final() && found(&state, 3).is_safe());
        state.nodes[0].report_age_ms = 1_600;
        let early = found(&state, 2);
        assert!(!early.is_final() && early.unsafe_shards.len() == 3, "node1 may be well");
        state.nodes[0].report_age_ms = 0;
        let known = found(&state, 2);
        assert!(known.is_final() && known.text().contains("1 of 3 shards"), "{}", known.text());
    }

    #[test]
    fn what_nobody_leads_is_not_safe_yet() {
        let mut state = state();
        state.shards[1].leader = None;
        let found_out = assert_unsafe(&state, 2, "nobody is known to lead: ask again");
        assert!(found_out.unsafe_shards[0].passes(NodeId(2)));
        state.nodes[0].presence = Presence::Down;
        assert_unsafe(&state, 1, "3 of 3 shards");
        // Nothing is said of what passes where something worse is in the way.
        let text = assert_unsafe(&state, 2, "node1 is down").text();
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn nothing_is_safe_while_a_shard_is_moving() {
        let mut state = state();
        state.shards[2].is_moving = true;
        // Whether it has a replica there or not: the group may still have one.
        for stops in [2, 9] {
            let found_out =
                assert_unsafe(&state, stops, "replicas are moving, and any node may still be needed");
            assert!(found_out.unsafe_shards[0].passes(NodeId(stops)));
            let json: serde_json::Value = serde_json::from_slice(&found_out.json()).expect("JSON");
            assert_eq!(
                (&json["unsafe_shards"][0]["shard"], &json["unsafe_shards"][0]["moving"]),
                (&2.into(), &true.into())
            );
            assert!(found_out.known().is_ok(), "it is known");
        }
        state.nodes[2].presence = Presence::Down;
        let text = assert_unsafe(&state, 2, "node3 is down").text();
        assert!(!text.contains("are moving"), "{text}");
    }

    #[test]
    fn what_was_committed_when_it_was_asked_counts_and_no_more() {
        let (then, mut now) = (state(), state());
        for shard in &mut now.shards {
            for (_, report) in &mut shard.replicas {
                report.committed = Index(50);
            }
            (shard.replicas[0].1.last, shard.replicas[1].1.last) = (Index(50), Index(40));
        }
        let committed = Committed::of(&then);
        assert!(Safety::of(&now, NodeId(1), &committed, ASKED).is_safe(), "it keeps up");
        now.shards[2].replicas[1].1.last = Index(8);
        assert!(!Safety::of(&now, NodeId(1), &committed, ASKED).is_safe());
    }

    #[test]
    fn a_majority_is_one_of_the_replicas_that_there_are() {
        let mut state = state();
        for shard in &mut state.shards {
            shard.replicas.truncate(1);
        }
        assert_unsafe(&state, 1, "too few other nodes have replicas: nothing is served while node1 is down");
        assert!(found(&state, 2).is_safe(), "it has none");
        // Of two, one is no majority.
        let mut two = self::state();
        for shard in &mut two.shards {
            shard.replicas.truncate(2);
        }
        assert_unsafe(&two, 2, "too few other nodes");
    }
}
