//! Nodes that leave, are drained, or are given replicas again: what `cluster remove`, `drain` and `undrain` do, the shell too.
//!
//! The meta group notes how the node should stand, and its leader puts the replicas elsewhere (`ringfort-node`'s `rebalance`). This
//! says beforehand what is at stake, asks for it, and waits until it is so. Whoever ends the wait ends nothing else.

use std::time::{Duration, Instant};

use ringfort_client::Client;
use ringfort_ring::effective_copies;
use ringfort_types::{
    ClusterState, Configuration, LayoutChange, NodeId, NodeState, PeerId, Presence, Replica, ReplicaReport,
    ShardId, ShardState, Standing,
};
use ringfort_view::{is_damaged, moving, name, presence_of};

use crate::cluster::{find_node, named};
use crate::json::Object;
use crate::progress::Progress;
use crate::show;
use crate::signals::Signals;
use crate::stop::Stop;
use crate::waiting::once_all_are_heard;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(200);
/// The same until the layout says what was asked for, and for how long.
const LOOK_NOTED: Duration = Duration::from_millis(20);
const NOTED_MAX: Duration = Duration::from_secs(3);
/// How long nothing may have moved. A shard's whole table may be on its way meanwhile.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long nothing may have moved before it is said what is waited for.
const QUIET: Duration = Duration::from_secs(10);
/// How long it takes at most until a node that can be given replicas is given the first.
const PLANNED_MAX: Duration = Duration::from_secs(5);

/// What is wanted of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// As people call it.
    pub(crate) node: String,
    pub(crate) standing: Standing,
    /// Whatever is at stake.
    pub(crate) force: bool,
    /// Until it is so.
    pub(crate) wait: bool,
}

/// What has come of it.
#[derive(Debug)]
pub(crate) struct Changed {
    node: NodeId,
    called: String,
    /// How it stood before.
    was: Standing,
    standing: Standing,
    /// Whether it is so, and not only asked for.
    done: bool,
    time: Duration,
}

/// Has a node stand so.
pub(crate) async fn change_standing(client: &Client, wanted: &Wanted) -> Result<Changed, Stop> {
    let begun = Instant::now();
    let state = once_all_are_heard(client).await?;
    let found = find_node(&state, &wanted.node)?;
    let (node, was) = (found.id, found.standing);
    let called = name(&state, node);
    check(&state, node, wanted.standing)?;
    if !wanted.force {
        at_stake(&state, node, wanted.standing).map_err(|stop| Stop {
            message: format!("{}; nothing was changed, and --force does it all the same", stop.message),
            ..stop
        })?;
    }
    client.change_layout(LayoutChange::Stand(node, wanted.standing)).await?;
    let then = until_noted(client, node, &called, wanted.standing).await?;
    if let Some(stop) = raced(&then, node, was, wanted) {
        client.change_layout(LayoutChange::Stand(node, was)).await?;
        return Err(stop);
    }
    if wanted.wait {
        let mut signals = Signals::new()?;
        tokio::select! {
            done = until_done(client, node, &called, wanted.standing) => done?,
            _ = signals.next() => {
                return Err(Stop::unavailable("interrupted: it is asked for, and goes on by itself; see `ringfort status`"));
            }
        }
    }
    let (standing, done) = (wanted.standing, wanted.wait);
    Ok(Changed { node, called, was, standing, done, time: begun.elapsed() })
}

/// Waits until the layout says so, as the asked node knows it.
async fn until_noted(
    client: &Client,
    node: NodeId,
    called: &str,
    standing: Standing,
) -> Result<ClusterState, Stop> {
    let begun = Instant::now();
    loop {
        let state = client.cluster_state().await?;
        if is_noted(&state, node, standing) {
            return Ok(state);
        }
        if begun.elapsed() > NOTED_MAX {
            return Err(Stop::unavailable(format!(
                "the cluster has not taken it that {called} is to be {standing}: it may be the only node by now that is given replicas; \
                 see `ringfort cluster nodes`, and try again"
            )));
        }
        tokio::time::sleep(LOOK_NOTED).await;
    }
}

fn is_noted(state: &ClusterState, node: NodeId, standing: Standing) -> bool {
    let known = state.nodes.iter().find(|known| known.id == node);
    known.map_or(standing == Standing::Leaving, |known| known.standing == standing)
}

/// Two who ask at the same moment each see the other one's node as it was. The layout has them one after the other: whoever finds there that
/// with the other one's it is too much takes its own back, and says why.
fn raced(then: &ClusterState, node: NodeId, was: Standing, wanted: &Wanted) -> Option<Stop> {
    let mut before = then.clone();
    let known = before.nodes.iter_mut().find(|known| known.id == node)?;
    if wanted.force || was != Standing::Active {
        return None;
    }
    known.standing = was;
    let stop = at_stake(&before, node, wanted.standing).err()?;
    Some(Stop {
        message: format!(
            "others were taken out at the same moment: {}; {} is {was} again, and --force does it all the same",
            stop.message,
            name(then, node)
        ),
        ..stop
    })
}

/// Refuses what can't be.
fn check(state: &ClusterState, node: NodeId, standing: Standing) -> Result<(), Stop> {
    if standing == Standing::Active || actives(state).any(|other| other.id != node) {
        return Ok(());
    }
    Err(Stop::usage(format!(
        "{} is the only node that is given replicas, and there has to be one: have another one join first, or take one back \
         with `ringfort cluster undrain NODE`",
        name(state, node)
    )))
}

fn actives(state: &ClusterState) -> impl Iterator<Item = &NodeState> {
    state.nodes.iter().filter(|node| node.standing == Standing::Active)
}

/// What would be lost by it, or could not be done: fewer copies than there are, or a shard whose other replicas are not enough.
pub(crate) fn at_stake(state: &ClusterState, node: NodeId, standing: Standing) -> Result<(), Stop> {
    let is_so = |known: &NodeState| known.id == node && known.standing == standing;
    if standing == Standing::Active || state.nodes.iter().any(is_so) {
        return Ok(());
    }
    check(state, node, standing)?;
    let called = name(state, node);
    let (now, left) = (actives(state).count(), actives(state).filter(|other| other.id != node).count());
    let copies_now = effective_copies(state.copies, now as u32).0;
    let copies = effective_copies(state.copies, left as u32).0;
    if copies < copies_now {
        let lost = |copies: u32| match (copies - 1) / 2 {
            0 => "no node".to_owned(),
            lost => show::count(lost.into(), "node", "nodes"),
        };
        let survived = if lost(copies) == lost(copies_now) {
            String::new()
        } else {
            format!(", which survive the loss of {} instead of {}", lost(copies), lost(copies_now))
        };
        return Err(Stop::usage(format!(
            "without {called} there {} left, and each shard has {} instead of {copies_now}{survived}: have another node join first",
            if left == 1 { "is 1 node".to_owned() } else { format!("are {left} nodes") },
            show::count(copies.into(), "copy", "copies"),
        )));
    }
    let is_up = |other: &&NodeState| other.presence == Presence::Up;
    let up = actives(state).filter(|other| other.id != node).filter(is_up).count();
    if up < copies as usize {
        return Err(Stop::unavailable(format!(
            "without {called} {} up, and each shard has {copies} copies: {}",
            if up == 1 { "1 node is".to_owned() } else { format!("{up} nodes are") },
            start_first(state, node),
        )));
    }
    let stuck: Vec<ShardId> =
        state.shards.iter().filter(|shard| needs(state, shard, node)).map(|shard| shard.shard).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    Err(Stop::unavailable(format!(
        "without {called} {} of {} would have no majority of replicas that are up ({}): {}",
        stuck.len(),
        show::count(state.shards.len() as u64, "shard", "shards"),
        named(&stuck),
        start_first(state, node),
    )))
}

/// What is to be done first about others than this node.
fn start_first(state: &ClusterState, node: NodeId) -> String {
    let down = state.nodes.iter().filter(|other| other.id != node && other.presence != Presence::Up);
    let down: Vec<String> = down.map(|other| name(state, other.id)).collect();
    if down.is_empty() {
        return "wait until all replicas are whole, see `ringfort status`".to_owned();
    }
    format!("start {} first, and wait until all has caught up", down.join(", "))
}

/// Whether a shard can't do without this node's replica because other ones are missing. Where none is, the node is up and hands its
/// replica over before it goes.
fn needs(state: &ClusterState, shard: &ShardState, node: NodeId) -> bool {
    let is_live = |of: NodeId| presence_of(state, of) == Presence::Up && !is_damaged(state, of, shard.shard);
    let has = |of: &NodeId| shard.replicas.iter().any(|(at, _)| at == of);
    if !has(&node) || shard.replicas.iter().all(|(at, _)| is_live(*at)) {
        return false;
    }
    let replica = |(node, _): &(NodeId, ReplicaReport)| Replica { node: *node, peer: PeerId(node.0) };
    let group = Configuration::born(shard.replicas.iter().map(replica).collect());
    !group.is_quorum(|peer| group.node_of(peer).is_some_and(|at| at != node && is_live(at)))
}

/// Whether it is as it should be. `since` it was asked for.
fn is_done(state: &ClusterState, node: NodeId, standing: Standing, since: Duration) -> bool {
    let known = state.nodes.iter().find(|known| known.id == node);
    let has_any = state.shards.iter().any(|shard| shard.replicas.iter().any(|(at, _)| *at == node));
    let is_moving = !moving(state).is_empty();
    match (standing, known) {
        (Standing::Leaving, known) => known.is_none(),
        (_, None) => false,
        (Standing::Draining, Some(known)) => known.standing == standing && !has_any && !is_moving,
        (Standing::Active, Some(known)) => {
            known.standing == standing && !is_moving && (has_any || since > PLANNED_MAX)
        }
    }
}

/// How far it is. While it differs from what it was, something moves.
fn how_far(state: &ClusterState, node: NodeId) -> (u64, Vec<ShardId>, usize) {
    let has = |shard: &&ShardState| shard.replicas.iter().any(|(at, _)| *at == node);
    (state.epoch.0, moving(state), state.shards.iter().filter(has).count())
}

/// What is said once nothing has moved for a while.
fn waited_for(state: &ClusterState, called: &str) -> String {
    let moving = moving(state);
    let what = match moving.len() {
        0 => format!("{called} is waited for"),
        1 => format!("shard {} waits", named(&moving)),
        many => format!("{many} shards wait ({})", named(&moving)),
    };
    let down = state.nodes.iter().filter(|node| node.presence == Presence::Down);
    let down: Vec<String> = down.map(|node| name(state, node.id)).collect();
    let who = match &down[..] {
        [] => "all nodes are up, see `ringfort status`".to_owned(),
        [one] => format!("{one} is down, and what can't go on without it goes on once it is back"),
        more => format!(
            "{} are down, and what can't go on without them goes on once they are back",
            more.join(", ")
        ),
    };
    format!("nothing has moved for {}: {what}; {who} (to end this wait ends nothing else)", show::span(QUIET))
}

async fn until_done(client: &Client, node: NodeId, called: &str, standing: Standing) -> Result<(), Stop> {
    let asked = Instant::now();
    let (mut moved, mut before, mut is_said) = (asked, None, false);
    let progress = Progress::new(None);
    loop {
        let state = client.cluster_state().await.map_err(|failure| {
            Stop::unavailable(format!(
                "it is asked for, and goes on by itself, but how far it is can't be found out: {failure}"
            ))
        })?;
        if is_done(&state, node, standing, asked.elapsed()) {
            return Ok(());
        }
        let now = how_far(&state, node);
        let moving = show::count(now.1.len() as u64, "shard", "shards");
        progress.say(&format!("{called}: {moving} moving"));
        if before.as_ref() != Some(&now) {
            (before, moved, is_said) = (Some(now), Instant::now(), false);
        } else if moved.elapsed() > QUIET && !is_said {
            progress.note(&waited_for(&state, called));
            is_said = true;
        } else if moved.elapsed() > PATIENCE {
            return Err(Stop::unavailable(format!(
                "it is asked for, but nothing has moved for {}: it goes on once what is missing is back; see `ringfort status`",
                show::span(PATIENCE)
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Changed {
    pub(crate) fn text(&self) -> String {
        let node = &self.called;
        match (self.standing, self.done) {
            (Standing::Leaving, true) => {
                format!("{node} is removed: nobody needs its data directory any more")
            }
            (Standing::Draining, true) => {
                format!(
                    "{node} has no replicas any more; `ringfort cluster undrain {node}` gives it some again"
                )
            }
            (Standing::Active, true) if self.was == Standing::Active => {
                format!("{node} was given replicas all the time")
            }
            (Standing::Active, true) => format!("{node} is given replicas"),
            (standing, false) => {
                format!("{node} is {standing} from now on; `ringfort status` shows what is still moving")
            }
        }
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        let standing = match self.standing {
            Standing::Leaving if self.done => "removed".to_owned(),
            standing => standing.to_string(),
        };
        Object::new()
            .field("node", self.node.0)
            .field("name", &self.called)
            .field("standing", standing)
            .field("done", self.done)
            .field("seconds", self.time.as_secs_f64())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::cluster_of;

    const SOON: Duration = Duration::from_secs(1);

    #[track_caller]
    fn refused(state: &ClusterState, node: u64, standing: Standing, code: u8, says: &str) {
        let stop = at_stake(state, NodeId(node), standing).expect_err("something is at stake");
        assert!(stop.code == code && stop.message.contains(says), "{stop:?}");
    }

    #[test]
    fn what_leaves_fewer_copies_is_refused_with_what_they_survive() {
        let says = "without node3 there are 2 nodes left, and each shard has 2 copies instead of 3, which survive the loss of no node \
                    instead of 1 node";
        refused(&cluster_of(3), 3, Standing::Leaving, 2, says);
        refused(&cluster_of(3), 3, Standing::Draining, 2, says);
        assert_eq!(at_stake(&cluster_of(4), NodeId(3), Standing::Leaving), Ok(()));
        // An even number is rounded, before and after.
        let mut five = cluster_of(5);
        five.copies = 4;
        refused(
            &five,
            1,
            Standing::Draining,
            2,
            "are 4 nodes left, and each shard has 3 copies instead of 5",
        );
        five.copies = 3;
        assert_eq!(at_stake(&five, NodeId(1), Standing::Draining), Ok(()));
        // Who is drained already takes no copy along.
        five.nodes.truncate(4);
        five.nodes[3].standing = Standing::Draining;
        assert_eq!(at_stake(&five, NodeId(4), Standing::Leaving), Ok(()));
        refused(&five, 1, Standing::Draining, 2, "are 2 nodes left");
        assert_eq!(at_stake(&five, NodeId(4), Standing::Active), Ok(()));
    }

    #[test]
    fn the_last_one_stays_whatever_is_said() {
        let mut state = cluster_of(2);
        state.nodes[0].standing = Standing::Draining;
        let stop = check(&state, NodeId(2), Standing::Leaving).expect_err("it is the last");
        assert!(stop.code == 2 && stop.message.contains("the only node that is given replicas"), "{stop:?}");
        assert_eq!(check(&state, NodeId(1), Standing::Leaving), Ok(()), "it is drained already");
        assert_eq!(check(&state, NodeId(1), Standing::Active), Ok(()));
        assert!(check(&cluster_of(1), NodeId(1), Standing::Draining).is_err());
    }

    #[test]
    fn what_is_down_may_go_and_is_waited_for_where_another_one_goes() {
        let mut state = cluster_of(4);
        state.nodes[3].presence = Presence::Down;
        assert_eq!(at_stake(&state, NodeId(4), Standing::Leaving), Ok(()));
        refused(&state, 1, Standing::Leaving, 3, "2 nodes are up, and each shard has 3 copies: start node4");
        // Nodes enough, but of one shard only one replica would be left of three.
        let mut state = cluster_of(6);
        state.nodes[4].presence = Presence::Down;
        let report = ReplicaReport::default();
        state.shards[1].replicas = [1, 2, 5].map(|node| (NodeId(node), report)).to_vec();
        state.shards[2].replicas = [2, 3, 4].map(|node| (NodeId(node), report)).to_vec();
        let says = "1 of 3 shards would have no majority of replicas that are up (1): start node5 first";
        refused(&state, 1, Standing::Leaving, 3, says);
        assert_eq!(at_stake(&state, NodeId(3), Standing::Leaving), Ok(()), "of five, three are left");
        // The same for one that is damaged.
        let mut state = cluster_of(4);
        let shard = state.shards.iter().position(|shard| shard.shard == ShardId(1)).expect("it is there");
        let (first, second) = (state.shards[shard].replicas[0].0, state.shards[shard].replicas[1].0);
        let at = state.nodes.iter().position(|node| node.id == first).expect("it is there");
        state.nodes[at].damaged = vec![ShardId(1)];
        refused(
            &state,
            second.0,
            Standing::Draining,
            3,
            "1 of 3 shards would have no majority of replicas that are up (1): wait until all replicas are whole",
        );
        assert_eq!(at_stake(&state, first, Standing::Draining), Ok(()));
    }

    #[test]
    fn a_lone_replica_is_handed_over_by_a_node_that_is_up_and_lost_with_one_that_is_not() {
        let mut state = cluster_of(3);
        state.copies = 1;
        for shard in &mut state.shards {
            shard.replicas.retain(|(node, _)| *node == NodeId(2));
        }
        assert_eq!(at_stake(&state, NodeId(2), Standing::Leaving), Ok(()));
        state.nodes[1].presence = Presence::Down;
        refused(&state, 2, Standing::Leaving, 3, "without node2");
    }

    #[test]
    fn it_is_done_when_nothing_of_it_is_left_and_nothing_moves() {
        let mut state = cluster_of(4);
        assert!(!is_done(&state, NodeId(4), Standing::Leaving, SOON));
        assert!(!is_done(&state, NodeId(4), Standing::Draining, SOON));
        assert!(is_done(&state, NodeId(1), Standing::Active, SOON));
        state.nodes[3].standing = Standing::Draining;
        for shard in &mut state.shards {
            shard.replicas.retain(|(node, _)| *node != NodeId(4));
        }
        assert!(is_done(&state, NodeId(4), Standing::Draining, SOON));
        assert!(!is_done(&state, NodeId(4), Standing::Active, SOON), "it is not heard of yet");
        state.shards[1].is_moving = true;
        assert!(!is_done(&state, NodeId(4), Standing::Draining, SOON));
        assert_eq!(how_far(&state, NodeId(4)), (1, vec![ShardId(1)], 0));
        state.nodes.pop();
        assert!(is_done(&state, NodeId(4), Standing::Leaving, SOON));
        // One that nothing comes to is not waited for.
        let mut state = cluster_of(4);
        state.shards.clear();
        assert!(!is_done(&state, NodeId(4), Standing::Active, SOON));
        assert!(is_done(&state, NodeId(4), Standing::Active, PLANNED_MAX * 2));
    }

    #[test]
    fn who_is_waited_for_is_named() {
        let mut state = cluster_of(4);
        for shard in &mut state.shards[1..] {
            shard.is_moving = false;
        }
        assert!(
            waited_for(&state, "node4")
                .ends_with("all nodes are up, see `ringfort status` (to end this wait ends nothing else)")
        );
        state.shards[1].is_moving = true;
        state.nodes[1].presence = Presence::Down;
        let said = waited_for(&state, "node4");
        assert!(said.contains("shard 1 waits; node2 is down, and"), "{said}");
    }

    #[test]
    fn of_two_that_go_at_once_the_one_that_is_too_much_comes_back() {
        let wanted =
            |force| Wanted { node: "node4".into(), standing: Standing::Draining, force, wait: false };
        let mut then = cluster_of(4);
        then.nodes[3].standing = Standing::Draining;
        assert!(
            is_noted(&then, NodeId(4), Standing::Draining) && !is_noted(&then, NodeId(3), Standing::Draining)
        );
        assert!(is_noted(&then, NodeId(9), Standing::Leaving), "it has left");
        assert_eq!(raced(&then, NodeId(4), Standing::Active, &wanted(false)), None);
        then.nodes[2].standing = Standing::Leaving;
        let stop = raced(&then, NodeId(4), Standing::Active, &wanted(false)).expect("too much");
        let says = "others were taken out at the same moment: without node4 there are 2 nodes left";
        assert!(stop.code == 2 && stop.message.starts_with(says), "{stop:?}");
        assert!(stop.message.contains("node4 is active again"), "{stop:?}");
        assert_eq!(raced(&then, NodeId(4), Standing::Active, &wanted(true)), None);
        assert_eq!(
            raced(&then, NodeId(4), Standing::Draining, &wanted(false)),
            None,
            "it took no copy along"
        );
    }

    #[test]
    fn what_is_asked_for_is_not_called_done() {
        let changed = |standing, done| Changed {
            node: NodeId(4),
            called: "node4".into(),
            was: Standing::Draining,
            standing,
            done,
            time: SOON,
        };
        assert_eq!(
            changed(Standing::Leaving, true).text(),
            "node4 is removed: nobody needs its data directory any more"
        );
        assert!(changed(Standing::Leaving, false).text().starts_with("node4 is leaving from now on"));
        for (done, standing) in [(true, "removed"), (false, "leaving")] {
            let json: serde_json::Value =
                serde_json::from_slice(&changed(Standing::Leaving, done).json()).expect("JSON");
            assert_eq!((&json["standing"], &json["done"]), (&standing.into(), &done.into()));
        }
    }
}
