//! How messages, records and configurations are told in scripts.

use std::fmt::Write as _;

use ringfort_consensus::inspect::{Seen, SeenKind, inspect};
use ringfort_types::{
    Configuration, ConfigurationChange, EntryKind, HardState, LogEntry, PeerId, Record, Replica as Place,
};

use crate::replica::OnDisk;
use crate::scripts::Flying;

pub(crate) fn shown(flying: &Flying) -> String {
    let says = match inspect(&flying.message) {
        Err(error) => error.to_string(),
        Ok(Seen { kind: SeenKind::Append, term, index, log_term, commit, entries, .. }) => {
            let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
            format!("append in term {term}: {entries} after {index}@{log_term}, commit {commit}")
        }
        Ok(seen) => seen.to_string(),
    };
    format!("S{} → S{}: {says}", flying.from, flying.to)
}

pub(crate) fn records_shown(records: &[Record]) -> String {
    let shown = |record: &Record| match record {
        Record::Entry(_, entry) => entry_shown(entry),
        Record::Base(_, base) | Record::Installed(_, base) => format!("{base:?}"),
        Record::Replica(_, peer) => format!("peer {peer}"),
        Record::Gone(_, peer) => format!("peer {peer} is gone"),
        Record::Lost(_, index) => format!("lost up to {index}"),
        Record::HardState(_, state) => {
            format!("term {}, {}, commit {}", state.term, vote_shown(*state), state.commit)
        }
    };
    records.iter().map(shown).collect::<Vec<_>>().join("; ")
}

pub(crate) fn configuration_shown(configuration: &Configuration) -> String {
    let shown = |what: &str, of: &[Place]| {
        let names: Vec<String> = of.iter().map(|replica| format!("S{}", replica.peer)).collect();
        if of.is_empty() { String::new() } else { format!("; {what} {}", names.join(" ")) }
    };
    let Configuration { at, voters, outgoing, learners, learners_next } = configuration;
    let parts = [
        shown("voters", voters),
        shown("outgoing", outgoing),
        shown("learners", learners),
        shown("then learners", learners_next),
    ];
    format!("{at}{}", parts.concat())
}

fn change_shown(entry: &LogEntry) -> String {
    let names = |peers: &[PeerId]| {
        let names: Vec<String> = peers.iter().map(|peer| format!(" S{peer}")).collect();
        names.concat()
    };
    match ConfigurationChange::decode(entry.payload.clone()).expect("our own encoding") {
        ConfigurationChange::AddLearner(new) => format!("add learner S{}", new.peer),
        ConfigurationChange::RemoveLearner(peer) => format!("remove learner S{peer}"),
        ConfigurationChange::EnterJoint { promote, demote } => {
            format!("enter joint: promote{}, demote{}", names(&promote), names(&demote))
        }
        ConfigurationChange::LeaveJoint => "leave joint".to_owned(),
    }
}

fn entry_shown(entry: &LogEntry) -> String {
    if entry.kind == EntryKind::Configuration {
        return format!("entry {}@{} {}", entry.index, entry.term, change_shown(entry));
    }
    let payload = String::from_utf8_lossy(&entry.payload);
    let payload = match payload.len() {
        0 => "empty".to_owned(),
        1..=40 => format!("{payload:?}"),
        bytes => format!("{:?} × {bytes}", &payload[..1]),
    };
    format!("entry {}@{} {payload}", entry.index, entry.term)
}

pub(crate) fn vote_shown(state: HardState) -> String {
    if state.vote == PeerId(0) { "no vote".to_owned() } else { format!("vote for S{}", state.vote) }
}

pub(crate) fn log_shown(disk: &OnDisk) -> String {
    let mut told = String::from("[");
    for (index, term) in disk.places() {
        let gap = if told.len() > 1 { " " } else { "" };
        write!(told, "{gap}{index}@{term}").expect("a string takes all");
    }
    told + "]"
}
