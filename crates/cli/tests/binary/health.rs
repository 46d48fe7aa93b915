//! `ringfort health`: what a node says of itself before, while and after it serves; and who may reach it.

use std::process::{Child, Stdio};
use std::time::Duration;

use ringfort_proto::health::health_check_response::ServingStatus;
use ringfort_proto::health::health_client::HealthClient;
use ringfort_proto::health::{HealthCheckRequest, HealthListRequest};
use tonic::transport::Endpoint;

use crate::support::{ask_to_stop, ended, eventually, free_ports, objects, refusal, ringfort, run, stdout};
use crate::trio::Trio;

/// A node by `start`, ended when it is dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it prints, and its exit code.
fn health(address: &str, more: &[&str]) -> (String, Option<i32>) {
    let output = run(&mut ringfort(&[&["health", "--addr", address, "--timeout", "2s"], more].concat()), b"");
    (stdout(&output), output.status.code())
}

fn said(line: &str, code: i32) -> (String, Option<i32>) {
    (format!("{line}\n"), Some(code))
}

#[test]
fn a_node_is_not_serving_until_it_has_met_its_peers() {
    let base = free_ports(2);
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (format!("127.0.0.1:{base}"), format!("127.0.0.1:{}", base + 1));
    let start = |own: &str, other: &str| {
        let mut command =
            ringfort(&["start", "--shards", "2", "--addr", own, "--peers", other, "--data-dir"]);
        command.arg(directory.path().join(own.replace(':', "-")));
        Node(
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"),
        )
    };
    assert_eq!(health(&first, &[]), (String::new(), Some(3)));
    let _node = start(&first, &second);
    eventually("it answers", || health(&first, &[]).1 != Some(3));
    assert_eq!(health(&first, &[]), said("NOT_SERVING", 1));
    let other = start(&second, &first);
    eventually("it serves", || health(&first, &[]) == said("SERVING", 0));
    for service in ["ringfort.v1.KV", "ringfort.v1.Cluster"] {
        eventually(service, || health(&first, &["--service", service]) == said("SERVING", 0));
    }
    assert_eq!(health(&first, &["--service", "fortune"]), said("SERVICE_UNKNOWN", 1));

    let output = run(ringfort(&["health", "--json"]).env("RINGFORT_ADDR", &first), b"");
    let said = &objects(&output)[0];
    assert_eq!((&said["address"], &said["status"]), (&first.as_str().into(), &"SERVING".into()));
    // A node without a majority lives and says so: to restart it would help nobody.
    drop(other);
    assert_eq!(health(&first, &[]).1, Some(0));
    // What needs a quorum says that there is none.
    let kv = || health(&first, &["--service", "ringfort.v1.KV"]);
    eventually("it notices", || kv() == ("NOT_SERVING\n".to_owned(), Some(1)));
    assert_eq!(health(&first, &["--service", "ringfort.v1.Cluster"]).1, Some(0));
    let _other = start(&second, &first);
    eventually("there is a quorum again", || kv().1 == Some(0));
}

/// A balancer's way: it watches, and sends its calls elsewhere as soon as it is told.
#[test]
fn who_watches_is_told_before_a_node_stops_and_of_names_that_there_are_not() {
    let mut trio = Trio::start();
    let first = trio.address(0);
    eventually("all shards have leaders", || health(&first, &["--service", "ringfort.v1.KV"]).1 == Some(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", trio.address(0))).expect("an address");
        let channel = endpoint.connect().await.expect("connects");
        let mut health = HealthClient::new(channel.clone());
        let asked = |name: &str| HealthCheckRequest { service: name.to_owned() };
        let all = health.list(HealthListRequest {}).await.expect("listed").into_inner().statuses;
        for name in ["", "ringfort.v1.KV", "kv.KeyValue", "family.StorageService"] {
            assert_eq!(all[name].status(), ServingStatus::Serving, "{name}");
        }
        assert!(!all.keys().any(|name| name.contains("internal")), "{all:?}");
        assert_eq!(health.check(asked("fortune")).await.unwrap_err().code(), tonic::Code::NotFound);

        let mut unknown = health.watch(asked("fortune")).await.expect("a stream").into_inner();
        let first = unknown.message().await.expect("it goes on").expect("one at once");
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        let silent = tokio::time::timeout(Duration::from_secs(1), unknown.message()).await;
        assert!(silent.is_err(), "the stream stays, and says nothing again: {silent:?}");

        let mut watch = health.watch(asked("ringfort.v1.KV")).await.expect("a stream").into_inner();
        let mut next = async || watch.message().await.expect("a good end").map(|said| said.status());
        assert_eq!(next().await, Some(ServingStatus::Serving));
        ask_to_stop(trio.nodes[0].as_ref().expect("runs"));
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
        let mut node = trio.nodes[0].take().expect("runs");
        assert!(ended(&mut node).success());
    });
}

#[test]
fn health_asks_every_node_that_is_named_and_no_other() {
    let mut trio = Trio::start();
    let first = trio.address(0);
    let health = |trio: &Trio, more: &[&str]| run(&mut trio.command(&[&["health"], more].concat()), b"");
    let lines = |of: &[usize]| {
        let line = |text: String, node: &usize| {
            text + &trio.address(*node)
                + " SERVING
"
        };
        of.iter().fold(String::new(), line)
    };
    let (all, two) = (lines(&[0, 1, 2]), lines(&[0, 2]));
    let said = health(&trio, &[]);
    assert_eq!((stdout(&said), said.status.code()), (all, Some(0)));
    trio.kill(1);
    let second = trio.address(1);
    let said = health(&trio, &[]);
    assert_eq!(stdout(&said), two);
    assert_eq!(refusal(&said), (Some(3), format!("can't reach {second}: connection refused")));
    let said = health(&trio, &["--json"]);
    assert_eq!(said.status.code(), Some(3));
    let objects = objects(&said);
    assert_eq!((&objects[0]["status"], &objects[2]["status"]), (&"SERVING".into(), &"SERVING".into()));
    assert_eq!(objects[1]["error"], format!("can't reach {second}: connection refused"));
    let unknown = health(&trio, &["--service", "fortune", "--addr", &format!("{first},{}", trio.address(2))]);
    assert_eq!(unknown.status.code(), Some(1), "{}", stdout(&unknown));
    // Of its own, whatever the environment lists for others.
    let own = run(trio.command(&["health"]).env("RINGFORT_HEALTH_ADDR", &first), b"");
    assert_eq!((stdout(&own), own.status.code()), ("SERVING\n".into(), Some(0)));
}

#[test]
fn one_node_that_does_not_answer_is_said_in_a_line() {
    let (code, line) = refusal(&run(&mut ringfort(&["health", "--addr", "127.0.0.1:1"]), b""));
    assert_eq!((code, line.as_str()), (Some(3), "can't reach 127.0.0.1:1: connection refused"));
    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let output = run(&mut ringfort(&["health", "--addr", &address, "--timeout", "300ms"]), b"");
    assert_eq!(refusal(&output), (Some(3), format!("can't reach {address}: it does not answer")));
}

#[test]
fn a_node_that_others_can_reach_starts_only_if_told_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let start = |more: &[&str]| {
        let mut command = ringfort(&["start", "--addr", "0.0.0.0:1", "--data-dir"]);
        command.arg(&data).args(more);
        command
    };
    // Without shards it ends before it opens a port.
    assert!(refusal(&run(&mut start(&["--insecure", "--shards", "0"]), b"")).1.contains("--shards 0"));
    let exposed = |command: &mut std::process::Command| {
        let (code, line) = refusal(&run(command, b""));
        assert_eq!(code, Some(2), "{line}");
        line.starts_with("--addr 0.0.0.0:1 can be reached from other machines, and without TLS")
    };
    assert!(exposed(start(&[]).env("RINGFORT_START_INSECURE", "no")));
    assert!(exposed(start(&["--no-insecure"]).env("RINGFORT_START_INSECURE", "yes")));
    assert!(!data.exists(), "it is refused before anything is touched");
}
