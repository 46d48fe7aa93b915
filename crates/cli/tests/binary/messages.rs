//! Messages beyond their bounds, and beyond what a client takes, against real processes: what is refused is that request alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringfort_proto::status::to_failure;
use ringfort_proto::v1;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::session_op::Request as OpRequest;
use ringfort_proto::v1::session_result::Result as Told;
use ringfort_proto::v1::{FRAME_OPS_MAX, FRAME_SURPLUS_MAX};
use ringfort_types::Outcome;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::node::{Node, SOON};
use crate::trio::Trio;

/// What a gRPC client takes that is told nothing.
const CLIENT_BYTES: u32 = 4 * 1024 * 1024;

async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

fn get(key: impl Into<String>) -> v1::GetRequest {
    v1::GetRequest { key: key.into().into(), consistency: 0 }
}

fn put(key: &str, bytes: usize) -> v1::PutRequest {
    v1::PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; bytes].into(),
        ..v1::PutRequest::default()
    }
}

fn op(id: u64, request: OpRequest) -> v1::SessionOp {
    v1::SessionOp { id, timeout_ms: 0, request: Some(request) }
}

fn too_many_parts(count: usize) -> v1::WriteRequest {
    let part = |n| v1::WritePart { key: format!("{{p}}{n}").into(), ..v1::WritePart::default() };
    v1::WriteRequest { parts: (0..count).map(part).collect(), ..v1::WriteRequest::default() }
}

fn too_many_keys(count: usize) -> v1::GetManyRequest {
    v1::GetManyRequest {
        keys: (0..count).map(|n| format!("{{p}}{n}").into()).collect(),
        ..v1::GetManyRequest::default()
    }
}

/// A session, with frames sent by hand.
struct Session {
    sender: mpsc::Sender<v1::SessionRequest>,
    answers: Streaming<v1::SessionResponse>,
}

impl Session {
    async fn open(mut client: KvClient<Channel>) -> Session {
        let (sender, receiver) = mpsc::channel(4);
        let answers = client.session(ReceiverStream::new(receiver)).await.expect("it opens").into_inner();
        Session { sender, answers }
    }

    async fn send(&self, frame: impl Into<v1::SessionRequest>) {
        self.sender.send(frame.into()).await.expect("it is open");
    }

    /// So many answers, by number.
    async fn take(&mut self, count: usize) -> Result<BTreeMap<u64, Told>, Status> {
        let mut all = BTreeMap::new();
        while all.len() < count {
            let frame = tokio::time::timeout(2 * SOON, self.answers.message()).await.expect("soon")?;
            let results = frame.expect("it does not end before").results;
            all.extend(results.into_iter().map(|result| (result.id, result.result.expect("one"))));
        }
        Ok(all)
    }
}

fn assert_refused(status: &Status, bound: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains(bound), "{status:?}");
    assert_eq!(to_failure(status).outcome, Outcome::Rejected, "{status:?}");
}

fn assert_error(told: &Told, code: v1::ErrorCode, words: &str) {
    let Told::Error(error) = told else { panic!("no error: {told:?}") };
    assert_eq!((error.code(), error.outcome()), (code, v1::Outcome::Rejected), "{error:?}");
    assert!(error.message.contains(words), "{error:?}");
}

#[tokio::test]
async fn too_many_parts_keys_or_requests_are_refused_by_themselves() {
    let node = Node::start();
    let mut client = KvClient::new(channel(&node.address).await);
    assert_refused(&client.write(too_many_parts(1025)).await.unwrap_err(), "1025 parts");
    assert_refused(&client.get_many(too_many_keys(3000)).await.unwrap_err(), "limit is 1024");

    let mut session = Session::open(client).await;
    let (parts, keys) = (OpRequest::Write(too_many_parts(1025)), OpRequest::GetMany(too_many_keys(1025)));
    session
        .send(vec![
            op(1, OpRequest::Put(put("k", 1))),
            op(2, parts),
            op(3, keys),
            op(4, OpRequest::Get(get("k"))),
        ])
        .await;
    let told = session.take(4).await.expect("it goes on");
    assert!(matches!(told[&1], Told::Put(_)) && matches!(told[&4], Told::Get(_)), "{told:?}");
    assert_error(&told[&2], v1::ErrorCode::InvalidArgument, "limit is 1024");
    assert_error(&told[&3], v1::ErrorCode::InvalidArgument, "limit is 1024");

    let gets = |count: usize| -> Vec<v1::SessionOp> {
        (1..=count as u64).map(|id| op(id, OpRequest::Get(get("k")))).collect()
    };
    session.send(gets(FRAME_OPS_MAX + 3)).await;
    let told = session.take(FRAME_OPS_MAX + 3).await.expect("it goes on");
    assert!((1..=FRAME_OPS_MAX as u64).all(|id| matches!(told[&id], Told::Get(_))));
    for id in 1..=3 {
        assert_error(
            &told[&(FRAME_OPS_MAX as u64 + id)],
            v1::ErrorCode::InvalidArgument,
            "at most 32768 requests",
        );
    }
    // So many that they are not even numbered: all the others are answered first.
    session.send(gets(FRAME_OPS_MAX + FRAME_SURPLUS_MAX + 1)).await;
    let told = session.take(FRAME_OPS_MAX + FRAME_SURPLUS_MAX).await.expect("all but one are answered");
    assert!(!told.contains_key(&((FRAME_OPS_MAX + FRAME_SURPLUS_MAX) as u64 + 1)));
    assert_refused(&session.take(1).await.unwrap_err(), "at most 32768 requests");
}

#[tokio::test]
async fn a_frame_that_can_not_be_read_ends_a_session_once_the_others_are_answered() {
    let node = Node::start();
    let client = KvClient::new(channel(&node.address).await).max_encoding_message_size(32 * 1024 * 1024);
    let mut session = Session::open(client).await;
    session.send((1..=100).map(|id| op(id, OpRequest::Put(put("k", 1000)))).collect::<Vec<_>>()).await;
    session.send(vec![op(101, OpRequest::Put(put("k", 17 * 1024 * 1024)))]).await;
    let told = session.take(100).await.expect("they are answered");
    assert!(told.values().all(|told| matches!(told, Told::Put(_))), "{told:?}");
    let status = session.take(1).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(to_failure(&status).outcome, Outcome::Rejected);
}

#[tokio::test]
async fn an_enum_s_number_that_is_not_known_is_refused() {
    let node = Node::start();
    let mut client = KvClient::new(channel(&node.address).await);
    let unknown = v1::GetRequest { consistency: 3, ..get("k") };
    assert_refused(&client.get(unknown.clone()).await.unwrap_err(), "no consistency 3");
    let many = v1::GetManyRequest { consistency: -1, ..too_many_keys(1) };
    assert_refused(&client.get_many(many).await.unwrap_err(), "no consistency -1");
    let mut session = Session::open(client).await;
    session.send(vec![op(1, OpRequest::Get(unknown)), op(2, OpRequest::Get(get("k")))]).await;
    let told = session.take(2).await.expect("it goes on");
    assert_error(&told[&1], v1::ErrorCode::InvalidArgument, "no consistency 3");
    assert!(matches!(told[&2], Told::Get(_)));
}

#[tokio::test]
async fn a_digest_of_what_is_not_there_is_refused_at_once() {
    let trio = Trio::start();
    let mut cluster = ClusterClient::new(channel(&trio.address(0)).await);
    let shard = 3;
    let marked = async |cluster: &mut ClusterClient<Channel>| {
        cluster
            .digest(v1::DigestRequest { shard })
            .await
            .expect("a mark")
            .into_inner()
            .receipt
            .expect("one")
            .index
    };
    let index = marked(&mut cluster).await;
    let cases =
        [(9, shard, index, "node 9 has no replica of shard 3"), (1, 99, index, "there is no shard 99")];
    let beyond = [1, 2, 3].map(|node| (node, shard, index + 1_000_000, "has no index"));
    for (node, shard, index, why) in cases.into_iter().chain(beyond) {
        let mut call = tonic::Request::new(v1::DigestAtRequest { node, shard, index });
        call.set_timeout(Duration::from_secs(20));
        let begun = Instant::now();
        let status = cluster.digest_at(call).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2), "{why}: {:?}", begun.elapsed());
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains(why), "{status:?}");
    }
    let mut hashes = Vec::new();
    let index = marked(&mut cluster).await;
    for node in 1..=3 {
        let asked = v1::DigestAtRequest { node, shard, index };
        hashes.push(cluster.digest_at(asked).await.expect("all have a fresh mark").into_inner().hash);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[tokio::test]
async fn a_client_s_retry_policy_is_told_not_to_repeat_what_may_have_happened() {
    const KEYS: usize = 16;
    let mut trio = Trio::start();
    let mut client = KvClient::new(channel(&trio.address(0)).await);
    let mut keys = Vec::new();
    for key in (0..KEYS).map(|n| format!("counter{n}")) {
        let add = v1::IncrementRequest { key: key.clone().into(), by: 1, ..v1::IncrementRequest::default() };
        let shard =
            client.increment(add.clone()).await.expect("added").into_inner().receipt.expect("one").shard;
        let opened =
            client.open_session(v1::OpenSessionRequest { shard }).await.expect("opened").into_inner().clock;
        let stamp = v1::SessionStamp { client_low: 7, sequence: 1, opened, ..v1::SessionStamp::default() };
        keys.push([add.clone(), v1::IncrementRequest { stamp: Some(stamp), ..add }]);
    }
    trio.kill(1);
    trio.kill(2);
    let mut calls = Vec::new();
    for add in keys.into_iter().flatten() {
        let mut client = client.clone();
        calls.push(tokio::spawn(async move {
            let mut call = tonic::Request::new(add.clone());
            call.set_timeout(Duration::from_millis(1_800));
            (add.stamp.is_some(), client.increment(call).await.expect_err("there is no majority"))
        }));
    }
    let mut doubtful = [0, 0];
    for call in calls {
        let (is_stamped, status) = call.await.expect("it does not panic");
        let outcome = status.metadata().get("ringfort-outcome").expect("each has one");
        let is_in_doubt = outcome == "unknown";
        doubtful[usize::from(is_stamped)] += usize::from(is_in_doubt);
        let pushback =
            status.metadata().get("grpc-retry-pushback-ms").map(|ms| ms.to_str().expect("a number"));
        let expected = (is_in_doubt && !is_stamped).then_some("-1");
        assert_eq!(pushback, expected, "stamped: {is_stamped}: {status:?}");
    }
    println!("in doubt: {} without a stamp, {} with one", doubtful[0], doubtful[1]);
    assert!(doubtful.iter().all(|count| *count > 0), "the node led some of their shards: {doubtful:?}");
}

async fn frames(
    client: &mut KvClient<Channel>,
    asked: v1::ListRequest,
) -> Result<Vec<v1::ListResponse>, Status> {
    let (mut stream, mut frames) = (client.list(asked).await?.into_inner(), Vec::new());
    while let Some(frame) = stream.message().await? {
        frames.push(frame);
    }
    Ok(frames)
}

#[tokio::test]
async fn the_last_frame_of_a_list_and_no_other_says_that_it_is_the_last() {
    let node = Node::start();
    let mut client = KvClient::new(channel(&node.address).await);
    for n in 0..30 {
        client.put(put(&format!("row{n:02}"), 10_000)).await.expect("put");
    }
    let list = |prefix: &'static str, limit| v1::ListRequest {
        prefix: prefix.into(),
        limit,
        ..v1::ListRequest::default()
    };
    for (asked, rows) in [(list("row", 0), 30), (list("", 7), 7), (list("row3", 0), 0), (list("row29", 0), 1)]
    {
        let frames = frames(&mut client, asked).await.expect("a list");
        let (end, others) = frames.split_last().expect("one at least");
        assert!(end.last && others.iter().all(|frame| !frame.last && !frame.rows.is_empty()), "{rows} rows");
        assert_eq!(frames.iter().map(|frame| frame.rows.len()).sum::<usize>(), rows);
    }
}

#[tokio::test]
async fn a_list_takes_the_deadline_of_its_call() {
    let mut trio = Trio::start();
    let mut client = KvClient::new(channel(&trio.address(0)).await);
    client.put(put("row", 1)).await.expect("put");
    // Nobody can say that what is read is the newest.
    trio.kill(1);
    trio.kill(2);
    for ms in [600, 1_500, 3_000] {
        let mut call = tonic::Request::new(v1::ListRequest::default());
        let time = Duration::from_millis(ms);
        call.set_timeout(time);
        let begun = Instant::now();
        let mut answers = client.list(call).await.expect("it opens").into_inner();
        let status = answers.message().await.unwrap_err();
        let took = begun.elapsed();
        assert!(took <= time && took >= time / 2, "{ms} ms: {took:?}");
        assert_eq!(to_failure(&status).outcome, Outcome::Rejected, "{status:?}");
    }
}

#[tokio::test]
async fn what_is_larger_than_a_client_takes_costs_it_that_row_only() {
    let trio = Trio::start();
    // As a client is that was told nothing.
    let mut client = KvClient::new(channel(&trio.address(0)).await);
    let sizes = [("{x}a", 10), ("{x}b", 5_000_000), ("{x}c", 3_000_000), ("{x}d", 1_500_000), ("{x}e", 10)];
    for (key, bytes) in sizes {
        client.put(put(key, bytes)).await.expect("put");
    }
    let list = |max_message_bytes| v1::ListRequest { max_message_bytes, ..v1::ListRequest::default() };
    assert_eq!(
        frames(&mut client, list(0)).await.unwrap_err().code(),
        Code::OutOfRange,
        "the client's own word"
    );
    assert_refused(&frames(&mut client, list(65_535)).await.unwrap_err(), "give 65536 or more");
    for bytes in [CLIENT_BYTES, 65_536] {
        let frames = frames(&mut client, list(bytes)).await.expect("all of it can be read");
        let rows: Vec<_> = frames.into_iter().flat_map(|frame| frame.rows).collect();
        assert_eq!(
            rows.iter().map(|row| &row.key[..]).collect::<Vec<_>>(),
            sizes.map(|(key, _)| key.as_bytes())
        );
        for (row, (_, size)) in rows.iter().zip(sizes) {
            let fits = size < bytes as usize;
            assert_eq!(
                (row.error.is_none(), row.value.len()),
                (fits, if fits { size } else { 0 }),
                "{:?}",
                row.key
            );
            if let Some(error) = &row.error {
                assert_eq!(error.code(), v1::ErrorCode::FailedPrecondition);
            }
        }
    }

    for (node, bytes) in [(0, CLIENT_BYTES), (1, 65_536), (2, CLIENT_BYTES)] {
        let mut session = Session::open(KvClient::new(channel(&trio.address(node)).await)).await;
        let mut frame: v1::SessionRequest = (0..)
            .zip(sizes)
            .map(|(id, (key, _))| op(id, OpRequest::Get(get(key))))
            .collect::<Vec<_>>()
            .into();
        let keys = sizes[1..4].iter().map(|(key, _)| (*key).into()).collect();
        frame
            .ops
            .push(op(9, OpRequest::GetMany(v1::GetManyRequest { keys, ..v1::GetManyRequest::default() })));
        frame.max_message_bytes = bytes;
        session.send(frame).await;
        let told = session.take(6).await.expect("all can be read");
        for (id, (_, size)) in (0..).zip(sizes) {
            match &told[&id] {
                Told::Get(get) => assert_eq!(get.value.len(), size),
                error => {
                    assert!(size >= bytes as usize, "{error:?}");
                    assert_error(error, v1::ErrorCode::FailedPrecondition, "raise its limit");
                }
            }
        }
        assert_error(&told[&9], v1::ErrorCode::FailedPrecondition, "");
        // It holds for the frames after it.
        session.send(vec![op(10, OpRequest::Get(get("{x}b"))), op(11, OpRequest::Get(get("{x}e")))]).await;
        let told = session.take(2).await.expect("all can be read");
        assert_error(&told[&10], v1::ErrorCode::FailedPrecondition, "raise its limit");
        assert!(matches!(&told[&11], Told::Get(get) if get.found));
        let mut refused: v1::SessionRequest = vec![op(12, OpRequest::Get(get("{x}e")))].into();
        refused.max_message_bytes = 1;
        session.send(refused).await;
        assert_error(
            &session.take(1).await.expect("it goes on")[&12],
            v1::ErrorCode::InvalidArgument,
            "give 65536",
        );
    }
}
