//! Conditions, atomic writes, increments, several keys at once, and sessions, as any client in any language has them.

use ringfort_proto::v1::condition::Must;
use ringfort_proto::v1::write_part::Change;
use ringfort_proto::v1::{self, session_op, session_result};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::nodes::{Nodes, delete, get, put, replicas_agree};

#[expect(clippy::unnecessary_wraps, reason = "requests have an optional condition, and this is one")]
fn must(must: Must) -> Option<v1::Condition> {
    Some(v1::Condition { must: Some(must) })
}

fn part(key: &str, condition: Option<v1::Condition>, change: Option<Change>) -> v1::WritePart {
    v1::WritePart { key: key.to_owned().into(), condition, change }
}

fn outcome(status: &tonic::Status) -> &[u8] {
    status.metadata().get("ringfort-outcome").unwrap().as_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_put_and_a_delete_may_have_a_condition() {
    let nodes = Nodes::serving(1, 4).await;
    let mut kv = nodes.kv(0).await;
    let create = v1::PutRequest { condition: must(Must::Present(false)), ..put("name", "Ada") };
    let first = kv.put(create.clone()).await.unwrap().into_inner();
    let revision = first.receipt.unwrap().revision;
    assert!(first.not_met.is_none());
    let again = kv.put(create).await.unwrap().into_inner();
    let not_met = again.not_met.unwrap();
    assert_eq!((again.receipt, not_met.revision, &not_met.key[..]), (None, Some(revision), &b"name"[..]));
    let swap = v1::PutRequest { condition: must(Must::Revision(revision)), ..put("name", "Grace") };
    assert!(kv.put(swap.clone()).await.unwrap().into_inner().receipt.is_some());
    assert!(kv.put(swap).await.unwrap().into_inner().not_met.is_some());
    let remove = |value: &str| v1::DeleteRequest {
        condition: must(Must::Value(value.to_owned().into())),
        ..delete("name")
    };
    assert!(kv.delete(remove("Ada")).await.unwrap().into_inner().not_met.is_some());
    assert!(kv.delete(remove("Grace")).await.unwrap().into_inner().receipt.is_some());
    let gone = kv.delete(remove("Grace")).await.unwrap().into_inner().not_met.unwrap();
    assert_eq!(gone.revision, None);

    let empty = v1::PutRequest { condition: Some(v1::Condition { must: None }), ..put("name", "x") };
    let status = kv.put(empty).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::InvalidArgument, &b"rejected"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_one_shard_are_written_and_read_at_once_through_any_node() {
    let nodes = Nodes::serving(3, 8).await;
    for n in 0..9 {
        let mut kv = nodes.kv(n % 3).await;
        let key = |name: &str| format!("{{user{n}}}{name}");
        let change = |value: &str| Some(Change::Put(value.to_owned().into()));
        let write = v1::WriteRequest {
            parts: vec![
                part(&key("name"), must(Must::Present(false)), change("Ada")),
                part(&key("mail"), None, change("ada@example.org")),
                part(&key("old"), None, Some(Change::Delete(true))),
            ],
            ..v1::WriteRequest::default()
        };
        let done = kv.write(write.clone()).await.unwrap().into_inner();
        let revision = done.receipt.unwrap().revision;
        let unmet = kv.write(write).await.unwrap().into_inner().not_met.unwrap();
        assert_eq!((unmet.part, unmet.revision), (0, Some(revision)));
        let mut kv = nodes.kv((n + 1) % 3).await;
        let keys = ["mail", "old", "name"].map(|name| key(name).into()).to_vec();
        let many = kv
            .get_many(v1::GetManyRequest { keys, ..v1::GetManyRequest::default() })
            .await
            .unwrap()
            .into_inner();
        let rows: Vec<_> = many.rows.iter().map(|row| (row.found, &row.value[..], row.revision)).collect();
        assert_eq!(
            rows,
            [(true, &b"ada@example.org"[..], revision), (false, b"", 0), (true, b"Ada", revision)]
        );
    }
    let mut kv = nodes.kv(0).await;
    let apart = ["a", "b", "c", "d", "e"];
    let parts = apart.map(|key| part(key, None, Some(Change::Delete(true)))).to_vec();
    let status = kv.write(v1::WriteRequest { parts, ..v1::WriteRequest::default() }).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::InvalidArgument, &b"rejected"[..]));
    assert!(status.message().contains("{user1}"), "{status:?}");
    let keys = apart.map(Into::into).to_vec();
    let status = kv.get_many(v1::GetManyRequest { keys, consistency: 1, surplus: 0 }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    replicas_agree(&nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_counter_counts_and_says_when_it_can_not() {
    let nodes = Nodes::serving(1, 4).await;
    let mut kv = nodes.kv(0).await;
    let add = |key: &str, by| v1::IncrementRequest { key: key.to_owned().into(), by, stamp: None, copies: 0 };
    for (by, value) in [(5, 5), (-7, -2), (0, -2)] {
        assert_eq!(kv.increment(add("n", by)).await.unwrap().into_inner().value, value);
    }
    assert_eq!(kv.get(get("n")).await.unwrap().into_inner().value, "-2");
    let status = kv.increment(add("n", i64::MIN)).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::OutOfRange, &b"rejected"[..]));
    kv.put(put("text", "five")).await.unwrap();
    let status = kv.increment(add("text", 1)).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::FailedPrecondition, &b"rejected"[..]));
}

/// The shard of a key, whose clock a session is opened with.
async fn shard_of(nodes: &Nodes, key: &str) -> u32 {
    let mut kv = nodes.kv(0).await;
    kv.put(put(key, "0")).await.unwrap().into_inner().receipt.unwrap().shard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stamped_write_is_done_once_also_after_a_restart() {
    let mut nodes = Nodes::serving(3, 4).await;
    let shard = shard_of(&nodes, "n").await;
    let opened = nodes.kv(1).await.open_session(v1::OpenSessionRequest { shard }).await.unwrap().into_inner();
    assert!(opened.clock > 0);
    let stamp = |sequence, prev| {
        let (client_high, client_low) = (1, 2);
        Some(v1::SessionStamp { client_high, client_low, sequence, prev, floor: 0, opened: opened.clock })
    };
    let add = |sequence, prev| v1::IncrementRequest {
        key: "n".into(),
        by: 1,
        stamp: stamp(sequence, prev),
        copies: 0,
    };
    let mut answers = Vec::new();
    for at in 0..3 {
        let answer = nodes.kv(at).await.increment(add(1, 0)).await.unwrap().into_inner();
        answers.push((answer.value, answer.receipt.unwrap().index));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 1), "{answers:?}");
    let mut kv = nodes.kv(0).await;
    let status = kv.increment(add(3, 2)).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::Aborted, &b"rejected"[..]));
    for at in 0..3 {
        nodes.drop(at);
    }
    for at in 0..3 {
        nodes.start(at).await;
    }
    nodes.all_serving().await;
    let mut kv = nodes.kv(2).await;
    let again = kv.increment(add(1, 0)).await.unwrap().into_inner();
    assert_eq!((again.value, again.receipt.unwrap().index), answers[0]);
    assert_eq!(kv.increment(add(2, 1)).await.unwrap().into_inner().value, 2);

    let read = v1::PutRequest { stamp: stamp(3, 4), ..put("n", "x") };
    assert_eq!(kv.put(read).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_carries_all_of_it() {
    let nodes = Nodes::serving(1, 4).await;
    let shard = shard_of(&nodes, "{s}n").await;
    let mut kv = nodes.kv(0).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut answers = kv.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut ask = async |request| {
        let op = v1::SessionOp { id: 7, timeout_ms: 0, request: Some(request) };
        sender.send(vec![op].into()).await.unwrap();
        let mut results = answers.next().await.unwrap().unwrap().results;
        assert_eq!((results.len(), results[0].id), (1, 7));
        results.remove(0).result.unwrap()
    };
    let open = session_op::Request::OpenSession(v1::OpenSessionRequest { shard });
    let session_result::Result::OpenSession(opened) = ask(open).await else { panic!() };
    let stamp = v1::SessionStamp { sequence: 1, opened: opened.clock, ..v1::SessionStamp::default() };
    for _ in 0..2 {
        let add = v1::IncrementRequest { key: "{s}n".into(), by: 5, stamp: Some(stamp), copies: 0 };
        let session_result::Result::Increment(sum) = ask(session_op::Request::Increment(add)).await else {
            panic!()
        };
        assert_eq!(sum.value, 5);
    }
    let write = v1::WriteRequest {
        parts: vec![
            part("{s}n", must(Must::Value("5".into())), None),
            part("{s}m", must(Must::Present(true)), Some(Change::Delete(true))),
        ],
        ..v1::WriteRequest::default()
    };
    let session_result::Result::Write(told) = ask(session_op::Request::Write(write)).await else { panic!() };
    assert_eq!(told.not_met.unwrap().part, 1);
    let many =
        v1::GetManyRequest { keys: vec!["{s}m".into(), "{s}n".into()], ..v1::GetManyRequest::default() };
    let session_result::Result::GetMany(told) = ask(session_op::Request::GetMany(many)).await else {
        panic!()
    };
    assert_eq!(told.rows.iter().map(|row| row.found).collect::<Vec<_>>(), [false, true]);
    let bad = v1::PutRequest { condition: Some(v1::Condition { must: None }), ..put("{s}n", "x") };
    let session_result::Result::Error(error) = ask(session_op::Request::Put(bad)).await else { panic!() };
    assert_eq!(error.code(), v1::ErrorCode::InvalidArgument);
}
