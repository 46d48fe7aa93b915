//! Stories about a group, told as scripts: `tests/scripts/*.script`, each with the commands and what comes of them.
//!
//! A script is compared with what happens now, line by line; `UPDATE_GOLDENFILES=1` writes it anew, and the
//! difference is then for people to judge. Replicas are called S1, S2, …, as in the Raft paper. Entries are written
//! as `index@term`.
//!
//! What waits for a disk can't be shown before that disk is done: the ticket that holds it has no other way to be
//! opened ([`ringfort_consensus::Unsynced`]).

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use goldenscript::{Context, Runner};
use ringfort_consensus::{Outgoing, Restored};
use ringfort_types::{Configuration, ConfigurationChange, Index, PeerId, Record, Role, Term};

use crate::replica::{OnDisk, Replica, born, place};
use crate::told::{configuration_shown, log_shown, records_shown, shown, vote_shown};

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = concat!("tests/scripts/", stringify!($name), ".script");
            let told = goldenscript::run(&mut Story::default(), path);
            told.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    )*};
}

stories! {
    a_leader_is_elected
    a_split_vote_is_resolved
    a_restarted_voter_does_not_vote_twice
    a_restarted_voter_withholds_its_vote
    figure_8_an_old_entry_is_overwritten
    figure_8_an_old_entry_is_committed
    a_follower_is_replaced
    a_leader_is_replaced_once_it_has_handed_over
    a_group_grows_from_one_to_three
    a_group_shrinks_from_three_to_one
    a_leader_is_lost_in_a_joint_configuration
    a_voter_with_an_old_configuration_answers_a_stranger
}

/// What a script may say. A replica is named by its number.
#[derive(goldenscript::Command)]
enum Command {
    /// So many new replicas, none of which has heard of a leader.
    Cluster(u64),
    /// Time passes for one replica, or for `all` that run. Nothing is delivered meanwhile.
    Tick(String, u64),
    /// A replica's election timeout has passed.
    Campaign(u64),
    /// A client asks a replica to append an entry; with `bytes`, one of that size.
    Propose {
        replica: u64,
        payload: String,
        #[arg(key)]
        bytes: Option<usize>,
    },
    /// Delivers the messages that are under way, or the first so many; what is sent meanwhile stays under way.
    Deliver {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
        #[arg(key)]
        count: Option<usize>,
    },
    /// Delivers until nothing is under way.
    Settle,
    /// Loses messages that are under way.
    Drop {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
    },
    /// The network delivers messages that are under way twice: copies of them come last.
    Repeat {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
    },
    /// From now on these replicas are cut off from all others, though not from each other.
    Cut(Vec<u64>),
    /// All replicas can reach each other again.
    Heal,
    /// A replica's disk takes in writes and does not say that they are synced until `sync` or `disk ID quick`.
    Disk(u64, Pace),
    /// A slow disk has synced all that it was given.
    Sync(u64),
    /// A replica's process is killed and its machine loses power: what was not synced is gone.
    Crash(u64),
    /// It starts again from its disk.
    Restart(u64),
    /// A new replica, which knows of its group what that was born with.
    New(u64),
    /// A leader is asked to add a learner.
    Add { leader: u64, learner: u64 },
    /// A leader is asked to remove one.
    Remove { leader: u64, learner: u64 },
    /// A leader is asked to enter a joint configuration; replicas are parted by commas.
    Enter {
        leader: u64,
        #[arg(key)]
        promote: Option<String>,
        #[arg(key)]
        demote: Option<String>,
    },
    /// A leader is asked to leave it.
    Leave { leader: u64 },
    /// A leader is asked to hand over.
    Transfer { leader: u64, to: u64 },
    /// How many replicas a leader knows to have synced an entry.
    Copies { leader: u64, index: u64 },
    /// What every replica is and has.
    Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Slow,
    Quick,
}

impl std::str::FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Pace, String> {
        match text {
            "slow" => Ok(Pace::Slow),
            "quick" => Ok(Pace::Quick),
            other => Err(format!("a disk is slow or quick, not {other}")),
        }
    }
}

/// A message under way.
#[derive(Clone)]
pub(crate) struct Flying {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) message: Bytes,
}

#[derive(Default)]
struct Story {
    /// The replicas that there are: numbers up to this one.
    voters: u64,
    /// What their group was born with.
    born: Configuration,
    running: BTreeMap<u64, Replica>,
    /// What is synced of those that are down.
    down: BTreeMap<u64, Vec<Record>>,
    flying: Vec<Flying>,
    cut: Vec<u64>,
    told: String,
}

type Told = Result<String, Box<dyn Error>>;

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Told {
        self.carry_out(command)?;
        Ok(std::mem::take(&mut self.told))
    }
}

impl Story {
    fn carry_out(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        match command {
            Command::Cluster(voters) => {
                self.voters = *voters;
                self.born = born(*voters);
                let replica = |me| (me, Replica::new(me, born(*voters), &Restored::default()));
                self.running = (1..=*voters).map(replica).collect();
            }
            Command::Tick(whom, count) => {
                let ids: Vec<u64> = match whom.parse() {
                    Ok(id) => vec![id],
                    Err(_) if whom == "all" => self.running.keys().copied().collect(),
                    Err(_) => return Err(format!("time passes for a number or for `all`, not {whom}").into()),
                };
                for tick in 1..=*count {
                    let before = std::mem::take(&mut self.told);
                    for id in &ids {
                        self.act(*id, |replica| replica.group.tick())?;
                    }
                    let lines = std::mem::replace(&mut self.told, before);
                    lines.lines().for_each(|line| self.tell(format!("tick {tick}: {line}")));
                }
            }
            Command::Campaign(id) => self.act(*id, |replica| replica.group.campaign())?,
            Command::Propose { replica, payload, bytes } => {
                let times = bytes.map_or(1, |bytes| bytes / payload.len().max(1));
                let payload = payload.repeat(times);
                let mut proposed = None;
                self.act(*replica, |replica| proposed = replica.group.propose(payload.into()))?;
                proposed.ok_or_else(|| format!("S{replica} does not lead"))?;
            }
            Command::Deliver { from, to, count } => self.deliver(*from, *to, *count)?,
            Command::Settle => {
                for rounds in 0.. {
                    assert!(rounds < 1_000, "the replicas never come to rest");
                    if self.flying.is_empty() {
                        break;
                    }
                    self.deliver(None, None, None)?;
                }
            }
            Command::Drop { from, to } => {
                let dropped = self.take_flying(*from, *to);
                for flying in &dropped {
                    self.tell(format!("lost: {}", shown(flying)));
                }
            }
            Command::Repeat { from, to } => {
                let twice = self.take_flying(*from, *to);
                for flying in &twice {
                    self.tell(format!("twice: {}", shown(flying)));
                }
                self.flying.extend(twice.iter().cloned());
                self.flying.extend(twice);
            }
            Command::Cut(ids) => self.cut.clone_from(ids),
            Command::Heal => self.cut.clear(),
            Command::Disk(id, pace) => {
                self.replica(*id)?.syncs = *pace == Pace::Quick;
                if *pace == Pace::Quick {
                    self.sync(*id)?;
                }
            }
            Command::Sync(id) => self.sync(*id)?,
            Command::Crash(id) => {
                let mut replica = self.running.remove(id).ok_or_else(|| format!("S{id} is not running"))?;
                let lost = replica.records.split_off(replica.synced);
                if !lost.is_empty() {
                    self.tell(format!("S{id} loses: {}", records_shown(&lost)));
                }
                self.down.insert(*id, replica.records);
            }
            Command::Restart(id) => {
                let records = self.down.remove(id).ok_or_else(|| format!("S{id} is not down"))?;
                self.running.insert(*id, Replica::restart(*id, &self.born, records));
                self.act(*id, |_| ())?;
            }
            Command::New(id) => {
                let replica = Replica::new(*id, self.born.clone(), &Restored::default());
                self.running.insert(*id, replica);
                self.voters = self.voters.max(*id);
            }
            Command::Add { leader, .. }
            | Command::Remove { leader, .. }
            | Command::Enter { leader, .. }
            | Command::Leave { leader } => self.change(*leader, &change_of(command)?)?,
            Command::Transfer { leader, to } => {
                self.act(*leader, |replica| replica.group.transfer_to(PeerId(*to)))?;
            }
            Command::Copies { leader, index } => {
                let copies = self.replica(*leader)?.group.copies(Index(*index));
                self.tell(format!("S{leader} knows entry {index} to be on {copies} of {}", self.voters));
            }
            Command::Status => self.status(),
        }
        Ok(())
    }

    fn tell(&mut self, line: impl AsRef<str>) {
        self.told.push_str(line.as_ref());
        self.told.push('\n');
    }

    fn replica(&mut self, id: u64) -> Result<&mut Replica, String> {
        self.running.get_mut(&id).ok_or_else(|| format!("S{id} is not running"))
    }

    /// Something happens to a replica; tells what it makes of it.
    fn act(&mut self, id: u64, happens: impl FnOnce(&mut Replica)) -> Result<(), String> {
        let replica = self.replica(id)?;
        let before = Summary::of(replica);
        happens(replica);
        self.turns(id, before)
    }

    fn change(&mut self, leader: u64, change: &ConfigurationChange) -> Result<(), String> {
        let mut proposed = None;
        self.act(leader, |replica| proposed = replica.group.propose_change(change))?;
        if proposed.is_none() {
            self.tell(format!("S{leader} does not propose it"));
        }
        Ok(())
    }

    fn sync(&mut self, id: u64) -> Result<(), String> {
        let replica = self.replica(id)?;
        let before = Summary::of(replica);
        let records = replica.records[replica.synced..].to_vec();
        let released = replica.sync();
        if !records.is_empty() {
            self.tell(format!("S{id} has synced: {}", records_shown(&records)));
        }
        self.send(id, released);
        self.turns(id, before)
    }

    /// All turns that a replica has to take.
    fn turns(&mut self, id: u64, mut before: Summary) -> Result<(), String> {
        loop {
            let replica = self.replica(id)?;
            let written = replica.records.len();
            let sent = replica.half_turn();
            let (records, syncs) = (replica.records[written..].to_vec(), replica.syncs);
            let now = Summary::of(replica);
            now.changes(id, &before).into_iter().for_each(|line| self.tell(line));
            before = now;
            self.send(id, sent);
            let released = if syncs { self.replica(id)?.sync() } else { Vec::new() };
            if !records.is_empty() {
                let verb = if syncs { "writes and syncs" } else { "writes, not synced yet" };
                self.tell(format!("S{id} {verb}: {}", records_shown(&records)));
            }
            self.send(id, released);
            if !self.replica(id)?.group.has_turn() {
                break;
            }
        }
        Ok(())
    }

    /// In the order of the receivers: the one in which the `raft` crate has them is that of its hash.
    fn send(&mut self, from: u64, mut messages: Vec<Outgoing>) {
        messages.sort_by_key(|(to, _)| *to);
        for (PeerId(to), message) in messages {
            let flying = Flying { from, to, message };
            if self.cut.contains(&from) == self.cut.contains(&to) {
                self.tell(shown(&flying));
                self.flying.push(flying);
            } else {
                self.tell(format!("{}, lost", shown(&flying)));
            }
        }
    }

    fn take_flying(&mut self, from: Option<u64>, to: Option<u64>) -> Vec<Flying> {
        let matches = |flying: &mut Flying| {
            from.is_none_or(|from| flying.from == from) && to.is_none_or(|to| flying.to == to)
        };
        self.flying.extract_if(.., matches).collect()
    }

    fn deliver(
        &mut self,
        from: Option<u64>,
        to: Option<u64>,
        count: Option<usize>,
    ) -> Result<(), Box<dyn Error>> {
        let mut taken = self.take_flying(from, to);
        let later = taken.split_off(taken.len().min(count.unwrap_or(usize::MAX)));
        self.flying.extend(later);
        for Flying { to, message, .. } in taken {
            if self.running.contains_key(&to) {
                let mut stepped = Ok(());
                self.act(to, |replica| stepped = replica.group.step(message))?;
                stepped?;
            }
        }
        Ok(())
    }

    fn status(&mut self) {
        for id in 1..=self.voters {
            let line = if let Some(replica) = self.running.get(&id) {
                let (group, disk) = (&replica.group, OnDisk::of(&replica.records));
                let role = group.role();
                let (term, committed) = (group.term(), group.committed());
                let vote = vote_shown(disk.hard_state);
                let unsynced = if replica.waits() { ", not all of it synced" } else { "" };
                let log = log_shown(&disk);
                format!("S{id} {role} in term {term}, {vote}, log {log}, committed {committed}{unsynced}")
            } else {
                let disk = OnDisk::of(&self.down[&id]);
                let (term, vote) = (disk.hard_state.term, vote_shown(disk.hard_state));
                format!("S{id} down; synced: term {term}, {vote}, log {}", log_shown(&disk))
            };
            self.tell(line);
        }
    }
}

/// What is told of a replica when it changes.
#[derive(Clone, PartialEq, Eq)]
struct Summary {
    role: Role,
    term: Term,
    leader: Option<PeerId>,
    committed: Index,
    configuration: Configuration,
}

impl Summary {
    fn of(replica: &Replica) -> Summary {
        let group = &replica.group;
        Summary {
            role: group.role(),
            term: group.term(),
            leader: group.leader(),
            committed: group.committed(),
            configuration: group.configuration().clone(),
        }
    }

    fn changes(&self, id: u64, before: &Summary) -> Vec<String> {
        let Summary { role, term, leader, committed, ref configuration } = *self;
        let mut lines = Vec::new();
        if (role, term, leader) != (before.role, before.term, before.leader) {
            lines.push(match (role, leader) {
                (Role::Follower, Some(leader)) => format!("S{id} follows S{leader} in term {term}"),
                (Role::Follower, None) => format!("S{id} follows nobody in term {term}"),
                (role, _) => format!("S{id} is {role} in term {term}"),
            });
        }
        if committed != before.committed {
            lines.push(format!("S{id} has entries up to {committed} committed"));
        }
        if *configuration != before.configuration {
            lines
                .push(format!("S{id} has the configuration of entry {}", configuration_shown(configuration)));
        }
        lines
    }
}

/// What a leader is asked to propose.
fn change_of(command: &Command) -> Result<ConfigurationChange, Box<dyn Error>> {
    Ok(match command {
        Command::Add { learner, .. } => ConfigurationChange::AddLearner(place(*learner)),
        Command::Remove { learner, .. } => ConfigurationChange::RemoveLearner(PeerId(*learner)),
        Command::Enter { promote, demote, .. } => ConfigurationChange::EnterJoint {
            promote: peers(promote.as_deref())?,
            demote: peers(demote.as_deref())?,
        },
        Command::Leave { .. } => ConfigurationChange::LeaveJoint,
        _ => return Err("not a change".into()),
    })
}

/// `2,3` as peers.
fn peers(list: Option<&str>) -> Result<Vec<PeerId>, std::num::ParseIntError> {
    let list = list.unwrap_or_default().split(',').filter(|number| !number.is_empty());
    list.map(|number| number.parse().map(PeerId)).collect()
}
