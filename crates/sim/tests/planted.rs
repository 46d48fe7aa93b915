//! Bugs on purpose, each of which must be found. A release build has none.
#![cfg(debug_assertions)]

use ringfort_sim::find_planted;
use ringfort_types::planted::Bug;

/// Those that show soon. `cargo xtask sim --plants` looks for all of them.
#[test]
fn planted_bugs_are_found() {
    let soon = [
        (Bug::AckBeforeSync, "synced before"),
        (Bug::VoteNotPersisted, "synced survives"),
        (Bug::TermSentBeforeSync, "synced before"),
        (Bug::ReadBeforeOwnEntry, "a read is the shard"),
        (Bug::AppliedApartFromData, "a node goes on"),
        (Bug::TableNotReplayed, "never changed"),
        (Bug::ReplyForOverwritten, "answered, once"),
        (Bug::WipedNodeVotes, "one layout an epoch"),
        (Bug::RowsLost, "its place in the log"),
        (Bug::DamagedReplicaGoesOn, "takes no part|hands over soon"),
        (Bug::DamagedLeaderFallsSilent, "hands over soon"),
        (Bug::HungDiskLeads, "hands over soon"),
        (Bug::LogEndNotChecked, "has changed is refused"),
        (Bug::RebuiltUnderOldId, "one vote a term"),
        (Bug::ForwardsNotJudged, "nothing forbidden is done"),
    ];
    for (bug, by) in soon {
        let found = find_planted(bug, 20).unwrap_or_else(|| panic!("{bug} was not found under twenty seeds"));
        let is_by = by.split('|').any(|by| found.finding.invariant.contains(by));
        assert!(is_by, "{bug} is found by {}", found.finding);
    }
}

#[test]
fn planted_bugs_have_names() {
    for bug in Bug::ALL {
        assert_eq!(bug.name().parse(), Ok(*bug));
    }
    assert!("no-such-bug".parse::<Bug>().unwrap_err().contains("ack-before-sync"));
}
