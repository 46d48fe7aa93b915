//! A cluster of one: calls, sessions, lists, errors, restarts.

use std::time::{Duration, Instant};

use crate::nodes::{Nodes, delete, get, list, put, rows};
use ringfort_proto::v1::{self, session_op, session_result};
use ringfort_server::{Config, start};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_are_put_got_deleted_and_listed_in_order() {
    let nodes = Nodes::serving(1, 8).await;
    let mut kv = nodes.kv(0).await;
    for n in 0..300 {
        let receipt =
            kv.put(put(format!("key{n:03}"), format!("value{n}"))).await.unwrap().into_inner().receipt;
        assert!(receipt.unwrap().index > 0);
    }
    kv.delete(delete("key150")).await.unwrap();
    let got = kv.get(get("key042")).await.unwrap().into_inner();
    assert_eq!((got.found, &got.value[..]), (true, &b"value42"[..]));
    assert!(!kv.get(get("key150")).await.unwrap().into_inner().found);

    let all = rows(&mut kv, list("")).await;
    let expected: Vec<_> = (0..300).filter(|n| *n != 150).collect();
    assert_eq!(all, expected.iter().map(|n| (format!("key{n:03}"), format!("value{n}"))).collect::<Vec<_>>());
    let some = v1::ListRequest { limit: 3, keys_only: true, from: "key0995".into(), ..list("key1") };
    let some = rows(&mut kv, some).await;
    assert_eq!(some, ["key100", "key101", "key102"].map(|key| (key.to_owned(), String::new())));
    assert!(rows(&mut kv, list("nothing")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_list_is_gone_on_with_at_the_indexes_that_its_first_message_names() {
    let nodes = Nodes::serving(1, 4).await;
    let mut kv = nodes.kv(0).await;
    for n in 0..9 {
        kv.put(put(format!("key{n}"), "old")).await.unwrap();
    }
    let mut stream = kv.list(v1::ListRequest { limit: 3, ..list("") }).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.rows.len(), first.indexes.len()), (3, 4));
    for n in 0..9 {
        kv.put(put(format!("key{n}"), "new")).await.unwrap();
    }
    let rest = v1::ListRequest { from: "key2\0".into(), indexes: first.indexes.clone(), ..list("") };
    let rest = rows(&mut kv, rest).await;
    assert_eq!(rest, (3..9).map(|n| (format!("key{n}"), "old".to_owned())).collect::<Vec<_>>());
    let few = v1::ListRequest { indexes: first.indexes[1..].to_vec(), ..list("") };
    let refused = kv.list(few).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("3 indexes for 4 shards"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rows_larger_than_a_page_are_listed_among_others() {
    let nodes = Nodes::serving(1, 2).await;
    let mut kv = nodes.kv(0).await;
    let row = |n: usize| (format!("key{n:02}"), "v".repeat(if n.is_multiple_of(3) { 300_000 } else { 3 }));
    let expected: Vec<_> = (0..20).map(row).collect();
    for (key, value) in &expected {
        kv.put(put(key.clone(), value.clone())).await.unwrap();
    }
    assert_eq!(rows(&mut kv, list("")).await, expected);
    let some = v1::ListRequest { limit: 7, from: "key03".into(), ..list("key") };
    assert_eq!(rows(&mut kv, some).await, expected[3..10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_keeps_what_was_acknowledged() {
    let mut nodes = Nodes::serving(1, 8).await;
    for round in 0..3 {
        let mut kv = nodes.kv(0).await;
        for n in 0..50 {
            kv.put(put(format!("{round}/{n:02}"), "x".repeat(20_000))).await.unwrap();
        }
        nodes.drop(0);
        nodes.start(0).await;
        nodes.all_serving().await;
        let mut kv = nodes.kv(0).await;
        assert_eq!(rows(&mut kv, list("")).await.len(), 50 * (round + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_answers_every_request_once() {
    let nodes = Nodes::serving(1, 8).await;
    let mut kv = nodes.kv(0).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let mut answers = kv.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let writing = tokio::spawn(async move {
        for frame in 0..20_u64 {
            let ops = (0..50_u64).map(|n| {
                let id = frame * 50 + n;
                let key = format!("key{n}");
                let request = match id % 3 {
                    0 => Some(session_op::Request::Get(get(key))),
                    1 => Some(session_op::Request::Put(put(key, "value"))),
                    _ if id == 500 => None,
                    _ => Some(session_op::Request::Delete(delete(key))),
                };
                v1::SessionOp { id, timeout_ms: 0, request }
            });
            sender.send(v1::SessionRequest::from(ops.collect::<Vec<_>>())).await.unwrap();
        }
    });
    let mut seen = vec![false; 1000];
    while let Some(frame) = answers.next().await {
        for result in frame.unwrap().results {
            let id = result.id as usize;
            assert!(!std::mem::replace(&mut seen[id], true), "answered twice: {id}");
            match (id % 3, result.result.unwrap()) {
                (_, session_result::Result::Error(error)) => {
                    assert_eq!((id, error.code()), (500, v1::ErrorCode::InvalidArgument));
                }
                (0, session_result::Result::Get(_))
                | (1, session_result::Result::Put(_))
                | (2, session_result::Result::Delete(_)) => {}
                (_, other) => panic!("{id} was answered with {other:?}"),
            }
        }
    }
    writing.await.unwrap();
    assert!(seen.iter().all(|seen| *seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bad_input_is_refused_and_says_that_nothing_happened() {
    let nodes = Nodes::serving(1, 2).await;
    let mut kv = nodes.kv(0).await.max_encoding_message_size(64 << 20);
    let outcome = |status: &tonic::Status| status.metadata().get("ringfort-outcome").unwrap().clone();
    for bad in [put("", "x"), put("k".repeat(16 * 1024 + 1), "x"), put("k", "v".repeat((8 << 20) + 1))] {
        let status = kv.put(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(outcome(&status), "rejected");
    }
    let largest = put("k".repeat(16 * 1024), "v".repeat(8 << 20));
    kv.put(largest.clone()).await.unwrap();
    let mut kv = kv.max_decoding_message_size(64 << 20);
    let got = kv.get(v1::GetRequest { key: largest.key, consistency: 0 }).await.unwrap().into_inner();
    assert_eq!(got.value, largest.value);
    let mut all = kv.list(list("")).await.unwrap().into_inner();
    assert_eq!(all.message().await.unwrap().unwrap().rows.len(), 1);

    let mut cluster = nodes.cluster(0).await;
    let status = cluster.digest(v1::DigestRequest { shard: 99 }).await.unwrap_err();
    assert_eq!(outcome(&status), "rejected", "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stopping_ends_open_streams_and_takes_little_time() {
    let mut nodes = Nodes::serving(1, 8).await;
    let mut kv = nodes.kv(0).await;
    let (_open, receiver) = tokio::sync::mpsc::channel(1);
    let mut answers = kv.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let running = nodes.running[0].take().unwrap();
    let started = Instant::now();
    running.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!matches!(answers.next().await, Some(Ok(_))));
    nodes.start(0).await;
    nodes.all_serving().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn any_client_can_ask_what_there_is_and_whether_it_is_well() {
    use ringfort_proto::health::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

    let nodes = Nodes::serving(1, 2).await;
    let mut health = HealthClient::new(nodes.channel(0).await);
    for service in ["", "ringfort.v1.KV", "ringfort.v1.Cluster"] {
        let asked = HealthCheckRequest { service: service.into() };
        let until = Instant::now() + Duration::from_secs(2);
        while health.check(asked.clone()).await.unwrap().into_inner().status != 1 {
            assert!(Instant::now() < until, "{service:?} never serves");
        }
    }

    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(nodes.channel(0).await);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::iter([asked])).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) = answer else {
        panic!("{answer:?}")
    };
    for name in ["ringfort.v1.KV", "ringfort.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(service.iter().any(|service| service.name == name), "{name} is missing from {service:?}");
    }
    assert!(service.iter().all(|service| !service.name.contains("internal")), "{service:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_list_shows_one_moment_of_each_shard_however_slowly_it_is_read() {
    let mut nodes = Nodes::new(1, 4);
    nodes.configs[0].memtable_bytes = 5 * 1024 * 1024;
    nodes.start(0).await;
    nodes.all_serving().await;
    let mut kv = nodes.kv(0).await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut answers = kv.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut write_all = async |value: String| {
        let op = |n: u64| v1::SessionOp {
            id: n,
            timeout_ms: 0,
            request: Some(session_op::Request::Put(put(format!("{n:05}"), value.clone()))),
        };
        sender.send(v1::SessionRequest::from((0..2_000).map(op).collect::<Vec<_>>())).await.unwrap();
        let mut left = 2_000;
        while left > 0 {
            for result in answers.next().await.unwrap().unwrap().results {
                assert!(matches!(result.result, Some(session_result::Result::Put(_))));
                left -= 1;
            }
        }
    };
    // More than the client's own window takes, so that much of it is not yet read when it is overwritten.
    write_all("old".repeat(1_000)).await;
    let mut stream = kv.list(list("")).await.unwrap().into_inner();
    let mut rows = stream.message().await.unwrap().unwrap().rows;
    for _ in 0..7 {
        write_all("new".repeat(100)).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    while let Some(frame) = stream.message().await.unwrap() {
        rows.extend(frame.rows);
    }
    assert_eq!(rows.len(), 2_000);
    assert!(rows.iter().all(|row| row.value.starts_with(b"old")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_does_not_greet_is_closed_and_nobody_else_notices() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let nodes = Nodes::serving(1, 2).await;
    let mut stream = tokio::net::TcpStream::connect(&nodes.configs[0].listen).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut kv = nodes.kv(0).await;
    kv.put(put("key", "value")).await.unwrap();
    let started = Instant::now();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _reset_or_end = tokio::time::timeout(Duration::from_secs(8), read).await.expect("closed in time");
    assert!(started.elapsed() > Duration::from_secs(4), "closed too soon");
    assert!(kv.get(get("key")).await.unwrap().into_inner().found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_start_says_why() {
    let nodes = Nodes::serving(1, 2).await;
    let fresh = tempfile::tempdir().unwrap();
    let taken = Config::new(&nodes.configs[0].listen, fresh.path());
    let failed = |config: Config| async { start(config).await.map(|_| ()).unwrap_err() };

    let error = failed(taken).await;
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("is in use"), "{error}");

    let error = failed(Config::new("127.0.0.1:0", nodes.dir(0))).await;
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("in use by"), "{error}");

    std::fs::write(fresh.path().join("thesis.txt"), "mine").unwrap();
    let error = failed(Config::new("127.0.0.1:0", fresh.path())).await;
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("thesis.txt"), "{error}");

    for address in ["localhost", "127.0.0.1:99999", "no-such-host.invalid:50051"] {
        let error = failed(Config::new(address, fresh.path())).await;
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("is not an address"), "{error}");
    }
}
