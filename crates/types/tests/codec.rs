//! What is stored or sent comes back as it was, and nothing else is taken for it.

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{GET_MANY_KEYS_MAX, WRITE_BYTES_MAX, WRITE_PARTS_MAX};
use ringfort_types::wire::Reader;
use ringfort_types::{
    Change, Code, Command, Condition, Consistency, Entry, Epoch, Failure, Forward, HybridClock, Incarnation,
    Index, NodeId, Part, PeerFrame, PeerMessage, Receipt, Reply, Request, Revision, Row, ShardId, Stamp,
    Stamped, Term,
};

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn part(key: &'static str, condition: Option<Condition>, change: Change) -> Part {
    Part { key: text(key), condition, change }
}

fn parts() -> Vec<Part> {
    vec![
        part("a", None, Change::Put(text("1"))),
        part("b", Some(Condition::Absent), Change::Delete),
        part("c", Some(Condition::Present), Change::Keep),
        part("d", Some(Condition::Revision(Revision(300))), Change::Put(Bytes::new())),
        part("e", Some(Condition::Value(text("x"))), Change::Delete),
    ]
}

const STAMP: Stamp =
    Stamp { client: 1 << 120 | 2, sequence: 300, prev: 299, floor: 5, opened: HybridClock(7) };

#[test]
fn entries_round_trip_and_every_cut_is_noticed() {
    let plain: Stamped = Command::Increment { key: text("n"), by: -2 }.into();
    let commands = vec![
        plain.clone(),
        Stamped { stamp: Some(STAMP), ..plain },
        Stamped { stamp: Some(STAMP), command: Command::Write { parts: parts() } },
        Command::Digest.into(),
    ];
    let entry = Entry { clock: HybridClock(9), commands };
    let bytes = entry.encode();
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
    let increment = Command::Increment { key: text("n"), by: -2 };
    assert_eq!(encoded(increment.clone().into()), [&[5, 0, 1, b'n'], &by[..]].concat());
    let stamp = Stamp { client: 3, sequence: 300, prev: 2, floor: 1, opened: HybridClock(4) };
    let drawn = [&[5, 1, 3], &[0; 15][..], &[0xAC, 2, 2, 1, 4], &[0; 7], &[1, b'n'], &by].concat();
    assert_eq!(encoded(Stamped { stamp: Some(stamp), command: increment }), drawn);
    let write = Command::Write { parts: parts() };
    let drawn = [
        &[4, 0, 5][..],
        &[1, b'a', 0, 2, 1, b'1'],
        &[1, b'b', 1, 1],
        &[1, b'c', 2, 0],
        &[1, b'd', 3, 0xAC, 2, 2, 0],
        &[1, b'e', 4, 1, b'x', 1],
    ];
    assert_eq!(encoded(write.into()), drawn.concat());
}

#[test]
fn what_a_command_does_not_say_is_not_guessed() {
    let good =
        Entry { clock: HybridClock(0), commands: vec![Command::Write { parts: parts() }.into()] }.encode();
    for (at, what) in [(11, "kind of command"), (12, "flag on a command"), (16, "kind of condition")] {
        let mut bad = good.to_vec();
        bad[at] = 9;
        let error = Entry::decode(bad.into()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn requests_and_replies_round_trip() {
    let keys = vec![text("a"), text("{a}b")];
    let requests = [
        Request::Write { parts: parts() },
        Request::Increment { key: text("n"), by: i64::MIN },
        Request::GetMany { keys: keys.clone(), consistency: Consistency::Stale },
        Request::GetMany { keys, consistency: Consistency::Linearizable },
        Request::OpenSession { shard: ShardId(300) },
        Request::Get { key: text("a"), consistency: Consistency::Stale },
    ];
    let receipt =
        Receipt { shard: ShardId(3), term: Term(2), index: Index(9), revision: Revision(8), copies: 2 };
    let row = Row { value: text("Ada"), revision: Revision(3) };
    let replies = [
        Reply::NotMet { part: 2, key: text("k"), revision: None, at: Index(300) },
        Reply::NotMet { part: 0, key: text("k"), revision: Some(Revision(4)), at: Index(1) },
        Reply::Counted { value: -5, receipt },
        Reply::Values { rows: vec![None, Some(row)], at: Index(4), revision: Revision(7) },
        Reply::Opened { clock: HybridClock(u64::MAX) },
        Reply::Written(receipt),
        Reply::Failed(Failure::rejected(Code::SessionGap, "resend in order")),
    ];
    let mut messages = Vec::new();
    for request in requests {
        for stamp in [None, Some(STAMP)] {
            let forward = Forward { id: 7, timeout_ms: 500, stamp, copies: 3, request: request.clone() };
            messages.push(PeerMessage::Forward(forward));
        }
    }
    messages.extend(replies.into_iter().map(|reply| PeerMessage::Answer { id: 8, reply }));
    let frame = PeerFrame {
        from: NodeId(1),
        to: NodeId(2),
        incarnation: Incarnation(3),
        cluster: 4,
        epoch: Epoch(5),
        messages,
    };
    assert_eq!(PeerFrame::decode(frame.encode()), Ok(frame));
}

#[test]
fn what_no_shard_could_do_is_refused_with_the_reason() {
    let write = |parts: Vec<Part>| Request::Write { parts };
    let many = |keys: Vec<Bytes>| Request::GetMany { keys, consistency: Consistency::Linearizable };
    let key = |n: usize| Bytes::from(format!("key{n}"));
    let half = Bytes::from(vec![0; WRITE_BYTES_MAX / 2]);
    let put = |key: Bytes| Part { key, condition: None, change: Change::Put(half.clone()) };
    let refused = [
        (write(vec![]), "at least one key"),
        (write(vec![part("", None, Change::Delete)]), "empty key"),
        (write(vec![part("a", None, Change::Keep)]), "neither a condition nor a change"),
        (write(vec![part("a", Some(Condition::Revision(Revision(0))), Change::Delete)]), "use absent"),
        (write([parts(), parts()].concat()), "\"a\" is in an atomic write twice"),
        (write((0..=WRITE_PARTS_MAX).map(|n| put(key(n))).collect()), "1025 parts: the limit is 1024"),
        (write(vec![put(key(1)), put(key(2))]), "the limit is 8454144"),
        (many(vec![]), "at least one"),
        (many((0..=GET_MANY_KEYS_MAX).map(key).collect()), "1025 keys"),
        (many(vec![Bytes::from(vec![0; 16_384]); 600]), "bytes of keys"),
        (Request::Increment { key: Bytes::new(), by: 1 }, "empty key"),
    ];
    for (request, why) in refused {
        let failure = request.validate().unwrap_err();
        assert_eq!(failure.code, Code::InvalidArgument);
        assert!(failure.message.contains(why), "{failure}");
    }
    assert_eq!(write(parts()).validate(), Ok(()));
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
fn a_count_larger_than_any_write_is_not_believed() {
    let mut out = BytesMut::new();
    out.extend_from_slice(&[8, 0x81, 0x08]);
    out.extend_from_slice(&[0; 4096]);
    let error = Request::decode(&mut Reader::new(out.freeze())).unwrap_err();
    assert!(error.to_string().contains("too many parts"), "{error}");
}
