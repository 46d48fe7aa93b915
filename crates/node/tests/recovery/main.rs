//! From what is on disk to shards that are up to date: which shards are ready when, and what is applied to the others.

use std::ops::ControlFlow;
use std::sync::Arc;

use ringfort_node::FoundReplica;
use ringfort_node::recovery::{Begun, Ready, RecoveryError, Step, Wanted, begin};
use ringfort_ring::{Layout, Member};
use ringfort_shard::{SessionLimits, Shard};
use ringfort_storage::{DataDir, Log, LogOptions, MemoryTables, SimDisk, Tables, Who};
use ringfort_types::{
    Base, Change, Command, Configuration, ConfigurationChange, Entry, EntryKind, HardState, HybridClock,
    Incarnation, Index, Level, LogEntry, NodeId, Part, PeerId, Record, Replica, ShardId, Standing, Term,
};

/// Small segments, so that there are many.
const OPTIONS: LogOptions = LogOptions { segment_bytes: 2048, budget_bytes: 8192 };

fn entry(shard: u32, index: u64) -> Record {
    let parts = vec![Part::new("key", Change::put(vec![shard as u8; 200]))];
    let put = Command::Write { parts };
    let payload = Entry { clock: HybridClock(index), commands: vec![put.into()] }.encode();
    let entry = LogEntry { index: Index(index), term: Term(1), kind: EntryKind::Normal, payload };
    Record::Entry(ShardId(shard), entry)
}

fn change(shard: u32, index: u64, change: &ConfigurationChange) -> Record {
    let (kind, payload) = (EntryKind::Configuration, change.encode());
    Record::Entry(ShardId(shard), LogEntry { index: Index(index), term: Term(1), kind, payload })
}

fn committed(shard: u32, commit: u64) -> Record {
    Record::HardState(ShardId(shard), HardState { term: Term(1), vote: PeerId(1), commit: Index(commit) })
}

/// A directory whose log has these records, and tables in which nothing is applied.
fn with_log(records: &[Record]) -> (DataDir, MemoryTables) {
    let who = Who { name: None, address: "10.0.0.1:1".into(), fresh: 7 };
    let (data, _) = DataDir::open(Arc::new(SimDisk::new()), &who).unwrap();
    let (mut log, _) = data.open_log(1, OPTIONS).unwrap();
    for record in records {
        log.append(std::slice::from_ref(record)).unwrap();
    }
    (data, MemoryTables::new())
}

fn replica(number: u64) -> Replica {
    Replica { node: NodeId(number), peer: PeerId(number) }
}

/// The group of every shard.
fn born() -> Configuration {
    Configuration::born(vec![replica(1), replica(2)])
}

/// Applies these entries to a shard's table, which then has them durably.
fn apply(tables: &MemoryTables, shard: u32, records: &[Record]) {
    apply_to(&born(), tables, shard, records);
}

/// Likewise, to a shard of a group that is born with this configuration.
fn apply_to(born: &Configuration, tables: &MemoryTables, shard: u32, records: &[Record]) {
    let id = ShardId(shard);
    let table = tables.open_generation(id, 0).unwrap();
    let mut shard = Shard::open(id, table, born, SessionLimits::default()).unwrap();
    for record in records {
        if let Record::Entry(of, entry) = record
            && *of == id
        {
            shard.apply(entry, 0).unwrap();
        }
    }
    shard.seal();
    shard.table().flush(Index(0)).unwrap();
}

fn open(data: &DataDir, tables: &MemoryTables, shards: u32) -> Result<Begun, RecoveryError> {
    let member = Member {
        standing: Standing::Active,
        max: Level::MIN,
        id: NodeId(1),
        name: "node1".into(),
        address: "127.0.0.1:50051".into(),
        incarnation: Incarnation(1),
        weight: 1,
        zone: String::new(),
    };
    let layout = Arc::new(Layout::first(vec![member], 1, shards, 1).unwrap());
    let shards = (1..=shards).map(|shard| (ShardId(shard), born())).collect();
    let wanted = Wanted { me: NodeId(1), born: &layout, shards: &shards };
    begin(data, tables, &wanted, OPTIONS, SessionLimits::default())
}

/// What is told, as `shard@index` for an entry and `shard ready` for a shard, and the shards.
fn told(
    begun: &mut Begun,
    mut until: impl FnMut(&mut Log, &str) -> ControlFlow<()>,
) -> (Vec<String>, Vec<Ready>) {
    let (mut lines, mut ready) = (Vec::new(), Vec::new());
    let Begun { log, replay, .. } = begun;
    replay
        .go_on(&mut |step| {
            let line = match step {
                Step::Applied(progress) => format!("{}@{}", progress.shard, progress.entry.index),
                Step::Ready(found) => {
                    let line = format!("{} ready", found.shard.id());
                    ready.push(*found);
                    line
                }
                Step::Damaged(shard, error) => format!("{shard} is damaged: {error}"),
            };
            let flow = until(log, &line);
            lines.push(line);
            flow
        })
        .unwrap();
    (lines, ready)
}

fn story() -> Vec<Record> {
    let mut records: Vec<_> =
        (1..=4).flat_map(|index| [entry(1, index), entry(2, index), entry(3, index)]).collect();
    // Shard 3 has entries that are not known to be committed; shard 4 has nothing at all.
    records.extend([committed(1, 4), committed(2, 3), committed(3, 2)]);
    records
}

#[test]
fn each_shard_is_replayed_from_its_own_table_and_ready_at_its_own_commit() {
    let records = story();
    let (data, tables) = with_log(&records);
    apply(&tables, 1, &records[..3]);
    apply(&tables, 3, &records[..6]);
    let mut begun = open(&data, &tables, 4).unwrap();
    let ready: Vec<_> = begun.ready.iter().map(|ready| ready.shard.id().0).collect();
    assert_eq!(ready, [3, 4], "whose tables have all that is committed");
    assert_eq!(begun.ready[0].opened.tail.len(), 2);
    assert_eq!(begun.replay.shards().map(|shard| shard.id().0).collect::<Vec<_>>(), [1, 2]);

    let (lines, ready) = told(&mut begun, |_, _| ControlFlow::Continue(()));
    assert_eq!(lines, ["2@1", "1@2", "2@2", "1@3", "2@3", "2 ready", "1@4", "1 ready"]);
    assert!(begun.replay.is_done());
    let second = &ready[0].opened;
    assert_eq!((second.applied, second.last, second.clock), (Index(3), Index(4), HybridClock(3)));
    assert_eq!(second.tail.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [4]);
    assert!(ready[1].opened.tail.is_empty());
}

#[test]
fn what_is_broken_off_is_gone_on_with() {
    let (data, tables) = with_log(&story());
    let mut begun = open(&data, &tables, 3).unwrap();
    let mut lines = Vec::new();
    while !begun.replay.is_done() {
        let (more, _) = told(&mut begun, |_, _| ControlFlow::Break(()));
        assert!(!more.is_empty());
        lines.extend(more);
    }
    let whole =
        ["1@1", "2@1", "3@1", "1@2", "2@2", "3@2", "3 ready", "1@3", "2@3", "2 ready", "1@4", "1 ready"];
    assert_eq!(lines, whole);
}

#[test]
fn a_log_that_is_written_to_and_let_go_of_meanwhile_has_all_that_is_needed() {
    let mut records: Vec<_> = (1..=3).map(|index| entry(1, index)).collect();
    records.extend((1..=12).map(|index| entry(2, index)));
    records.extend([committed(1, 3), committed(2, 12)]);
    let (data, tables) = with_log(&records);
    apply(&tables, 2, &records);
    let mut begun = open(&data, &tables, 2).unwrap();
    let busy = begun.ready.pop().unwrap().shard;
    let mut last = busy.applied().0;
    let mut is_compacted = false;
    let (lines, ready) = told(&mut begun, |log, line| {
        while line == "1@1" && !is_compacted {
            last += 1;
            log.append(&[entry(2, last)]).unwrap();
            // As the driver does: who is not open is not named.
            let durable = [(ShardId(2), Index(last))].into();
            let bases = log.collect(&durable).unwrap();
            is_compacted = bases.iter().any(|(shard, _)| *shard == ShardId(1));
            assert!(
                bases.iter().all(|(shard, base)| *shard == ShardId(2) || base.index == Index(0)),
                "{bases:?}"
            );
            assert!(last < 200);
        }
        ControlFlow::Continue(())
    });
    assert!(is_compacted, "the segment that the replay had begun with is gone");
    assert_eq!(lines, ["1@1", "1@2", "1@3", "1 ready"]);
    assert_eq!((ready[0].opened.base.index, ready[0].opened.last), (Index(0), Index(3)));
}

#[test]
fn a_log_that_lacks_what_is_committed_is_refused_before_anything_is_ready() {
    let (data, tables) = with_log(&[entry(1, 1), entry(2, 1), committed(2, 3)]);
    let error = open(&data, &tables, 2).unwrap_err();
    assert!(matches!(error, RecoveryError::LogShort { shard: ShardId(2), .. }), "{error}");
}

#[test]
fn a_shard_begins_with_the_configuration_as_of_what_is_applied() {
    let (add, remove) = (replica(3), PeerId(3));
    let records = [
        entry(1, 1),
        change(1, 2, &ConfigurationChange::AddLearner(add)),
        change(1, 3, &ConfigurationChange::EnterJoint { promote: vec![remove], demote: Vec::new() }),
        change(1, 4, &ConfigurationChange::LeaveJoint),
        committed(1, 3),
    ];
    let joint = Configuration {
        at: Index(3),
        voters: vec![replica(1), replica(2), add],
        outgoing: born().voters,
        ..Configuration::default()
    };
    // Whether its table has it, or only the log.
    for in_table in [0, 1, 2, 3] {
        let (data, tables) = with_log(&records);
        apply(&tables, 1, &records[..in_table]);
        let mut begun = open(&data, &tables, 1).unwrap();
        let (_, mut ready) = told(&mut begun, |_, _| ControlFlow::Continue(()));
        let ready = begun.ready.pop().or_else(|| ready.pop()).unwrap();
        assert_eq!((ready.opened.applied, &ready.opened.configuration), (Index(3), &joint), "{in_table}");
        assert_eq!(ready.opened.tail.len(), 1, "the last change is not known to be committed");
    }
}

#[test]
fn a_group_of_nobody_is_not_opened_and_the_others_are() {
    let records = [entry(1, 1), entry(2, 1), committed(1, 1), committed(2, 1)];
    let (data, tables) = with_log(&records);
    apply_to(&Configuration::default(), &tables, 1, &records);
    let mut begun = open(&data, &tables, 2).unwrap();
    let refused = begun.damaged[0].1.to_string();
    assert!(
        matches!(begun.damaged[0].1, RecoveryError::NobodyDecides { shard: ShardId(1), .. }),
        "{refused}"
    );
    let place = tables.open_generation(ShardId(1), 0).unwrap().place();
    assert!(refused.contains(&format!("shard 1 in {place}")), "{refused}");
    let (_, ready) = told(&mut begun, |_, _| ControlFlow::Continue(()));
    assert_eq!(ready[0].shard.id(), ShardId(2));
}

/// Its group has gone on without it, or with another one in its place. It is what its log says that it is.
#[test]
fn a_replica_that_is_left_out_is_opened_as_the_peer_that_it_was() {
    let demote = ConfigurationChange::EnterJoint { promote: Vec::new(), demote: vec![PeerId(1)] };
    let records = [
        change(1, 1, &demote),
        change(1, 2, &ConfigurationChange::LeaveJoint),
        change(1, 3, &ConfigurationChange::RemoveLearner(PeerId(1))),
        committed(1, 3),
    ];
    let (data, tables) = with_log(&records);
    let mut begun = open(&data, &tables, 1).unwrap();
    let (_, ready) = told(&mut begun, |_, _| ControlFlow::Continue(()));
    assert_eq!((ready[0].opened.peer, ready[0].opened.configuration.node_of(PeerId(1))), (PeerId(1), None));
}

/// Nothing of the replica that was here before counts, and the log begins with who belonged to the group at its birth.
#[test]
fn a_replica_that_was_made_anew_begins_with_nothing() {
    let base = Base { generation: 7, ..Base::default() };
    let anew = [
        Record::Installed(ShardId(1), base),
        Record::HardState(ShardId(1), HardState::default()),
        Record::Replica(ShardId(1), PeerId(9)),
    ];
    let before = [entry(1, 1), entry(1, 2), committed(1, 2)];
    let (data, tables) = with_log(&[&before[..], &anew[..]].concat());
    apply(&tables, 1, &before[..2]);
    let mut begun = open(&data, &tables, 1).unwrap();
    assert_eq!(begun.replicas[&ShardId(1)], FoundReplica { peer: PeerId(9), is_gone: false, generation: 7 });
    let opened = begun.ready.pop().expect("there is nothing to replay").opened;
    assert_eq!(
        (opened.peer, opened.base, opened.last, opened.applied),
        (PeerId(9), base, Index(0), Index(0))
    );
    assert_eq!((opened.hard_state, opened.configuration), (HardState::default(), born()));
}
