//! Differences between reports: whoever gets them knows what was reported, and they are small.

use ringfort_types::limits::SHARDS_MAX;
use ringfort_types::{Epoch, Incarnation, Index, LogMark, PeerFrame, PeerId, Term};

use super::*;

fn replica(shard: u32) -> ReplicaReport {
    let index = Index(1_000_000 + u64::from(shard));
    ReplicaReport {
        shard: ShardId(shard),
        peer: PeerId(3 * u64::from(shard)),
        role: if shard.is_multiple_of(3) { Role::Leader } else { Role::Follower },
        term: Term(12),
        last: index,
        committed: index,
        applied: index,
        keys_estimate: 10_000,
        bytes_estimate: 10_000_000,
        reached: Epoch(7),
        ..ReplicaReport::default()
    }
}

fn report(shards: impl IntoIterator<Item = u32>) -> NodeReport {
    NodeReport { replicas: shards.into_iter().map(replica).collect(), ..NodeReport::default() }
}

fn bytes(message: PeerMessage) -> usize {
    let frame = PeerFrame {
        from: NodeId(1),
        to: NodeId(2),
        incarnation: Incarnation(1 << 60),
        cluster: 1 << 60,
        epoch: Epoch(7),
        log: LogMark { process: 1 << 60, began: 1 << 20, synced: 1 << 21 },
        messages: vec![message],
    };
    frame.encode().len()
}

/// What becomes of what is known when this message arrives, by a process whose number is 9.
fn take(heard: &mut Heard, message: PeerMessage) {
    match message {
        PeerMessage::Report(report) => *heard = Heard::whole(9, report),
        PeerMessage::ReportChanges(changes) => {
            assert!(heard.has(9, changes.base));
            heard.add(9, changes);
        }
        other => panic!("{other:?} is no report"),
    }
}

#[test]
fn at_rest_a_full_node_says_next_to_nothing() {
    let mut reports = Reports::default();
    reports.note(report(0..=SHARDS_MAX));
    let whole = bytes(reports.since(0));
    assert!((80_000..200_000).contains(&whole), "{whole} bytes for all");
    let had = reports.last.number;
    for _ in 0..100 {
        reports.note(report(0..=SHARDS_MAX));
        let at_rest = bytes(reports.since(had));
        assert!(at_rest < 64, "{at_rest} bytes each second, with the frame's head");
    }
    let mut one_moved = report(0..=SHARDS_MAX);
    one_moved.replicas[77].applied.0 += 1;
    reports.note(one_moved);
    let changed = bytes(reports.since(had));
    assert!(changed < 128, "{changed} bytes for one shard");
}

#[test]
fn a_difference_can_be_added_to_its_base_and_to_all_that_came_later() {
    let mut random = 1_u64;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let (mut reports, mut all) = (Reports::default(), vec![]);
    for _ in 0..300 {
        let mut now = reports.last.clone();
        match below(6) {
            0 => now = report((0..20).filter(|_| below(2) == 0)),
            1 => now.disk = if below(2) == 0 { DiskState::Full } else { DiskState::Working },
            2 => now.damaged = (0..20).filter(|_| below(4) == 0).map(ShardId).collect(),
            3 => now.replicas.iter_mut().for_each(|replica| replica.applied.0 += below(2)),
            4 => {
                let progress = SnapshotProgress { bytes: below(3), ..SnapshotProgress::default() };
                now.sends = vec![progress; below(3) as usize];
            }
            // All stays as it is.
            _ => {}
        }
        reports.note(now);
        if all.last() != Some(&reports.last) {
            all.push(reports.last.clone());
        }
        let now = Heard::whole(9, reports.last.clone());
        for _ in 0..4 {
            let has = &all[below(all.len() as u64) as usize];
            let base = 1 + below(has.number);
            let mut heard = Heard::whole(9, has.clone());
            take(&mut heard, reports.since(base));
            assert_eq!(heard, now, "report {} and what has changed since {base}", has.number);
        }
        let mut heard = Heard::default();
        take(&mut heard, reports.since(0));
        assert_eq!(heard, now);
    }
    assert!(all.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
    assert!(all.len() > 100);
}

#[test]
fn a_difference_to_what_is_not_here_is_not_added() {
    let heard = Heard::whole(9, NodeReport { number: 5, ..report([1]) });
    assert!(heard.has(9, 5) && heard.has(9, 1));
    assert!(!heard.has(9, 6), "its base is later");
    assert!(!heard.has(8, 5), "it is of another process");
    assert!(!Heard::default().has(0, 0) && !Heard::whole(9, report([1])).has(9, 0));
    assert!(heard.is_followed_by(9, 5) && heard.is_followed_by(8, 1) && heard.is_followed_by(9, 0));
    assert!(!heard.is_followed_by(9, 4), "a late one");
}
