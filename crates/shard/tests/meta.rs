//! The meta group's state machine: the layout that its commands come to, and that it is there again after a start.

use std::sync::Arc;

use ringfort_ring::{Layout, Member};
use ringfort_shard::{Applied, SessionLimits, Shard};
use ringfort_storage::{MemoryTables, Tables};
use ringfort_types::LeaderPreference::{HighestId, Ring};
use ringfort_types::{
    Code, Command, Configuration, Entry, EntryKind, Epoch, Failure, HybridClock, Incarnation, Index,
    LayoutChange, LeaderPreference, Level, LogEntry, NodeId, Outcome, Reply, Revision, Right, ShardId,
    Standing, Term, UserChange,
};

fn born() -> Arc<Layout> {
    let member = Member {
        standing: Standing::Active,
        max: Level::MAX,
        id: NodeId(1),
        name: "node1".into(),
        address: "127.0.0.1:50051".into(),
        incarnation: Incarnation(7),
        weight: 1,
        zone: String::new(),
    };
    Arc::new(Layout::first(vec![member], 9, 4, 1).unwrap())
}

fn open(tables: &MemoryTables, born: Option<&Arc<Layout>>) -> Shard {
    let table = tables.open(ShardId::META).unwrap();
    Shard::open_of_cluster(ShardId::META, table, &Configuration::default(), born, SessionLimits::default())
        .unwrap()
}

fn apply(shard: &mut Shard, changes: Vec<LayoutChange>) -> Applied {
    let commands = changes.into_iter().map(|change| Command::Layout(change).into());
    let (index, clock) = (shard.applied().next(), HybridClock(shard.clock().0 + 1));
    let payload = Entry { clock, commands: commands.collect() }.encode();
    let entry = LogEntry { index, term: Term(1), kind: EntryKind::Normal, payload };
    shard.apply(&entry, 1).unwrap()
}

fn prefer(shard: &mut Shard, preferences: &[LeaderPreference]) -> (Option<Epoch>, Vec<Revision>) {
    let changes = preferences.iter().map(|preference| LayoutChange::Prefer(*preference));
    let applied = apply(shard, changes.collect());
    let revision = |reply: Reply| match reply {
        Reply::Written(receipt) => receipt.revision,
        other => panic!("{other:?}"),
    };
    (applied.layout.map(|layout| layout.epoch), applied.replies.into_iter().map(revision).collect())
}

#[test]
fn each_change_is_an_epoch_and_what_is_so_already_is_none() {
    let mut shard = open(&MemoryTables::default(), Some(&born()));
    assert_eq!(shard.layout(), Some(&born()));
    assert_eq!(prefer(&mut shard, &[Ring]), (None, vec![Revision(0)]));
    assert_eq!(prefer(&mut shard, &[HighestId, HighestId]), (Some(Epoch(2)), vec![Revision(1), Revision(1)]));
    assert_eq!(prefer(&mut shard, &[Ring, HighestId]), (Some(Epoch(4)), vec![Revision(2), Revision(3)]));
    assert_eq!(shard.layout().map(|layout| layout.leader_preference), Some(HighestId));
}

#[test]
fn whoever_asks_is_told_why_a_change_of_users_is_void() {
    let mut shard = open(&MemoryTables::default(), Some(&born()));
    let ada = || UserChange::Add { name: "ada".to_owned(), password: None, token: None };
    let grant = UserChange::Grant("ada".to_owned(), Right::Cluster);
    let changes = [UserChange::Enforce(true), ada(), grant, ada(), UserChange::Enforce(true)];
    let Applied { layout, replies, .. } = apply(&mut shard, changes.map(LayoutChange::Users).into());
    let Reply::Failed(Failure { code, outcome, message }) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((*code, *outcome), (Code::FailedPrecondition, Outcome::Rejected));
    assert!(message.contains("no user may change the cluster"), "{message}");
    assert!(replies[1..].iter().all(|reply| matches!(reply, Reply::Written(_))), "{replies:?}");
    let layout = layout.expect("it has changed");
    assert_eq!(
        (layout.epoch, shard.revision()),
        (Epoch(4), Revision(3)),
        "what is void or so already counts for nothing"
    );
    assert!(layout.users.enforced && layout.users.named("ada").is_some());

    let Applied { layout, replies, .. } =
        apply(&mut shard, vec![LayoutChange::Users(UserChange::Remove("ada".to_owned()))]);
    assert!(matches!(&replies[0], Reply::Failed(last) if last.message.contains("no other user")));
    assert_eq!(layout, None);
}

#[test]
fn a_start_goes_on_from_what_was_flushed() {
    let tables = MemoryTables::default();
    let mut shard = open(&tables, Some(&born()));
    prefer(&mut shard, &[LeaderPreference::HighestId]);
    shard.seal();
    let table = shard.table().clone();
    table.flush(Index(0)).unwrap();
    let changed = shard.layout().cloned();
    prefer(&mut shard, &[LeaderPreference::Ring]);
    // One that changes nothing is sealed without it.
    drop(shard);

    tables.fall_back(ShardId::META, Index(1));
    // A table that has something needs no other's word for it: so it is with one that came from another node.
    let mut shard = open(&tables, None);
    assert_eq!((shard.layout(), shard.applied()), (changed.as_ref(), Index(1)));
    assert_eq!(prefer(&mut shard, &[LeaderPreference::Ring]).0, Some(Epoch(3)));
}

#[test]
fn a_shard_of_keys_has_no_layout_to_change() {
    let table = MemoryTables::default().open(ShardId(1)).unwrap();
    let mut shard =
        Shard::open(ShardId(1), table, &Configuration::default(), SessionLimits::default()).unwrap();
    assert_eq!(prefer(&mut shard, &[LeaderPreference::HighestId]), (None, vec![Revision(0)]));
}
