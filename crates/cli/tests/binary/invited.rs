//! Nodes that wait until a member invites them, by the calls that clients of two other systems have for that.

use std::process::Stdio;
use std::time::Duration;

use ringfort_client::Client;
use ringfort_proto::family::NodeInfo;
use ringfort_proto::family::family_service_client::FamilyServiceClient;
use ringfort_proto::internal::peer_client::PeerClient;
use ringfort_proto::internal::{InviteRequest, JoinRequest as PeerJoinRequest};
use ringfort_proto::proto_kv::kv_client::KvClient;
use ringfort_proto::proto_kv::{GetRequest, JoinRequest};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::members::{Members, connect, runtime, wait_for};
use crate::support::{ask_to_stop, ended, eventually, refusal, ringfort, run, stderr, stdout};

async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("connects")
}

/// A call with this deadline.
fn within<T>(seconds: u64, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(seconds));
    request
}

/// Has the first node invite somebody, as a client of the store on Raft does.
async fn join(members: &Members, name: &str, address: &str, seconds: u64) -> Result<(), Status> {
    let request = JoinRequest {
        node_id: name.to_owned(),
        raft_address: "127.0.0.1:12004".to_owned(),
        grpc_address: address.to_owned(),
    };
    KvClient::new(channel(&members.address(0)).await).join(within(seconds, request)).await.map(drop)
}

/// One more node, which waits.
fn wait(members: &mut Members) -> usize {
    members.nodes.push(None);
    let node = members.nodes.len() - 1;
    wait_again(members, node);
    node
}

fn wait_again(members: &mut Members, node: usize) {
    members.spawn_node(node, &["--invited"]);
    eventually("it waits", || members.said(node).contains("to be invited into a cluster"));
}

fn port(address: &str) -> i32 {
    address.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

fn names(runtime: &Runtime, client: &Client) -> Vec<String> {
    let state = runtime.block_on(client.cluster_state()).expect("it answers");
    state.nodes.into_iter().map(|node| node.name).collect()
}

fn refused(outcome: Result<(), Status>, code: Code, says: &str) {
    let told = outcome.expect_err(says);
    assert_eq!(told.code(), code, "{told}");
    assert!(told.message().contains(says), "{told}");
    assert_eq!(told.metadata().get("ringfort-outcome").expect("told"), "rejected", "{told}");
}

#[test]
fn an_invited_node_becomes_a_member_by_either_call_and_comes_back_with_its_line_or_without() {
    let runtime = runtime();
    let mut members = Members::start(&[]);
    let client = connect(&runtime, members.addresses(&[0]));
    runtime.block_on(client.put("key", "value")).expect("it is taken");

    let node = wait(&mut members);
    let address = members.address(node);
    // Its doors say what it waits for, and how to invite it.
    let health = run(&mut members.cli(node, &["health"]), b"");
    assert_eq!((stdout(&health).as_str(), health.status.code()), ("NOT_SERVING\n", Some(1)));
    let got = run(&mut members.cli(node, &["get", "key", "--timeout", "1s"]), b"");
    assert_eq!(got.status.code(), Some(3));
    assert!(stderr(&got).contains("proto.KV/Join") && stderr(&got).contains("node2 waits at"), "{got:?}");
    runtime.block_on(async {
        let mut waiting = KvClient::new(channel(&address).await);
        let told = waiting.get(within(2, GetRequest { key: "key".into() })).await.map(drop);
        refused(told, Code::Unavailable, "waits at");
        let told = waiting.join(within(
            2,
            JoinRequest { node_id: "node2".into(), grpc_address: address.clone(), ..Default::default() },
        ));
        refused(told.await.map(drop), Code::Unavailable, "waits at");
    });

    let by_name = format!("localhost:{}", port(&address));
    runtime.block_on(join(&members, "node2", &by_name, 10)).expect("it is taken in");
    runtime.block_on(join(&members, "node2", &address, 10)).expect("it is a member");
    eventually("it serves", || members.said(node).contains("serves on"));
    wait_for(&runtime, &client, 2, &[0, 1]);

    // The other system's call has no name.
    let third = wait(&mut members);
    let info = NodeInfo { host: "127.0.0.1".into(), port: port(&members.address(third)) };
    let view = runtime.block_on(async {
        let mut family = FamilyServiceClient::new(channel(&members.address(1)).await);
        let view = family.join(within(10, info.clone())).await.expect("it is taken in").into_inner();
        assert_eq!(family.join(within(10, info.clone())).await.expect("it is a member").into_inner(), view);
        view
    });
    assert_eq!(view.members.len(), 3);
    assert!(view.members.contains(&info), "{view:?}");
    wait_for(&runtime, &client, 3, &[0, 1, 2]);
    assert_eq!(names(&runtime, &client), ["node1", "node2", "node3"]);

    for flags in [&["--invited"][..], &[]] {
        members.kill(third);
        members.start_node(third, flags);
        assert!(!members.said(third).contains("to be invited"), "{}", members.said(third));
    }
    wait_for(&runtime, &client, 3, &[0, 1, 2]);
    let checked = run(&mut members.cli(third, &["check", "--timeout", "20s"]), b"");
    assert!(stdout(&checked).contains("all replicas agree"), "{checked:?}");
    let got = run(&mut members.cli(third, &["get", "key"]), b"");
    assert_eq!(stdout(&got), "value\n");
}

#[test]
fn who_can_not_be_invited_is_refused_with_what_helps_and_who_waits_waits_on() {
    let runtime = runtime();
    let mut members = Members::start(&[]);
    let others = Members::start(&[]);
    let client = connect(&runtime, members.addresses(&[0]));
    let node = wait(&mut members);
    let (address, nobody) = (members.address(node), members.address(6));
    runtime.block_on(async {
        let refuse = async |name, address: &str, code, says| {
            refused(join(&members, name, address, 2).await, code, says);
        };
        refuse("node2", "127.0.0.1", Code::InvalidArgument, "no port").await;
        refuse("node2", "0.0.0.0:1", Code::InvalidArgument, "every address").await;
        refuse("a b", &address, Code::InvalidArgument, "no name").await;
        refuse("node1", &address, Code::FailedPrecondition, "node1 is a member").await;
        refuse("node4", &members.address(0), Code::FailedPrecondition, "node1 is at").await;
        refuse("node7", &nobody, Code::FailedPrecondition, "--id node7").await;
        refuse("node9", &address, Code::FailedPrecondition, "called node2").await;
        refuse("node9", &others.address(0), Code::FailedPrecondition, "another cluster").await;

        // One that is being born does not wait for anybody's invitation.
        let mut unborn = ringfort(&[
            "start",
            "--id",
            "a",
            "--addr",
            &nobody,
            "--peers",
            &members.address(7),
            "--data-dir",
        ]);
        unborn.arg(members.directory.path().join("unborn")).stdin(Stdio::null()).stderr(Stdio::null());
        let mut unborn = unborn.spawn().expect("starts");
        refuse("a", &nobody, Code::FailedPrecondition, "does not wait").await;
        unborn.kill().expect("it runs");
        unborn.wait().expect("it ends");

        // A node that speaks no gRPC, and never says anything.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = silent.local_addr().expect("bound").to_string();
        let told = join(&members, "node8", &at, 2).await.expect_err("nobody is there");
        assert_eq!(told.code(), Code::DeadlineExceeded, "{told}");

        // What no member would send.
        let mut peer = PeerClient::new(channel(&address).await);
        let invite = |members: Vec<String>| InviteRequest { cluster: 1, members, ..Default::default() };
        for bad in [vec![], vec!["x".to_owned()], vec![nobody.clone(); 65]] {
            refused(peer.invite(invite(bad)).await.map(drop), Code::InvalidArgument, "member");
        }
    });
    assert_eq!(names(&runtime, &client), ["node1"]);

    // What the cluster itself refuses is told to both sides.
    let name = ["--id", "node1", "--invited"];
    let (data, elsewhere) = (members.directory.path().join("elsewhere"), members.address(5));
    let mut namesake = ringfort(&["start", "--addr", &elsewhere, "--data-dir"]);
    namesake.arg(&data).args(name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut namesake = namesake.spawn().expect("starts");
    eventually("it answers", || run(&mut members.cli(5, &["health"]), b"").status.code() == Some(1));
    let told = runtime.block_on(async {
        let info = NodeInfo { host: "127.0.0.1".into(), port: port(&elsewhere) };
        FamilyServiceClient::new(channel(&members.address(0)).await).join(within(5, info)).await
    });
    refused(told.map(drop), Code::FailedPrecondition, "a member of the cluster is called node1");
    ask_to_stop(&namesake);
    assert!(ended(&mut namesake).success());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut namesake.stderr.take().expect("piped"), &mut said).expect("text");
    assert!(said.contains("not taken in: a member of the cluster is called node1"), "{said}");

    // After all that it is taken in all the same.
    runtime.block_on(join(&members, "node2", &address, 10)).expect("it is taken in");
    eventually("it serves", || members.said(node).contains("serves on"));
    assert_eq!(names(&runtime, &client), ["node1", "node2"]);

    // Under the name of a member that is down, somebody else is told so by the cluster, and waits on.
    members.kill(node);
    std::fs::remove_dir_all(members.data(node)).expect("it is lost");
    wait_again(&mut members, node);
    eventually("it is known to be down", || {
        let state = runtime.block_on(client.cluster_state());
        state
            .is_ok_and(|state| state.nodes.iter().any(|node| node.presence == ringfort_types::Presence::Down))
    });
    runtime.block_on(async {
        refused(
            join(&members, "node2", &address, 5).await,
            Code::FailedPrecondition,
            "another data directory",
        );
    });
    ask_to_stop(members.nodes[node].as_ref().expect("it runs"));
    members.has_ended(node, 0);
}

#[test]
fn a_node_that_waits_ends_when_it_is_asked_to_and_goes_on_waiting_afterwards() {
    let members = Members::start(&[]);
    for _ in 0..2 {
        let mut command = members.command(5, &["--invited"]);
        let mut waiting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let health = || run(&mut members.cli(5, &["health"]), b"");
        eventually("it answers", || health().status.code() == Some(1));
        ask_to_stop(&waiting);
        assert!(ended(&mut waiting).success());
        let mut told = String::new();
        std::io::Read::read_to_string(&mut waiting.stderr.take().expect("piped"), &mut told).expect("text");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("node6 waits at") && told.contains("grpc_address"), "{told}");
    }
    let text = run(&mut members.command(5, &["--invited", "--replace"]), b"");
    assert_eq!(text.status.code(), Some(2));
    // The same directory can be started as any other.
    let (code, line) = refusal(&run(&mut members.command(5, &["--join", "x"]), b""));
    assert!(code == Some(2) && line.contains("--join"), "{line}");
}

/// Its directory's number, as `docs/formats/identity.md` has it.
fn incarnation(members: &Members, node: usize) -> u64 {
    let identity = std::fs::read(members.data(node).join("identity")).expect("it is there");
    u64::from_le_bytes(identity[12..20].try_into().expect("eight bytes"))
}

#[test]
fn a_node_that_is_killed_while_it_is_invited_is_one_member_in_the_end() {
    let runtime = runtime();
    let mut members = Members::start(&[]);
    let client = connect(&runtime, members.addresses(&[0]));

    // It has ended when it was a member, and before it knew.
    let node = wait(&mut members);
    let address = members.address(node);
    let asked = PeerJoinRequest {
        name: "node2".into(),
        address: address.clone(),
        incarnation: incarnation(&members, node),
        weight: 1,
        level_max: u32::from(ringfort_types::Level::MAX.0),
        ..Default::default()
    };
    runtime.block_on(async {
        PeerClient::new(channel(&members.address(0)).await).join(asked).await.expect("it is taken in");
    });
    members.kill(node);
    assert_eq!(names(&runtime, &client), ["node1", "node2"]);
    // The same line again: the others reach it, and invite it.
    members.spawn_node(node, &["--invited"]);
    eventually("it serves", || members.said(node).contains("serves on"));
    assert_eq!(names(&runtime, &client), ["node1", "node2"]);
    wait_for(&runtime, &client, 2, &[0, 1]);

    // At any moment: whoever invites it tries again.
    let mut expected = names(&runtime, &client);
    for pause_ms in [0, 5, 15, 40, 100] {
        let node = wait(&mut members);
        let name = format!("node{}", node + 1);
        let (member, address) = (members.address(0), members.address(node));
        let request = JoinRequest { node_id: name.clone(), grpc_address: address, ..Default::default() };
        let joining = runtime.spawn(async move {
            KvClient::new(channel(&member).await).join(within(20, request)).await.map(drop)
        });
        std::thread::sleep(Duration::from_millis(pause_ms));
        members.kill(node);
        members.spawn_node(node, &["--invited"]);
        runtime.block_on(joining).expect("no panic").expect("it is taken in");
        eventually("it serves", || members.said(node).contains("serves on"));
        expected.push(name);
        assert_eq!(names(&runtime, &client), expected, "killed after {pause_ms} ms");
    }
    let all: Vec<usize> = (0..members.nodes.len()).collect();
    wait_for(&runtime, &client, 3, &all);
}
