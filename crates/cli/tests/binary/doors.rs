//! The gRPC packages of other systems, asked as their clients do, against real processes.

use std::time::{Duration, Instant};

use ringfort_proto::family::family_service_client::FamilyServiceClient;
use ringfort_proto::family::storage_service_client::StorageServiceClient;
use ringfort_proto::kv::cluster_client::ClusterClient;
use ringfort_proto::kv::key_value_client::KeyValueClient;
use ringfort_proto::kvstore::kv_store_client::KvStoreClient;
use ringfort_proto::kvstore::replicator_client::ReplicatorClient;
use ringfort_proto::proto_kv::kv_client::KvClient;
use ringfort_proto::{family, kv, kvstore, proto_kv};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::eventually;
use crate::trio::Trio;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

async fn channel(trio: &Trio, node: usize) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", trio.address(node))).expect("an address");
    endpoint.connect().await.expect("connects")
}

#[test]
fn kv_keeps_its_callers_order_through_deletes_restarts_and_other_nodes() {
    let mut trio = Trio::start();
    let runtime = runtime();
    runtime.block_on(async {
        let mut client = KeyValueClient::new(channel(&trio, 0).await);
        let set = |value: &str, version| kv::SetRequest {
            key: "k".into(),
            value: value.to_owned().into(),
            version,
        };
        let get = || kv::GetRequest { key: "k".into() };
        let read =
            |told: kv::GetResponse| told.found.then(|| String::from_utf8(told.value.to_vec()).expect("text"));
        assert_eq!(read(client.get(get()).await.unwrap().into_inner()), None);
        assert!(client.set(set("five", 5)).await.unwrap().into_inner().ok);
        assert!(
            client.set(set("four", 4)).await.unwrap().into_inner().ok,
            "an older one is ignored, and is ok"
        );
        assert_eq!(read(client.get(get()).await.unwrap().into_inner()).as_deref(), Some("five"));
        let replicate = |value: &str, version, is_delete| kv::ReplicateRequest {
            key: "k".into(),
            value: value.to_owned().into(),
            version,
            is_delete,
        };
        assert!(!client.replicate(replicate("four", 4, false)).await.unwrap().into_inner().ok);
        assert!(client.replicate(replicate("six", 6, false)).await.unwrap().into_inner().ok);
        assert!(
            client.delete(kv::DeleteRequest { key: "k".into(), version: 8 }).await.unwrap().into_inner().ok
        );
        assert!(client.set(set("seven", 7)).await.unwrap().into_inner().ok);
        assert_eq!(
            read(client.get(get()).await.unwrap().into_inner()),
            None,
            "a late, older set revives nothing"
        );
        assert!(client.delete(kv::DeleteRequest { key: "k".into(), version: -1 }).await.is_err());
    });
    // All of it is on disk.
    for node in 0..3 {
        trio.kill(node);
    }
    for node in 0..3 {
        trio.start_node(node);
    }
    eventually("all serve again", || (0..3).all(|node| trio.said(node).contains("serves on")));
    runtime.block_on(async {
        let mut client = KeyValueClient::new(channel(&trio, 2).await);
        let replicate = |version, is_delete| kv::ReplicateRequest {
            key: "k".into(),
            value: "again".into(),
            version,
            is_delete,
        };
        assert!(
            !client.replicate(replicate(7, false)).await.unwrap().into_inner().ok,
            "the tombstone is there"
        );
        assert!(!client.replicate(replicate(7, true)).await.unwrap().into_inner().ok);
        assert!(client.replicate(replicate(9, false)).await.unwrap().into_inner().ok);
        // A tombstone is no row.
        assert!(
            client.set(kv::SetRequest { key: "plain".into(), value: "v".into(), version: 0 }).await.is_ok()
        );
        assert!(client.delete(kv::DeleteRequest { key: "k".into(), version: 10 }).await.is_ok());
    });
    let listed = trio.command(&["list"]).output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "plain\tv\n");
    runtime.block_on(async {
        let mut cluster = ClusterClient::new(channel(&trio, 1).await);
        let state = cluster.get_cluster_state(kv::GetClusterStateRequest {}).await.unwrap().into_inner();
        assert_eq!(state.node_ids, ["node1", "node2", "node3"]);
        assert_eq!(state.addresses, trio.addresses());
        assert!(state.node_ids.contains(&state.leader_id), "{state:?}");
        let heartbeat =
            kv::HeartbeatRequest { node_id: "x".into(), term: 999, is_leader: true, ..Default::default() };
        let told = cluster.heartbeat(heartbeat).await.unwrap().into_inner();
        assert!(!told.accepted && told.term >= 1 && told.term < 999);
        let vote = kv::RequestVoteRequest { node_id: "x".into(), term: 999, last_log_index: 1 };
        assert!(!cluster.request_vote(vote).await.unwrap().into_inner().vote_granted);
    });
}

#[test]
fn kvstore_says_who_lags_and_streams_all_rows() {
    let mut trio = Trio::start();
    runtime().block_on(async {
        let mut client = KvStoreClient::new(channel(&trio, 0).await);
        let row = |key: &str, value: &str| kvstore::KeyValue { key: key.into(), value: value.into() };
        let ack = |ok, message: &str| kvstore::Ack { ok, message: message.into() };
        assert_eq!(
            client.put(row("name", "Adnan")).await.unwrap().into_inner(),
            ack(true, "Stored and replicated")
        );
        assert_eq!(client.put(row("", "x")).await.unwrap().into_inner(), ack(false, "empty key"));
        let mut other = KvStoreClient::new(channel(&trio, 1).await);
        let key = |key: &str| kvstore::Key { key: key.into() };
        assert_eq!(other.get(key("name")).await.unwrap().into_inner().value, "Adnan");
        assert_eq!(other.get(key("nobody")).await.unwrap_err().code(), Code::NotFound);
        let mut replicator = ReplicatorClient::new(channel(&trio, 1).await);
        assert!(replicator.replicate(row("other", "row")).await.unwrap().into_inner().ok);

        for number in 0..500 {
            client.put(row(&format!("row{number:03}"), "v")).await.unwrap();
        }
        let mut list = other.list(()).await.unwrap().into_inner();
        let mut keys = Vec::new();
        while let Some(row) = list.message().await.unwrap() {
            keys.push(row.key);
        }
        assert_eq!((keys.len(), keys.is_sorted()), (502, true));

        trio.kill(2);
        eventually("the shards that it led have leaders", || {
            let put = trio.command(&["put", "probe", "x"]).output().expect("runs");
            put.status.success()
        });
        let begun = Instant::now();
        let told = client.put(row("name", "again")).await.unwrap().into_inner();
        assert!(told.ok && told.message.contains("lagging: node3"), "{told:?}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1_900) && took < Duration::from_secs(3), "{took:?}");
        assert_eq!(client.get(key("name")).await.unwrap().into_inner().value, "again");
    });
}

#[test]
fn proto_and_family_answer_with_the_codes_that_their_clients_know() {
    let trio = Trio::start();
    runtime().block_on(async {
        let mut client = KvClient::new(channel(&trio, 0).await);
        let get = |key: &str| proto_kv::GetRequest { key: key.into() };
        assert_eq!(client.get(get("hello")).await.unwrap_err().code(), Code::NotFound);
        client.put(proto_kv::PutRequest { key: "hello".into(), value: "world".into() }).await.unwrap();
        assert_eq!(client.get(get("hello")).await.unwrap().into_inner().value, "world");
        assert_eq!(client.get(get("")).await.unwrap_err().code(), Code::InvalidArgument);
        let large = proto_kv::PutRequest { key: "large".into(), value: "x".repeat(8 * 1024 * 1024 + 1) };
        let refused = client.put(large).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.metadata().get("ringfort-outcome").unwrap(), "rejected");
        let join = client.join(proto_kv::JoinRequest::default()).await.unwrap_err();
        assert_eq!(join.code(), Code::InvalidArgument);

        let mut family = FamilyServiceClient::new(channel(&trio, 1).await);
        let mut storage = StorageServiceClient::new(channel(&trio, 2).await);
        let message = family::StoredMessage { id: -7, text: "h\u{e9}llo".into() };
        let stored = family.store(message.clone()).await.unwrap().into_inner();
        assert_eq!(stored, family::StoreResult { success: true, error: String::new() });
        let told = storage.retrieve(family::MessageId { id: -7 }).await.unwrap().into_inner();
        assert_eq!(told, message);
        assert_eq!(storage.retrieve(family::MessageId { id: 8 }).await.unwrap_err().code(), Code::NotFound);
        let view = family.get_family(family::Empty {}).await.unwrap().into_inner();
        let ports: Vec<_> = view.members.iter().map(|member| member.port as u16).collect();
        assert_eq!(ports, [trio.base, trio.base + 1, trio.base + 2]);
        let again = family.join(view.members[1].clone()).await.unwrap().into_inner();
        assert_eq!(again, view, "who is there already may say so");
        let mut stranger = tonic::Request::new(family::NodeInfo { host: "127.0.0.1".into(), port: 1 });
        stranger.set_timeout(Duration::from_secs(2));
        let told = family.join(stranger).await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition);
        assert!(told.message().contains("--join") && told.message().contains("--invited"), "{told}");
    });
    let put = trio.command(&["put", "binary", "\u{7f}"]).output().expect("runs");
    assert!(put.status.success());
    // Bytes that are no text are somebody else's rows: said, never mangled.
    let input = b"{\"key\":\"nottext\",\"value_base64\":\"/w==\"}\n";
    let imported = crate::support::run(&mut trio.command(&["import", "--format", "jsonl", "-"]), input);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    runtime().block_on(async {
        let mut client = KvClient::new(channel(&trio, 0).await);
        let told = client.get(proto_kv::GetRequest { key: "nottext".into() }).await.unwrap_err();
        assert_eq!(told.code(), Code::FailedPrecondition);
    });
}
