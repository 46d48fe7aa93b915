//! What can be asked of a cluster as a whole: the words after `ringfort cluster`, which the shell has, too.

use std::time::Duration;

use clap::ValueEnum;
use ringfort_client::Client;
use ringfort_types::{ClusterState, LayoutChange, LeaderPreference, LevelLimit, Standing};
use ringfort_view::{node_json, shard_json};
use serde_json::json;

use crate::cluster::{node_table, shard_table};
use crate::layout::copies_of;
use crate::plan::{self, Joining, Plan};
use crate::standing::{self, change_standing};
use crate::stop::Stop;
use crate::transfer::transfer;

/// Until the node that was asked is asked again whether it goes by what was set, and how often.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;
const SETTINGS: &str = "leader-preference=ring, replicas=3 and level=auto";

/// The first of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// A line for each node
    Nodes,
    /// A line for each shard
    Shards,
    /// Show the cluster's settings, or change one
    Set,
    /// Have another node lead a shard
    Transfer,
    /// Put a node's replicas on the others, and make it no member any more
    Remove,
    /// Put a node's replicas on the others
    Drain,
    /// Give a node replicas again
    Undrain,
    /// Show what would move
    Plan,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Nodes,
    Shards,
    Settings,
    Prefer(LeaderPreference),
    Copies(u32),
    Level(LevelLimit),
    Transfer { shard: String, node: String },
    Stand(standing::Wanted),
    Plan(plan::Wanted),
}

/// What is said of it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// To people.
    pub(crate) text: String,
    /// To programs, an object each.
    pub(crate) json: Vec<Vec<u8>>,
}

/// What is said besides the words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags<'a> {
    pub(crate) force: bool,
    pub(crate) wait: bool,
    pub(crate) joining: Joining<'a>,
}

impl Order {
    /// What these words, the first of them apart, and flags ask for.
    pub(crate) fn read(what: Action, words: &[&str], flags: Flags<'_>) -> Result<Order, Stop> {
        let Flags { force, wait, joining } = flags;
        let standing = match what {
            Action::Remove => Some(Standing::Leaving),
            Action::Drain => Some(Standing::Draining),
            Action::Undrain => Some(Standing::Active),
            _ => None,
        };
        if force && standing.is_none_or(|standing| standing == Standing::Active) {
            return Err(Stop::usage("--force is for `ringfort cluster remove` and `drain`: leave it out"));
        }
        if !wait && standing.is_none() {
            return Err(Stop::usage(
                "--no-wait is for `ringfort cluster remove`, `drain` and `undrain`: leave it out",
            ));
        }
        if what != Action::Plan && (joining.weight.is_some() || joining.zone.is_some()) {
            return Err(Stop::usage(plan::JOINING_ONLY));
        }
        if let Some(standing) = standing {
            let verb = what.word();
            return match words {
                [node] => {
                    Ok(Order::Stand(standing::Wanted { node: (*node).to_owned(), standing, force, wait }))
                }
                _ => Err(Stop::usage(format!(
                    "{verb} takes the name of one node: `ringfort cluster nodes` lists them"
                ))),
            };
        }
        match (what, words) {
            (Action::Plan, words) => plan::Wanted::read(words, joining).map(Order::Plan),
            (Action::Transfer, [shard, node]) => {
                Ok(Order::Transfer { shard: (*shard).to_owned(), node: (*node).to_owned() })
            }
            (Action::Transfer, _) => {
                Err(Stop::usage("name a shard and a node, as in `ringfort cluster transfer 3 node2`"))
            }
            (Action::Set, [setting]) => Order::setting(setting),
            (Action::Set, [_, more, ..]) => Err(Stop::usage(format!(
                "one setting at a time: leave {more:?} out, or set it after the first"
            ))),
            (Action::Set, []) => Ok(Order::Settings),
            (Action::Nodes, []) => Ok(Order::Nodes),
            (Action::Shards, []) => Ok(Order::Shards),
            (_, [word, ..]) => {
                let is_setting = word.contains('=');
                let of = if is_setting { " is for `ringfort cluster set`" } else { " is one word too many" };
                Err(Stop::usage(format!("{word:?}{of}: leave it out")))
            }
            (_, []) => unreachable!("all that take no word are above"),
        }
    }

    fn setting(setting: &str) -> Result<Order, Stop> {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Stop::usage(format!(
                "{setting:?} has no value: write SETTING=VALUE, as in {SETTINGS}"
            )));
        };
        match name.trim() {
            "leader-preference" => value.trim().parse().map(Order::Prefer).map_err(Stop::usage),
            "level" => value.trim().parse().map(Order::Level).map_err(Stop::usage),
            "replicas" => plan::copies(value.trim()).map(Order::Copies),
            other => {
                Err(Stop::usage(format!("no setting of a cluster is called {other:?}: there are {SETTINGS}")))
            }
        }
    }
}

impl Action {
    /// As people write it.
    pub(crate) fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Does it.
pub(crate) async fn carry_out(client: &Client, order: &Order) -> Result<Answer, Stop> {
    let of = |text: String, json: Vec<u8>| Ok(Answer { text, json: vec![json] });
    match order {
        Order::Nodes => {
            let state = client.cluster_state().await?;
            let line = |node| node_json(&state, node).to_string().into_bytes();
            Ok(Answer { text: node_table(&state), json: state.nodes.iter().map(line).collect() })
        }
        Order::Shards => {
            let state = client.cluster_state().await?;
            let line = |shard| shard_json(&state, shard).to_string().into_bytes();
            Ok(Answer { text: shard_table(&state), json: state.shards.iter().map(line).collect() })
        }
        Order::Settings => {
            let state = client.cluster_state().await?;
            let texts = [preference_text(&state), copies_text(&state), level_text(&state)];
            of(texts.join("\n"), settings_json(&state))
        }
        Order::Prefer(preference) => {
            let is_so = |state: &ClusterState| state.leader_preference == *preference;
            let state = set(client, LayoutChange::Prefer(*preference), is_so).await?;
            of(preference_text(&state), settings_json(&state))
        }
        Order::Copies(copies) => {
            let is_so = |state: &ClusterState| state.copies == *copies;
            let state = set(client, LayoutChange::Copies(*copies), is_so).await?;
            of(copies_text(&state), settings_json(&state))
        }
        Order::Level(limit) => {
            check_level(&client.cluster_state().await?, *limit)?;
            let is_so = |state: &ClusterState| state.level_limit == *limit;
            let state = set(client, LayoutChange::Limit(*limit), is_so).await?;
            of(level_text(&state), settings_json(&state))
        }
        Order::Transfer { shard, node } => {
            let done = transfer(client, shard, node).await?;
            of(done.text(), done.json())
        }
        Order::Stand(wanted) => {
            let done = change_standing(client, wanted).await?;
            of(done.text(), done.json())
        }
        Order::Plan(wanted) => {
            let plan = Plan::of(&client.cluster_state().await?, wanted)?;
            of(plan.text(), plan.json().to_string().into_bytes())
        }
    }
}

/// Changes a setting, and waits until a node that is asked goes by it.
async fn set(
    client: &Client,
    change: LayoutChange,
    is_so: impl Fn(&ClusterState) -> bool,
) -> Result<ClusterState, Stop> {
    client.change_layout(change).await?;
    for _ in 0..LOOKS {
        let state = client.cluster_state().await?;
        if is_so(&state) {
            return Ok(state);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::unavailable(
        "it is set, but the node that was asked does not go by it yet: look again with `ringfort cluster set`",
    ))
}

fn preference_text(state: &ClusterState) -> String {
    format!("leader-preference = {}", state.leader_preference)
}

fn copies_text(state: &ClusterState) -> String {
    let why = copies_of(state).1.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("replicas = {}{why}", state.copies)
}

fn level_text(state: &ClusterState) -> String {
    format!("level = {} (level {} is in force)", state.level_limit, state.level)
}

/// Refuses to hold back what is in force.
fn check_level(state: &ClusterState, limit: LevelLimit) -> Result<(), Stop> {
    match limit {
        LevelLimit::AtMost(most) if most.0 < state.level => Err(Stop::usage(format!(
            "level {} is in force, and can't be taken back: give that one or a higher one, or auto",
            state.level
        ))),
        _ => Ok(()),
    }
}

fn settings_json(state: &ClusterState) -> Vec<u8> {
    let (copies, why) = copies_of(state);
    let settings = json!({
        "leader_preference": state.leader_preference.to_string(),
        "replicas": state.copies,
        "copies": copies,
        "why": why,
        "level": state.level,
        "level_limit": state.level_limit.to_string(),
    });
    settings.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use ringfort_types::Level;

    use super::*;
    use crate::layout::tests::cluster_of;

    fn read(line: &str, force: bool, wait: bool) -> Result<Order, Stop> {
        let mut words = line.split(' ');
        let what = Action::from_str(words.next().expect("a word"), false).expect("known");
        let flags = Flags { force, wait, joining: Joining::default() };
        Order::read(what, &words.collect::<Vec<_>>(), flags)
    }

    #[test]
    fn words_are_read_as_they_are_meant() {
        let stand = |standing, force, wait| {
            Order::Stand(standing::Wanted { node: "node4".into(), standing, force, wait })
        };
        for (line, force, wait, order) in [
            ("nodes", false, true, Order::Nodes),
            ("set", false, true, Order::Settings),
            ("set replicas=5", false, true, Order::Copies(5)),
            ("set leader-preference=ring", false, true, Order::Prefer(LeaderPreference::Ring)),
            ("set level=auto", false, true, Order::Level(LevelLimit::Auto)),
            ("set level=2", false, true, Order::Level(LevelLimit::AtMost(Level(2)))),
            ("remove node4", false, true, stand(Standing::Leaving, false, true)),
            ("drain node4", true, false, stand(Standing::Draining, true, false)),
            ("undrain node4", false, false, stand(Standing::Active, false, false)),
            ("plan", false, true, Order::Plan(plan::Wanted::AsItIs)),
            (
                "plan join 2",
                false,
                true,
                Order::Plan(plan::Wanted::Join { count: 2, weight: 1, zone: String::new() }),
            ),
        ] {
            assert_eq!(read(line, force, wait), Ok(order), "{line}");
        }
        for (line, force, wait, says) in [
            ("remove", false, true, "remove takes the name of one node"),
            ("drain a b", false, true, "drain takes the name of one node"),
            ("undrain node4", true, true, "--force is for"),
            ("nodes", true, true, "--force is for"),
            ("set replicas=5", false, false, "--no-wait is for"),
            ("set replicas=65", false, true, "one from 1 to 64"),
            ("set replicas=many", false, true, "one from 1 to 64"),
            ("set replicas", false, true, "has no value"),
            ("set level=0", false, true, "say auto, or a number from 1"),
            ("set copies=3", false, true, "there are leader-preference=ring, replicas=3 and level=auto"),
            ("nodes a=b", false, true, "`ringfort cluster set`"),
            ("shards 3", false, true, "one word too many"),
            ("transfer 3", false, true, "a shard and a node"),
        ] {
            let stop = read(line, force, wait).expect_err(line);
            assert!(stop.code == 2 && stop.message.contains(says), "{line}: {stop:?}");
        }
    }

    #[test]
    fn what_is_in_force_is_not_taken_back() {
        let state = ClusterState { level: 3, ..cluster_of(3) };
        for (limit, is_refused) in [("auto", false), ("2", true), ("3", false), ("4", false)] {
            let limit = limit.parse().expect("a limit");
            assert_eq!(check_level(&state, limit).is_err(), is_refused, "{limit}");
        }
        assert_eq!(level_text(&state), "level = auto (level 3 is in force)");
    }

    #[test]
    fn a_number_that_is_rounded_is_said_with_its_reason() {
        let mut state = cluster_of(5);
        assert_eq!(copies_text(&state), "replicas = 3");
        state.copies = 4;
        assert_eq!(
            copies_text(&state),
            "replicas = 4 (4 copies survive no more failures than 3: each shard gets 5 instead)"
        );
        let json: serde_json::Value = serde_json::from_slice(&settings_json(&state)).expect("JSON");
        assert_eq!((&json["replicas"], &json["copies"]), (&4.into(), &5.into()));
        state.copies = 7;
        assert!(
            copies_text(&state).contains("(7 copies were asked for, but there are 5 nodes"),
            "{}",
            copies_text(&state)
        );
    }
}
