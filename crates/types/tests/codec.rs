//! What is stored or sent comes back as it was, and nothing else is taken for it.

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{
    CALL_TIMEOUT_MAX_MS, GET_MANY_KEYS_MAX, WRITE_BYTES_MAX, WRITE_PARTS_MAX, WRITE_SUMS_MAX,
};
use ringfort_types::wire::Reader;
use ringfort_types::{
    Answer, Call, Change, Code, Command, Condition, Configuration, Consistency, Copies, DiskSpace, DiskState,
    Door, Durability, Entry, Epoch, Failure, Forward, HybridClock, Incarnation, Index, LogMark, NewValue,
    NodeId, NodeReport, Page, Part, PeerFrame, PeerId, PeerMessage, Principal, ReadIndex, Receipt, Replica,
    ReplicaReport, Reply, ReportChanges, ReportReply, Request, Revision, Role, Row, Scan, ShardId,
    SnapshotProgress, Stamp, Stamped, Term, Unknown, Version,
};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn part(key: &'static str, condition: Option<Condition>, change: Change) -> Part {
    Part { key: text(key), condition, change }
}

fn versioned(value: &'static str, version: u64) -> Change {
    Change::Put(NewValue { value: text(value), version: Some(Version(version)) })
}

/// One of each kind of condition and of change.
fn parts() -> Vec<Part> {
    vec![
        part("a", None, Change::put("1")),
        part("b", Some(Condition::Absent), Change::DELETE),
        part("c", Some(Condition::Present), Change::Keep),
        part("d", Some(Condition::Revision(Revision(300))), Change::put("")),
        part("e", Some(Condition::Value(text("x"))), Change::DELETE),
        part("f", None, Change::Add(-2)),
        part("g", Some(Condition::NotNewerThan(Version(300))), versioned("y", 300)),
        part("h", Some(Condition::NotNewerThan(Version(1))), Change::Delete { version: Some(Version(1)) }),
    ]
}

const STAMP: Stamp =
    Stamp { client: 1 << 120 | 2, sequence: 300, prev: 299, floor: 5, opened: HybridClock(7) };

fn replica(number: u64) -> Replica {
    Replica { node: NodeId(number), peer: PeerId(100 + number) }
}

#[test]
fn entries_round_trip_and_every_cut_is_noticed() {
    let plain: Stamped = Command::Write { parts: vec![Part::new("n", Change::Add(i64::MIN))] }.into();
    let commands = vec![
        plain.clone(),
        Stamped { stamp: Some(STAMP), ..plain },
        Stamped { stamp: Some(STAMP), command: Command::Write { parts: parts() } },
        Command::Digest.into(),
    ];
    let entry = Entry { clock: HybridClock(9), commands };
    let bytes = entry.encode();
    assert_eq!(Entry::peek_clock(&bytes), Some(HybridClock(9)));
    assert_eq!(Entry::decode(bytes.clone()), Ok(entry));
    for length in 0..bytes.len() {
        assert!(Entry::decode(bytes.slice(..length)).is_err(), "{length}");
    }
}

#[test]
fn commands_are_laid_out_as_drawn() {
    let encoded =
        |command: Stamped| Entry { clock: HybridClock(0), commands: vec![command] }.encode()[11..].to_vec();
    let by = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    let increment = Command::Write { parts: vec![Part::new("n", Change::Add(-2))] };
    assert_eq!(encoded(increment.clone().into()), [&[1, 0, 1, 1, b'n', 0, 3], &by[..]].concat());
    let stamp = Stamp { client: 3, sequence: 300, prev: 2, floor: 1, opened: HybridClock(4) };
    let drawn = [&[1, 1, 3], &[0; 15][..], &[0xAC, 2, 2, 1, 4], &[0; 7], &[1, 1, b'n', 0, 3], &by].concat();
    assert_eq!(encoded(Stamped { stamp: Some(stamp), command: increment }), drawn);
    let drawn = [
        &[1, 0, 8][..],
        &[1, b'a', 0, 2, 0, 1, b'1'],
        &[1, b'b', 1, 1, 0],
        &[1, b'c', 2, 0],
        &[1, b'd', 3, 0xAC, 2, 2, 0, 0],
        &[1, b'e', 4, 1, b'x', 1, 0],
        &[1, b'f', 0, 3],
        &by,
        &[1, b'g', 5, 0xAC, 2, 2, 2, 0xAC, 2, 1, b'y'],
        &[1, b'h', 5, 1, 1, 2, 1],
    ];
    assert_eq!(encoded(Command::Write { parts: parts() }.into()), drawn.concat());
    assert_eq!(encoded(Command::Digest.into()), [2, 0]);
}

#[test]
fn what_a_command_does_not_say_is_not_guessed() {
    let good =
        Entry { clock: HybridClock(0), commands: vec![Command::Write { parts: parts() }.into()] }.encode();
    for (at, what) in [
        (11, "kind of command"),
        (12, "flag on a command"),
        (16, "kind of condition"),
        (17, "kind of change"),
        (18, "flag on a change"),
    ] {
        let mut bad = good.to_vec();
        bad[at] = 9;
        let error = Entry::decode(bad.into()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    // The flag that is set aside for an expiry.
    let mut bad = good.to_vec();
    bad[18] = 1;
    assert!(Entry::decode(bad.into()).is_err());
}

fn requests() -> Vec<Request> {
    let keys = vec![text("a"), text("{a}b")];
    vec![
        Request::Write { parts: parts() },
        Request::put("a", "b"),
        Request::delete("a"),
        Request::increment("n", i64::MIN),
        Request::GetMany { keys: keys.clone(), consistency: Consistency::Stale },
        Request::GetMany { keys, consistency: Consistency::Linearizable },
        Request::OpenSession { shard: ShardId(300) },
        Request::Get { key: text("a"), consistency: Consistency::Lease },
        Request::Scan(Scan {
            shard: ShardId(3),
            at: Some(Index(0)),
            from: text("a\0"),
            prefix: text("a"),
            rows_max: u32::MAX,
            bytes_max: 300,
            keys_only: true,
        }),
        Request::Digest { shard: ShardId(4) },
        Request::DigestAt { node: NodeId(2), shard: ShardId(4), index: Index(300) },
        Request::ClusterState,
        Request::Users,
    ]
}

fn frame_of(messages: Vec<PeerMessage>) -> PeerFrame {
    let (from, to, incarnation) = (NodeId(1), NodeId(2), Incarnation(3));
    let log = LogMark { process: u64::MAX, began: 300, synced: 70_000 };
    PeerFrame { from, to, incarnation, cluster: 4, epoch: Epoch(5), log, messages }
}

fn through_a_frame(messages: Vec<PeerMessage>) {
    let frame = frame_of(messages);
    assert_eq!(PeerFrame::decode(frame.encode()), Ok(frame));
}

fn read_index(number: u64) -> PeerMessage {
    ReadIndex { shard: ShardId(9), number }.into()
}

#[test]
fn what_a_later_version_says_besides_is_skipped() {
    let later = Unknown { kind: 300, body: text("who knows") };
    let known = [read_index(1), read_index(2)];
    // A kind that is not known, between two that are.
    let messages = vec![known[0].clone(), PeerMessage::Unknown(later), known[1].clone()];
    through_a_frame(messages.clone());
    let bytes = frame_of(messages).encode();
    for length in 0..bytes.len() {
        assert!(PeerFrame::decode(bytes.slice(..length)).is_err(), "{length}");
    }
    assert!(PeerFrame::decode([&bytes[..], b"!"].concat().into()).is_err(), "nothing follows the last one");

    // Fields at the end of a body: as if they had not been said.
    let longer = Unknown { kind: 11, body: Bytes::from_static(&[9, 2, 0xFF, 0xFF]) };
    let read = PeerFrame::decode(frame_of(vec![known[0].clone(), PeerMessage::Unknown(longer)]).encode());
    assert_eq!(read, Ok(frame_of(known.to_vec())));
}

#[test]
fn reports_round_trip_and_those_of_earlier_versions_have_no_number() {
    let replica = ReplicaReport {
        shard: ShardId(300),
        peer: PeerId(1_000),
        role: Role::Leader,
        term: Term(2),
        last: Index(1 << 40),
        committed: Index(300),
        applied: Index(299),
        revision: Revision(7),
        keys_estimate: 6,
        bytes_estimate: u64::MAX,
        reached: Epoch(5),
    };
    let shards = vec![ShardId(1), ShardId(4096)];
    let whole = NodeReport {
        disk: DiskState::Hung,
        replicas: vec![replica, ReplicaReport::default()],
        damaged: shards.clone(),
        number: 300,
        sends: Vec::new(),
        space: DiskSpace { free: 1 << 40, total: 1 << 41 },
        is_slow: true,
    };
    let sent = SnapshotProgress {
        shard: ShardId(300),
        to: NodeId(7),
        bytes: 1 << 40,
        bytes_estimate: u64::MAX,
        elapsed_ms: 300,
    };
    let changes = ReportChanges {
        base: 299,
        number: 300,
        disk: DiskState::Full,
        replicas: vec![replica],
        gone: shards.clone(),
        damaged: None,
        sends: Vec::new(),
        space: DiskSpace { free: 0, total: 1 },
        is_slow: true,
    };
    through_a_frame(vec![
        whole.clone().into(),
        changes.clone().into(),
        NodeReport { sends: vec![sent, sent], ..whole.clone() }.into(),
        ReportChanges { damaged: Some(shards), sends: vec![sent], ..changes }.into(),
        ReportReply { process: u64::MAX, number: 300 }.into(),
    ]);
    // What a version without them has.
    let whole = NodeReport { space: DiskSpace::default(), is_slow: false, ..whole };
    let bytes = frame_of(vec![whole.clone().into()]).encode();
    let head = frame_of(Vec::new()).encode().len();
    // Without what is told of the disk, which is three bytes at the end, and without the number and the snapshots, three bytes before it;
    // the length stands behind the kind.
    let without = |count: usize| {
        let mut earlier = bytes[..bytes.len() - count].to_vec();
        earlier[head + 1] -= count as u8;
        PeerFrame::decode(earlier.into())
    };
    assert_eq!(without(1), Ok(frame_of(vec![whole.clone().into()])));
    assert_eq!(without(3), Ok(frame_of(vec![whole.clone().into()])));
    assert_eq!(without(6), Ok(frame_of(vec![NodeReport { number: 0, ..whole.clone() }.into()])));
    for length in 0..bytes.len() {
        assert!(PeerFrame::decode(bytes.slice(..length)).is_err(), "{length}");
    }
    let many = NodeReport { damaged: vec![ShardId(1); 5_000], ..whole };
    assert!(PeerFrame::decode(frame_of(vec![many.into()]).encode()).is_err());
}

#[test]
fn a_message_is_laid_out_as_drawn() {
    let head = frame_of(Vec::new()).encode().len();
    let bytes = frame_of(vec![read_index(300)]).encode();
    assert_eq!((bytes[0], &bytes[head..]), (2, &[11, 0x83, 0x80, 0x80, 0, 9, 0xAC, 2][..]));
    // The shortest length is as good.
    let short = [&bytes[..head], &[11, 3, 9, 0xAC, 2][..]].concat();
    assert_eq!(PeerFrame::decode(short.into()), Ok(frame_of(vec![read_index(300)])));
    let beyond = [&bytes[..head], &[11, 4, 9, 0xAC, 2][..]].concat();
    assert!(PeerFrame::decode(beyond.into()).is_err());
}

#[test]
fn calls_round_trip_with_every_field() {
    let durable = [
        Durability::default(),
        Durability { copies: Copies::AtLeast(300), patience_ms: 0 },
        Durability { copies: Copies::All, patience_ms: 2_000 },
    ];
    let doors = [Door::V1, Door::Text, Door::Family, Door::Proto, Door::KvStore, Door::Kv];
    let mut messages = Vec::new();
    for (number, request) in (0..).zip(requests()) {
        for stamp in [None, Some(STAMP)] {
            for (door, durability) in doors.into_iter().zip(durable.into_iter().cycle()) {
                let who = Principal(number * 100);
                let call = Call { request: request.clone(), stamp, durability, timeout_ms: 500, who, door };
                messages.push(PeerMessage::Forward(Forward { id: number.into(), call }));
            }
        }
    }
    through_a_frame(messages);
}

#[test]
fn a_call_is_laid_out_as_drawn() {
    let call = Call {
        request: Request::Digest { shard: ShardId(9) },
        stamp: None,
        durability: Durability { copies: Copies::AtLeast(3), patience_ms: 300 },
        timeout_ms: 7,
        who: Principal(6),
        door: Door::Kv,
    };
    let encoded = |call: &Call| {
        let mut out = BytesMut::new();
        call.encode(&mut out);
        out.freeze()
    };
    let bytes = encoded(&call);
    assert_eq!(&bytes[..], [5, 9, 0, 1, 3, 0xAC, 2, 7, 6, 5]);
    for (at, byte, what) in [
        (2, 2, "flag on a call"),
        (3, 3, "number of copies"),
        (9, 6, "unknown door"),
        (0, 99, "kind of request"),
    ] {
        let mut bad = bytes.to_vec();
        bad[at] = byte;
        let error = Call::decode(&mut Reader::new(bad.into())).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    for length in 0..bytes.len() {
        assert!(Call::decode(&mut Reader::new(bytes.slice(..length))).is_err(), "{length}");
    }
    // However long another node says that it waits, nothing is kept for longer than a client may wait.
    let patient = Call::from(Request::ClusterState).within(u32::MAX);
    let read = Call::decode(&mut Reader::new(encoded(&patient))).unwrap();
    assert_eq!(read.timeout_ms, CALL_TIMEOUT_MAX_MS);
}

#[test]
fn replies_round_trip() {
    let receipt = Receipt {
        shard: ShardId(3),
        term: Term(2),
        index: Index(9),
        revision: Revision(8),
        copies: 2,
        ..Receipt::default()
    };
    let lacking = Receipt { lacking: vec![NodeId(3), NodeId(300)], ..receipt.clone() };
    let sums = Receipt { sums: vec![-5, 0, i64::MAX], ..lacking.clone() };
    let row = Row { value: text("Ada"), revision: Revision(3) };
    let page = |rows, next| Page { at: Index(7), rows, next };
    let replies = [
        Reply::NotMet { part: 2, key: text("k"), revision: None, at: Index(300) },
        Reply::NotMet { part: 0, key: text("k"), revision: Some(Revision(4)), at: Index(1) },
        Reply::Values { rows: vec![None, Some(row.clone())], at: Index(4), revision: Revision(7) },
        Reply::Opened { clock: HybridClock(u64::MAX) },
        Reply::Leads { term: Term(u64::MAX) },
        Reply::Written(receipt),
        Reply::Written(lacking),
        Reply::Written(sums),
        Reply::Page(page(vec![(text("a"), row)], Some(text("a\0")))),
        Reply::Page(page(vec![], Some(text("later")))),
        Reply::Page(page(vec![], None)),
        Reply::Failed(Failure::rejected(Code::SessionGap, "resend in order")),
        Reply::Failed(Failure::unknown(Code::Unavailable, "nobody knows")),
    ];
    through_a_frame(replies.into_iter().map(|reply| PeerMessage::Answer(Answer { id: 8, reply })).collect());
}

#[test]
fn what_no_shard_could_do_is_refused_with_the_reason() {
    let write = |parts: Vec<Part>| Request::Write { parts };
    let many = |keys: Vec<Bytes>| Request::GetMany { keys, consistency: Consistency::Linearizable };
    let key = |n: usize| Bytes::from(format!("key{n}"));
    let half = Bytes::from(vec![0; WRITE_BYTES_MAX / 2]);
    let put = |key: Bytes| Part { key, condition: None, change: Change::put(half.clone()) };
    let add = |n: usize| Part::new(key(n), Change::Add(1));
    let none = Version(0);
    let refused = [
        (write(vec![]), "at least one key"),
        (write(vec![part("", None, Change::DELETE)]), "empty key"),
        (write(vec![part("a", None, Change::Keep)]), "neither a condition nor a change"),
        (write(vec![part("a", Some(Condition::Revision(Revision(0))), Change::DELETE)]), "use absent"),
        (write(vec![part("a", Some(Condition::NotNewerThan(none)), Change::DELETE)]), "version 0 is none"),
        (write(vec![part("a", None, versioned("x", 0))]), "version 0 is none"),
        (write(vec![part("a", None, Change::Delete { version: Some(none) })]), "version 0 is none"),
        (write([parts(), parts()].concat()), "\"a\" is in an atomic write twice"),
        (write((0..=WRITE_PARTS_MAX).map(|n| put(key(n))).collect()), "1025 parts: the limit is 1024"),
        (write(vec![put(key(1)), put(key(2))]), "the limit is 8454144"),
        (write((0..=WRITE_SUMS_MAX).map(add).collect()), "adds to 65 keys: the limit is 64"),
        (many(vec![]), "at least one"),
        (many((0..=GET_MANY_KEYS_MAX).map(key).collect()), "1025 keys"),
        (many(vec![Bytes::from(vec![0; 16_384]); 600]), "bytes of keys"),
        (Request::increment("", 1), "empty key"),
        (Request::put("a", vec![0; 8 << 20 | 1]), "value of 8388609 bytes"),
    ];
    for (request, why) in refused {
        let failure = request.validate().unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert!(failure.message.contains(why), "{failure}");
    }
    assert_eq!(write(parts()).validate(), Ok(()));
    assert_eq!(write((0..WRITE_SUMS_MAX).map(add).collect()).validate(), Ok(()));
    assert_eq!(
        write((0..WRITE_PARTS_MAX).map(|n| Part { key: key(n), ..parts()[1].clone() }).collect()).validate(),
        Ok(())
    );
    for bad in [
        Stamp { sequence: 0, prev: 0, floor: 0, ..STAMP },
        Stamp { prev: 300, ..STAMP },
        Stamp { floor: 300, ..STAMP },
    ] {
        assert_eq!(bad.validate().unwrap_err().code, Code::InvalidArgument);
    }
    assert_eq!(STAMP.validate(), Ok(()));
}

#[test]
fn stamps_and_copies_are_for_writes_only() {
    for request in requests() {
        let is_write = matches!(request, Request::Write { .. });
        let stamped = Call { stamp: Some(STAMP), ..request.clone().into() };
        assert_eq!(stamped.validate().is_ok(), is_write, "{request:?}");
        for copies in [Copies::All, Copies::AtLeast(1)] {
            let copied = Call { durability: copies.into(), ..request.clone().into() };
            assert_eq!(copied.validate().is_ok(), is_write, "{request:?}");
        }
        assert_eq!(Call::from(request).validate(), Ok(()));
    }
    let bad = Call { stamp: Some(Stamp { floor: 300, ..STAMP }), ..Request::delete("a").into() };
    assert!(bad.validate().is_err());
}

#[test]
fn copies_are_never_fewer_than_a_majority() {
    let group = |replicas| Configuration::born((1..=replicas).map(replica).collect());
    assert_eq!([1, 2, 3, 5].map(|replicas| Copies::Majority.of(&group(replicas))), [1, 2, 2, 3]);
    assert_eq!([1, 2, 3].map(|asked| Copies::AtLeast(asked).of(&group(3))), [2, 2, 3]);
    let joint = Configuration { outgoing: group(3).voters, learners: vec![replica(9)], ..group(5) };
    assert_eq!(
        [Copies::Majority, Copies::All].map(|copies| copies.of(&joint)),
        [3, 5],
        "a learner is no copy"
    );
    assert_eq!((Copies::from(0), Copies::from(3)), (Copies::Majority, Copies::AtLeast(3)));
}

#[test]
fn a_count_larger_than_any_write_is_not_believed() {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[3, 0x81, 0x08]);
    out.extend_from_slice(&[0; 4096]);
    let error = Request::decode(&mut Reader::new(out.freeze())).unwrap_err();
    assert!(error.to_string().contains("too many parts"), "{error}");
}

fn peers(numbers: &[u64]) -> Vec<Replica> {
    numbers.iter().copied().map(replica).collect()
}

#[test]
fn configurations_come_back_as_they_were_and_senseless_ones_are_refused() {
    let joint = Configuration {
        at: Index(300),
        voters: peers(&[3, 4, 5]),
        outgoing: peers(&[1, 2, 3]),
        learners: peers(&[6]),
        learners_next: peers(&[1]),
    };
    let encode = |configuration: &Configuration| {
        let mut bytes = BytesMut::new();
        configuration.put(&mut bytes);
        bytes.freeze()
    };
    let decode = |bytes: Bytes| {
        let mut reader = Reader::new(bytes);
        let configuration = Configuration::read(&mut reader, Index(300))?;
        reader.finish().map(|()| configuration)
    };
    let bytes = encode(&joint);
    assert_eq!(decode(bytes.clone()), Ok(joint.clone()));
    for length in 0..bytes.len() {
        assert!(decode(bytes.slice(..length)).is_err(), "{length}");
    }
    let none = Configuration { at: Index(300), ..Configuration::default() };
    assert_eq!(decode(encode(&none)), Ok(none));
    let twice = Replica { node: NodeId(3), peer: PeerId(9) };
    let senseless = [
        Configuration { voters: Vec::new(), ..joint.clone() },
        Configuration { voters: peers(&[3, 3, 4]), ..joint.clone() },
        Configuration { outgoing: peers(&[1, 1, 3]), ..joint.clone() },
        Configuration { learners: peers(&[3]), ..joint.clone() },
        Configuration { learners: vec![twice], ..joint.clone() },
        Configuration { learners_next: peers(&[3]), ..joint.clone() },
        Configuration { learners_next: peers(&[6]), ..joint.clone() },
        Configuration { voters: vec![Replica { node: NodeId(0), ..twice }], ..Configuration::default() },
        Configuration { voters: peers(&(1..=65).collect::<Vec<_>>()), ..Configuration::default() },
    ];
    for configuration in senseless {
        assert!(decode(encode(&configuration)).is_err(), "{configuration:?}");
    }
}

/// By trying all sets: what is said of a group's majorities agrees, and no two of them pass each other by.
#[test]
fn majorities_meet_and_the_fewest_that_decide_are_as_many_as_is_said() {
    let sets: [(&[u64], &[u64]); 6] = [
        (&[1], &[]),
        (&[1, 2], &[]),
        (&[1, 2, 3], &[]),
        (&[1, 2, 3], &[3, 4, 5]),
        (&[1], &[2, 3]),
        (&[1, 2, 3, 4, 5], &[1, 6, 7]),
    ];
    for (voters, outgoing) in sets {
        let group = Configuration {
            voters: peers(voters),
            outgoing: peers(outgoing),
            learners: peers(&[8]),
            ..Configuration::default()
        };
        let quorums: Vec<u32> =
            (0..1 << 8).filter(|set| group.is_quorum(|peer| set & 1 << (peer.0 - 101) != 0)).collect();
        let of_voters = |set: u32| set & !(1 << 7);
        let fewest = quorums.iter().map(|set| of_voters(*set).count_ones()).min();
        assert_eq!(fewest, Some(group.least_quorum()), "{voters:?} {outgoing:?}");
        for one in &quorums {
            for other in &quorums {
                for set in [&group.voters, &group.outgoing].into_iter().filter(|set| !set.is_empty()) {
                    let meet = |replica: &Replica| one & other & 1 << (replica.peer.0 - 101) != 0;
                    assert!(set.iter().any(meet), "{one:b} and {other:b} of {voters:?} {outgoing:?}");
                }
            }
        }
        assert!(group.decides(PeerId(101)) && !group.decides(PeerId(108)));
        assert_eq!(group.node_of(PeerId(108)), Some(NodeId(8)));
        assert_eq!(group.peer_on(NodeId(8)), Some(PeerId(108)));
    }
}

#[test]
fn a_detached_call_is_the_same_and_keeps_nothing_of_its_message() {
    let message = Bytes::from(vec![b'x'; 1_000]);
    let part_of = |at: usize| message.slice(at..at + 3);
    let requests = [
        Request::Get { key: part_of(0), consistency: Consistency::Stale },
        Request::GetMany { keys: vec![part_of(0), part_of(9)], consistency: Consistency::Lease },
        Request::Write {
            parts: vec![
                Part {
                    key: part_of(0),
                    condition: Some(Condition::Value(part_of(10))),
                    change: Change::Put(NewValue { value: part_of(20), version: Some(Version(3)) }),
                },
                Part { key: part_of(30), condition: Some(Condition::Absent), change: Change::Add(1) },
            ],
        },
        Request::Scan(Scan {
            shard: ShardId(1),
            at: None,
            from: part_of(0),
            prefix: part_of(5),
            rows_max: 1,
            bytes_max: 1,
            keys_only: false,
        }),
        Request::ClusterState,
    ];
    let calls = requests.map(Call::from);
    let detached: Vec<Call> = calls.iter().cloned().map(Call::detached).collect();
    assert_eq!(detached, calls);
    drop(calls);
    assert!(message.is_unique());
}
