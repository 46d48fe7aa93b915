//! What would move, before anything does: what `cluster plan` prints, the shell too.
//!
//! The same planner that the leader of the meta group asks ([`Layout::settled`]), on the layout that a state tells of (`layout`). What
//! that leader knows better: for how long a node has been away. Here a node that is down is taken for one that stays away.

use std::fmt::Write;

use ringfort_ring::{Layout, Member, NoPlace, ShardLayout, WEIGHT_MAX, effective_copies};
use ringfort_types::limits::BIRTH_NODES_MAX;
use ringfort_types::{
    ClusterState, Incarnation, LayoutChange, Newcomer, NodeId, Presence, ShardId, Standing, is_name,
};
use ringfort_view::{moving, name, presence_of};
use serde_json::{Value, json};

use crate::cluster::find_node;
use crate::layout::layout_of;
use crate::show;
use crate::standing::at_stake;
use crate::stop::Stop;

/// What is planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What is under way, or will be if all stays as it is.
    AsItIs,
    /// A node, as people call it, is to stand so.
    Stand(String, Standing),
    /// So many nodes join, all of this weight and in this zone, if it is not empty.
    Join { count: u64, weight: u32, zone: String },
    /// So many copies of each shard.
    Replicas(u32),
}

/// A number of copies, as people give it.
pub(crate) fn copies(text: &str) -> Result<u32, Stop> {
    let copies = text.parse().ok().filter(|copies| (1..=BIRTH_NODES_MAX as u32).contains(copies));
    copies.ok_or_else(|| {
        Stop::usage(format!("{text:?} is no number of copies: give one from 1 to {BIRTH_NODES_MAX}"))
    })
}

/// Where else what is said of nodes that join makes no sense.
pub(crate) const JOINING_ONLY: &str =
    "--weight and --zone are for `ringfort cluster plan join N`: leave them out";

/// How the nodes are started that would join, as far as it is said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Joining<'a> {
    pub(crate) weight: Option<u32>,
    pub(crate) zone: Option<&'a str>,
}

impl Joining<'_> {
    /// Refuses what such a node would be refused with.
    fn check(self, count: u64) -> Result<Wanted, Stop> {
        let (weight, zone) = (self.weight.unwrap_or(1), self.zone.unwrap_or_default());
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(Stop::usage(format!("--weight {weight}: give a number from 1 to {WEIGHT_MAX}")));
        }
        if self.zone.is_some_and(|zone| !is_name(zone)) {
            return Err(Stop::usage(format!(
                "--zone {zone:?} is no name for a zone: use 1 to 64 letters, digits, '-', '_' or '.'"
            )));
        }
        Ok(Wanted::Join { count, weight, zone: zone.to_owned() })
    }
}

impl Wanted {
    /// What these words ask for.
    pub(crate) fn read(words: &[&str], joining: Joining<'_>) -> Result<Wanted, Stop> {
        match words {
            ["join", ..] => {}
            _ if joining.weight.is_some() || joining.zone.is_some() => {
                return Err(Stop::usage(JOINING_ONLY));
            }
            _ => {}
        }
        match words {
            [] => Ok(Wanted::AsItIs),
            ["remove", node] => Ok(Wanted::Stand((*node).to_owned(), Standing::Leaving)),
            ["drain", node] => Ok(Wanted::Stand((*node).to_owned(), Standing::Draining)),
            ["undrain", node] => Ok(Wanted::Stand((*node).to_owned(), Standing::Active)),
            ["join", count] => match count.parse() {
                Ok(count @ 1..=64) => joining.check(count),
                _ => Err(Stop::usage(format!(
                    "{count:?} is no number of nodes that join: as in `ringfort cluster plan join 2`"
                ))),
            },
            ["replicas", number] => copies(number).map(Wanted::Replicas),
            _ => Err(Stop::usage(
                "plan what: `ringfort cluster plan` alone, or with `remove NODE`, `drain NODE`, `undrain NODE`, `join N` or `replicas N`",
            )),
        }
    }
}

/// What one node has and would have, of the shards that hold keys.
#[derive(Debug, PartialEq, Eq)]
struct OfNode {
    /// None of one that would join: its number is not known yet.
    node: Option<NodeId>,
    called: String,
    now: usize,
    then: usize,
    /// Of those that it would have: how many are copied to it, and their bytes.
    copied: usize,
    bytes: u64,
}

/// What would move.
#[derive(Debug)]
pub(crate) struct Plan {
    nodes: Vec<OfNode>,
    /// Shards that move, the meta group among them, and the nodes that each is on and would be on, as people call them.
    shards: Vec<(ShardId, [Vec<String>; 2])>,
    /// Copies of each shard now and then, and why if it is another number than was asked for.
    copies: [u32; 2],
    why: Option<String>,
    /// Replicas that go.
    dropped: usize,
    /// Shards that are on their way to where they are taken to be now.
    moving: usize,
    /// Nodes that are down and so given nothing.
    down: Vec<String>,
    /// Nodes whose disks have less room than this would take, each with what it has.
    short: Vec<(String, u64)>,
    /// Why it would be refused.
    refused: Option<String>,
}

impl Plan {
    pub(crate) fn of(state: &ClusterState, wanted: &Wanted) -> Result<Plan, Stop> {
        let before = layout_of(state)?;
        let mut refused = None;
        let mut wished = before.clone();
        match wanted {
            Wanted::AsItIs => {}
            Wanted::Stand(called, standing) => {
                let node = find_node(state, called)?.id;
                refused = at_stake(state, node, *standing).err().map(|stop| stop.message);
                wished = after(&wished, &LayoutChange::Stand(node, *standing));
            }
            Wanted::Join { count, weight, zone } => {
                for number in 1..=*count {
                    let newcomer =
                        Newcomer { weight: *weight, zone: zone.clone(), ..newcomer(&wished, number) };
                    if wished.refusal(&newcomer) == Some(NoPlace::Full) {
                        return Err(Stop::usage(format!(
                            "a cluster has {BIRTH_NODES_MAX} nodes at most, and this one has {} now",
                            before.members.len()
                        )));
                    }
                    wished = after(&wished, &LayoutChange::Join(newcomer));
                }
            }
            Wanted::Replicas(copies) => wished = after(&wished, &LayoutChange::Copies(*copies)),
        }
        let is_usable = |node| before.member(node).is_none() || presence_of(state, node) != Presence::Down;
        let places = wished.settled(is_usable);
        let then = if places.is_empty() {
            wished
        } else {
            after(&wished, &LayoutChange::Place { epoch: wished.epoch, places })
        };
        let called = |node: NodeId| match (before.member(node), then.member(node)) {
            (None, Some(new)) => new.name.clone(),
            _ => name(state, node),
        };
        let ids = then.members.iter().map(|member| member.id);
        let mut nodes: Vec<OfNode> = ids
            .map(|node| OfNode {
                node: before.member(node).map(|known| known.id),
                called: called(node),
                now: of(&before, node),
                then: of(&then, node),
                copied: arriving(&before, &then, node).count(),
                bytes: arriving(&before, &then, node).map(|shard| bytes_of(state, shard)).sum(),
            })
            .collect();
        // As in `cluster nodes`, and newcomers behind.
        nodes.sort_by_key(|node| (node.node.is_none(), node.called.clone()));
        let there =
            |shard: &ShardLayout| shard.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>();
        let pairs =
            || before.shards.iter().zip(&then.shards).map(|(now, then)| (now.shard, there(now), there(then)));
        let moves = pairs()
            .filter(|(_, now, then)| now.len() != then.len() || now.iter().any(|node| !then.contains(node)));
        let all_called = |nodes: &[NodeId]| nodes.iter().map(|node| called(*node)).collect::<Vec<_>>();
        let of_keys = pairs().filter(|(shard, ..)| *shard != ShardId::META);
        let dropped = of_keys.map(|(_, now, then)| now.iter().filter(|node| !then.contains(node)).count());
        let is_down = |member: &&Member| {
            before.member(member.id).is_some() && presence_of(state, member.id) == Presence::Down
        };
        let free =
            |node| state.nodes.iter().find(|known| known.id == node).filter(|known| known.space.total > 0);
        let short = nodes.iter().filter_map(|of| {
            let free = free(of.node?)?.space.free;
            (free < of.bytes).then(|| (of.called.clone(), free))
        });
        let short = short.collect();
        let [copies, (copies_then, why)] = [&before, &then].map(copies_of);
        Ok(Plan {
            nodes,
            shards: moves.map(|(shard, now, then)| (shard, [all_called(&now), all_called(&then)])).collect(),
            copies: [copies.0, copies_then],
            why,
            dropped: dropped.sum(),
            moving: moving(state).len(),
            down: then.members.iter().filter(is_down).map(|member| called(member.id)).collect(),
            short,
            refused,
        })
    }

    fn made(&self) -> (usize, u64) {
        let of = |node: &OfNode| (node.copied, node.bytes);
        self.nodes.iter().map(of).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    pub(crate) fn text(&self) -> String {
        let row = |node: &OfNode| {
            vec![
                node.called.clone(),
                node.now.to_string(),
                node.then.to_string(),
                node.copied.to_string(),
                format!("~{}", show::bytes(node.bytes)),
            ]
        };
        let rows: Vec<_> = self.nodes.iter().map(row).collect();
        let mut text = show::table(&["node", ">replicas", ">then", ">copied to it", ">bytes"], &rows);
        let all: usize = self.nodes.iter().map(|node| node.now).sum();
        let (made, bytes) = self.made();
        if self.shards.is_empty() {
            text.push_str(if self.moving > 0 { "nothing else moves" } else { "nothing moves" });
        } else if made == self.dropped {
            let _ = write!(text, "{made} of {} move", show::count(all as u64, "replica", "replicas"));
        } else {
            let _ = write!(
                text,
                "{} made and {} removed, of {all}",
                show::count(made as u64, "replica is", "replicas are"),
                show::count(self.dropped as u64, "is", "are")
            );
        }
        if made > 0 {
            let _ = write!(text, ": ~{} to copy", show::bytes(bytes));
        }
        if self.moving > 0 {
            let shards = show::count(self.moving as u64, "shard is", "shards are");
            let _ = write!(text, "\n{shards} moving already, which is counted as done");
        }
        let [copies, copies_then] = self.copies;
        let _ =
            write!(text, "\n{}", show::count(copies.into(), "copy of each shard", "copies of each shard"));
        if copies_then != copies {
            let _ = write!(text, ", then {copies_then}");
        }
        if let Some(why) = &self.why {
            let _ = write!(text, ": {why}");
        }
        if let Some((_, [now, then])) = self.shards.iter().find(|(shard, _)| *shard == ShardId::META) {
            let _ = write!(text, "\nthe meta group is on {}, then on {}", now.join(", "), then.join(", "));
        }
        if !self.down.is_empty() {
            let (nodes, are) = (self.down.join(", "), if self.down.len() == 1 { "is" } else { "are" });
            let _ = write!(text, "\n{nodes} {are} down: this is what happens if that stays so");
        }
        for (node, free) in &self.short {
            let _ = write!(text, "\n{node} has {} free on its disk, which is not enough", show::bytes(*free));
        }
        if let Some(why) = &self.refused {
            let _ = write!(text, "\nit would be refused without --force: {why}");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let (made, bytes) = self.made();
        let [copies, copies_then] = self.copies;
        json!({
            "nodes": self.nodes.iter().map(|node| json!({
                "node": node.node.map(|node| node.0),
                "name": node.called,
                "replicas": node.now,
                "replicas_then": node.then,
                "copied": node.copied,
                "bytes_to_copy": node.bytes,
            })).collect::<Vec<_>>(),
            "shards": self.shards.iter().map(|(shard, [now, then])| json!({
                "shard": shard.0,
                "on": now,
                "then_on": then,
            })).collect::<Vec<_>>(),
            "replicas": self.nodes.iter().map(|node| node.now).sum::<usize>(),
            "replicas_then": self.nodes.iter().map(|node| node.then).sum::<usize>(),
            "copied": made,
            "dropped": self.dropped,
            "moving": self.moving,
            "bytes_to_copy": bytes,
            "copies": copies,
            "copies_then": copies_then,
            "why": self.why,
            "down": self.down,
            "short_of_disk": self.short.iter().map(|(node, _)| node).collect::<Vec<_>>(),
            "refused": self.refused,
        })
    }
}

fn after(layout: &Layout, change: &LayoutChange) -> Layout {
    layout.after(change).unwrap_or_else(|| layout.clone())
}

/// One that nobody else is.
fn newcomer(layout: &Layout, number: u64) -> Newcomer {
    let taken = |name: &str| layout.members.iter().any(|member| member.name == name);
    let names = (number..).map(|number| format!("new{number}"));
    let name = names.into_iter().find(|name| !taken(name)).unwrap_or_default();
    let used = layout.members.iter().map(|member| member.incarnation.0);
    let mut free = (1..).map(Incarnation).filter(|free| used.clone().all(|used| used != free.0));
    Newcomer {
        address: name.clone(),
        name,
        incarnation: free.next().unwrap_or_default(),
        weight: 1,
        zone: String::new(),
        replaces: false,
        max: layout.level,
    }
}

fn of_keys(layout: &Layout) -> impl Iterator<Item = &ShardLayout> {
    layout.shards.iter().filter(|shard| shard.shard != ShardId::META)
}

fn is_on(shard: &ShardLayout, node: NodeId) -> bool {
    shard.replicas.iter().any(|replica| replica.node == node)
}

/// How many replicas of keys a node has.
fn of(layout: &Layout, node: NodeId) -> usize {
    of_keys(layout).filter(|shard| is_on(shard, node)).count()
}

/// The shards of keys that a node has then, and not before.
fn arriving<'a>(before: &'a Layout, then: &'a Layout, node: NodeId) -> impl Iterator<Item = ShardId> + 'a {
    let pairs = of_keys(before).zip(of_keys(then));
    pairs.filter(move |(now, then)| !is_on(now, node) && is_on(then, node)).map(|(now, _)| now.shard)
}

/// What the largest replica of a shard takes.
fn bytes_of(state: &ClusterState, shard: ShardId) -> u64 {
    let known = state.shards.iter().find(|known| known.shard == shard);
    let replicas = known.into_iter().flat_map(|known| &known.replicas);
    replicas.map(|(_, report)| report.bytes_estimate).max().unwrap_or(0)
}

fn copies_of(layout: &Layout) -> (u32, Option<String>) {
    let active = layout.members.iter().filter(|member| member.standing == Standing::Active).count();
    effective_copies(layout.copies, active as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::cluster_of;
    use ringfort_types::DiskSpace;

    fn plan(state: &ClusterState, words: &[&str]) -> Plan {
        let wanted = Wanted::read(words, Joining::default()).expect("understood");
        Plan::of(state, &wanted).expect("there is one")
    }

    fn total(plan: &Plan) -> [usize; 2] {
        let sum = |of: fn(&OfNode) -> usize| plan.nodes.iter().map(of).sum();
        [sum(|node| node.now), sum(|node| node.then)]
    }

    #[test]
    fn a_cluster_as_it_should_be_stays_as_it_is() {
        let plan = plan(&cluster_of(3), &[]);
        assert_eq!(
            plan.text(),
            "\
node   replicas  then  copied to it  bytes
node1         2     2             0   ~0 B
node2         2     2             0   ~0 B
node3         2     2             0   ~0 B
nothing moves
3 copies of each shard"
        );
        assert!(plan.shards.is_empty() && plan.json()["refused"].is_null());
    }

    #[test]
    fn what_moves_already_is_not_planned_again() {
        let mut state = cluster_of(3);
        state.shards[1].is_moving = true;
        let plan = plan(&state, &[]);
        let says = "nothing else moves\n1 shard is moving already, which is counted as done\n";
        assert!(plan.text().contains(says), "{}", plan.text());
        assert_eq!(plan.json()["moving"], 1);
    }

    #[test]
    fn a_node_that_joins_is_given_its_share_and_only_that_is_copied() {
        let plan = plan(&cluster_of(3), &["join", "1"]);
        assert_eq!(total(&plan), [6, 6]);
        let new = plan.nodes.last().expect("it is there");
        assert_eq!((new.node, new.called.as_str(), new.now, new.then, new.copied), (None, "new1", 0, 1, 1));
        assert!([1_000_000, 2_000_000].contains(&new.bytes), "{new:?}");
        assert_eq!(plan.made(), (1, new.bytes));
        assert_eq!(plan.dropped, 1);
        assert!(plan.text().contains("1 of 6 replicas move: ~"), "{}", plan.text());
        let json = plan.json();
        assert_eq!((&json["copied"], &json["bytes_to_copy"]), (&1.into(), &new.bytes.into()));
        assert!(json["nodes"][3]["node"].is_null() && json["shards"][0]["then_on"].is_array(), "{json}");
        // Two at once, and none beyond what a cluster can have.
        assert_eq!(self::plan(&cluster_of(3), &["join", "2"]).nodes.len(), 5);
        let many = Wanted::read(&["join", "62"], Joining::default()).expect("understood");
        let stop = Plan::of(&cluster_of(3), &many).expect_err("that is one too many");
        assert!(stop.code == 2 && stop.message.contains("64 nodes at most"), "{stop:?}");
    }

    #[test]
    fn a_node_without_room_for_what_it_would_be_given_is_named() {
        let mut state = cluster_of(4);
        for node in &mut state.nodes {
            node.space = DiskSpace { free: 1, total: 1 << 40 };
        }
        let plan = plan(&state, &["remove", "node1"]);
        let given: Vec<_> =
            plan.nodes.iter().filter(|node| node.bytes > 0).map(|node| &node.called).collect();
        assert!(!given.is_empty());
        assert_eq!(plan.short.iter().map(|(node, _)| node).collect::<Vec<_>>(), given);
        let says = format!("\n{} has 1 B free on its disk, which is not enough", given[0]);
        assert!(plan.text().contains(&says), "{}", plan.text());
        assert_eq!(plan.json()["short_of_disk"][0], **given[0]);
        // Of others nothing is known.
        for node in &mut state.nodes {
            node.space = DiskSpace::default();
        }
        assert!(self::plan(&state, &["remove", "node1"]).short.is_empty());
    }

    #[test]
    fn what_a_node_has_goes_elsewhere_when_it_leaves() {
        for what in ["remove", "drain"] {
            let state = cluster_of(4);
            let plan = plan(&state, &[what, "node1"]);
            let one = &plan.nodes[0];
            assert_eq!((one.then, one.copied), (0, 0), "{what}");
            assert_eq!(plan.made().0, one.now, "{what}: no more than it had");
            assert_eq!((total(&plan), plan.copies), ([6, 6], [3, 3]));
            assert_eq!(plan.refused, None);
        }
        let refused = plan(&cluster_of(3), &["remove", "node3"]);
        assert_eq!((refused.copies, total(&refused)), ([3, 2], [6, 4]));
        let text = refused.text();
        assert!(text.contains("0 replicas are made and 2 are removed, of 6\n"), "{text}");
        assert!(text.contains("then on node"), "{text}");
        assert!(text.contains("it would be refused without --force: without node3"), "{text}");
        let stop = Plan::of(&cluster_of(3), &Wanted::Stand("node9".into(), Standing::Leaving));
        assert!(stop.is_err_and(|stop| stop.code == 2 && stop.message.contains("no node node9")));
    }

    #[test]
    fn another_number_of_copies_is_rounded_and_said_why() {
        let more = plan(&cluster_of(5), &["replicas", "4"]);
        assert_eq!((more.copies, total(&more), more.made().0, more.dropped), ([3, 5], [6, 10], 4, 0));
        let text = more.text();
        assert!(text.contains("4 replicas are made and 0 are removed, of 6: ~6.0 MB to copy\n"), "{text}");
        assert!(text.contains("3 copies of each shard, then 5: 4 copies survive no more failures"), "{text}");
        let fewer = plan(&cluster_of(3), &["replicas", "1"]);
        assert_eq!((fewer.copies, total(&fewer), fewer.made().0, fewer.dropped), ([3, 1], [6, 2], 0, 4));
    }

    #[test]
    fn who_is_down_is_taken_for_gone() {
        let mut state = cluster_of(4);
        state.nodes[3].presence = Presence::Down;
        let plan = plan(&state, &[]);
        assert_eq!((plan.nodes[3].then, total(&plan)), (0, [6, 6]));
        assert!(
            plan.text().contains("node4 is down: this is what happens if that stays so"),
            "{}",
            plan.text()
        );
        assert_eq!(plan.json()["down"], json!(["node4"]));
    }

    #[test]
    fn what_can_not_be_planned_is_refused_with_what_can() {
        for words in [&["fly"][..], &["remove"], &["join", "0"], &["join", "many"], &["replicas", "0"]] {
            let stop = Wanted::read(words, Joining::default()).expect_err("refused");
            assert_eq!(stop.code, 2, "{stop:?}");
        }
        for (words, weight, zone, says) in [
            (&["join", "1"][..], Some(0), None, "from 1 to 100"),
            (&["join", "1"], Some(101), None, "from 1 to 100"),
            (&["join", "1"], None, Some(""), "no name for a zone"),
            (&["join", "1"], None, Some("a b"), "no name for a zone"),
            (&["drain", "node1"], Some(2), None, "--weight and --zone are for"),
            (&[], None, Some("a"), "--weight and --zone are for"),
        ] {
            let stop = Wanted::read(words, Joining { weight, zone }).expect_err("refused");
            assert!(stop.code == 2 && stop.message.contains(says), "{stop:?}");
        }
    }

    #[test]
    fn weights_and_zones_are_reckoned_with() {
        let mut state = cluster_of(4);
        let shards = Layout::first(layout_of(&state).expect("there is one").members, 7, 60, 3);
        let read =
            |words: &[&str], weight, zone| Wanted::read(words, Joining { weight, zone }).expect("understood");
        state.shards =
            shards.expect("it can be").shards.iter().map(crate::layout::tests::shard_state).collect();
        let of_new = |state: &ClusterState, wanted: &Wanted| {
            Plan::of(state, wanted).expect("there is one").nodes.last().expect("it is there").then
        };
        let light = of_new(&state, &read(&["join", "1"], None, None));
        let heavy = of_new(&state, &read(&["join", "1"], Some(2), None));
        assert!((30..40).contains(&light) && (55..65).contains(&heavy), "{light} and {heavy} of 180");
        // Those that are there count with theirs.
        state.nodes.iter_mut().for_each(|node| node.weight = 2);
        assert!((15..25).contains(&of_new(&state, &read(&["join", "1"], None, None))));
        assert_eq!(of_new(&state, &read(&["join", "1"], Some(2), None)), light);
        // The only one in the other zone has a copy of each shard that moves to it, and as many as it can take.
        state.nodes.iter_mut().for_each(|node| node.zone = "a".into());
        let away = Plan::of(&state, &read(&["join", "2"], Some(2), Some("b"))).expect("there is one");
        let copied: usize = away.nodes.iter().filter(|node| node.node.is_none()).map(|node| node.then).sum();
        assert_eq!(copied, 60, "one copy of each shard is in the other zone");
    }

    #[test]
    fn who_joins_has_the_number_that_it_will_be_given() {
        let mut state = cluster_of(4);
        let number = |state: &ClusterState| layout_of(state).expect("there is one").next_node;
        assert_eq!(number(&state), NodeId(5));
        state.next_node = NodeId(9);
        assert_eq!(number(&state), NodeId(9), "others were members once");
    }
}
