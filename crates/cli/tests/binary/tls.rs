//! TLS, with certificates that `ringfort certs` has made: who gets in, and as whom.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfort_client::{Client, ClientFiles, ClientTls, Options};
use ringfort_proto::internal::peer_client::PeerClient;
use ringfort_proto::internal::{Frame, InviteRequest, JoinRequest, TimeRequest};
use ringfort_tls::{Connector, Way};
use ringfort_types::{Epoch, Incarnation, LogMark, NodeId, PeerFrame};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::{ended, eventually, free_ports, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

/// A CA and what it has issued, in a directory.
struct Certs(PathBuf);

impl Certs {
    fn init(directory: &Path) -> Certs {
        let certs = Certs(directory.to_owned());
        certs.make(&["init"]);
        certs
    }

    fn make(&self, arguments: &[&str]) {
        let made = run(ringfort(&["certs"]).args(arguments).arg("--dir").arg(&self.0), b"");
        assert!(made.status.success(), "{}", stderr(&made));
    }

    fn node(&self, name: &str) -> Vec<String> {
        self.make(&["node", name, "--host", "127.0.0.1"]);
        self.flags(name)
    }

    /// What `start` is told.
    fn flags(&self, name: &str) -> Vec<String> {
        let file = |name: &str| self.file(name).display().to_string();
        let (cert, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        ["--tls-ca", &file("ca.crt"), "--tls-cert", &cert, "--tls-key", &key].map(str::to_owned).into()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A client's files, as this user or as nobody.
    fn client(&self, name: Option<&str>) -> ClientTls {
        let own = name.map(|name| (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key"))));
        ClientTls::load(ClientFiles { ca: self.file("ca.crt"), own }).expect("good files")
    }

    /// A certificate of this CA that has ended.
    fn ended(&self, name: &str) {
        let read = |name: &str| std::fs::read_to_string(self.file(name)).expect("there");
        let ca_key = rcgen::KeyPair::from_pem(&read("ca.key")).expect("a key");
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), ca_key).expect("a CA");
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 12, 31);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &issuer).expect("issued");
        std::fs::write(self.file(&format!("{name}.crt")), signed.pem()).expect("written");
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

/// Three nodes that speak TLS.
fn guarded() -> (Trio, Certs) {
    let directory = tempfile::tempdir().expect("a directory");
    let certs = Certs::init(&directory.path().join("certs"));
    let mut trio = Trio::idle(directory);
    trio.more = [1, 2, 3].map(|node| certs.node(&format!("node{node}")));
    trio.start_all();
    (trio, certs)
}

fn put(trio: &Trio, files: &[(&str, PathBuf)]) -> std::process::Output {
    let mut command = trio.command(&["put", "key", "value", "--timeout", "5s"]);
    for (name, file) in files {
        command.env(name, file);
    }
    run(&mut command, b"")
}

#[test]
fn a_cluster_with_tls_takes_who_knows_its_ca_and_tells_others_what_is_wrong() {
    let (trio, certs) = guarded();
    certs.make(&["client", "alice"]);
    certs.ended("late");
    let others = Certs::init(&trio.directory.path().join("others"));
    others.make(&["client", "alice"]);
    let ca = || ("RINGFORT_CA", certs.file("ca.crt"));
    let own = |certs: &Certs, name: &str| {
        let file = |ending: &str| certs.file(&format!("{name}.{ending}"));
        [("RINGFORT_CERT", file("crt")), ("RINGFORT_KEY", file("key"))]
    };

    let [cert, key] = own(&certs, "alice");
    let stored = put(&trio, &[ca(), cert, key]);
    assert_eq!((stored.status.code(), stderr(&stored)), (Some(0), String::new()));

    let says = |files: &[(&str, PathBuf)], part: &str| {
        let (code, line) = refusal(&put(&trio, files));
        assert!(code != Some(0) && line.contains(part), "{code:?} {line}");
    };
    says(&[ca()], "show a certificate of this cluster's CA (--cert, --key), or name a user");
    // In full, or as what may be the case, if the connection is gone before that was read.
    says(&[], "TLS only");
    says(&[("RINGFORT_CA", others.file("ca.crt"))], "its certificate was issued by nobody in the CA's file");
    let [cert, key] = own(&others, "alice");
    says(&[ca(), cert, key], "another cluster's CA");
    let [cert, key] = own(&certs, "late");
    says(&[ca(), cert, key], "the certificate shown to it has ended");

    // What can't be right is said before anybody is asked.
    let (code, line) = refusal(&put(&trio, &[("RINGFORT_CA", certs.file("ca.key"))]));
    assert!(code == Some(2) && line.contains("ca.key has no certificate"), "{code:?} {line}");
}

#[test]
fn a_node_starts_with_its_own_certificate_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let certs = Certs::init(&directory.path().join("certs"));
    certs.make(&["client", "node1"]);
    let start = |flags: &[String]| {
        let address = format!("127.0.0.1:{}", free_ports(1));
        let mut command = ringfort(&["start", "--id", "node1", "--addr", &address, "--data-dir"]);
        refusal(&run(command.arg(directory.path().join("data")).args(flags), b""))
    };
    let says = |flags: &[String], part: &str| {
        let (code, line) = start(flags);
        assert!(code == Some(2) && line.contains(part), "{code:?} {line}");
        assert!(!directory.path().join("data").exists(), "nothing was begun");
    };
    says(&certs.flags("node1"), "is no node's: it needs the alternative name ringfort://node/node1");
    says(&certs.node("node2"), "that of the node node2, and this one is node1");
    let others = Certs::init(&directory.path().join("others"));
    let mut mixed = others.node("node1");
    mixed[1] = certs.file("ca.crt").display().to_string();
    says(&mixed, "was issued by nobody in");
    says(&mixed[..4], "--tls-key");
}

async fn channel(address: &str, way: Way) -> Channel {
    let endpoint = Endpoint::from_shared(format!("{}://{address}", way.scheme())).expect("an address");
    endpoint.connect_with_connector(Connector::new(way)).await.expect("TLS is agreed on")
}

/// What comes of speaking as a node over this connection, by each call that there is.
async fn spoken(channel: Channel, from: NodeId) -> Vec<(Code, String)> {
    let mut peer = PeerClient::new(channel);
    let frame = PeerFrame {
        from,
        to: NodeId(1),
        incarnation: Incarnation(1),
        cluster: 1,
        epoch: Epoch(1),
        log: LogMark::default(),
        messages: Vec::new(),
    };
    let link = peer.link(tokio_stream::iter([Frame { payload: frame.encode() }])).await;
    let join =
        JoinRequest { name: "mallory".to_owned(), address: "127.0.0.1:1".to_owned(), ..Default::default() };
    let results = [
        link.map(|_| ()),
        peer.join(join).await.map(|_| ()),
        peer.invite(InviteRequest::default()).await.map(|_| ()),
        peer.time(TimeRequest::default()).await.map(|_| ()),
    ];
    let status = |result: Result<(), tonic::Status>| {
        result.map_or_else(
            |status| (status.code(), status.message().to_owned()),
            |()| (Code::Ok, String::new()),
        )
    };
    results.into_iter().map(status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_certificate_of_a_user_is_no_nodes_and_a_nodes_is_no_other_nodes() {
    let (trio, certs) = tokio::task::spawn_blocking(guarded).await.expect("they serve");
    certs.make(&["client", "alice"]);
    certs.node("node9");
    for user in [Some("alice"), None] {
        let said = spoken(channel(&trio.address(0), Way::Client(certs.client(user))).await, NodeId(2)).await;
        assert!(
            said.iter().all(|(code, why)| *code == Code::PermissionDenied && why.contains("only nodes")),
            "{said:?}"
        );
    }
    eventually("it is in the log", || {
        trio.said(0).contains("who shows the certificate of alice spoke as a node")
    });

    // Another node's may speak, but not as one that it is not; nor does it make somebody else a member.
    let said =
        spoken(channel(&trio.address(0), Way::Client(certs.client(Some("node9")))).await, NodeId(2)).await;
    let codes: Vec<Code> = said.iter().map(|(code, _)| *code).collect();
    assert_eq!((codes[0], codes[1], codes[3]), (Code::Ok, Code::FailedPrecondition, Code::Ok), "{said:?}");
    assert!(
        said[1].1.contains("the certificate is that of the node node9, and mallory asks to join"),
        "{said:?}"
    );
    eventually("it is refused as node2", || {
        trio.said(0)
            .contains("somebody with the certificate of the node node9 spoke as node2, and was refused")
    });
}

#[test]
fn a_node_of_another_ca_does_not_get_in() {
    let (trio, certs) = guarded();
    let others = Certs::init(&trio.directory.path().join("others"));
    let address = format!("127.0.0.1:{}", free_ports(1));
    let log = trio.directory.path().join("log");
    let mut command =
        ringfort(&["start", "--id", "node4", "--addr", &address, "--join", &trio.address(0), "--data-dir"]);
    command.arg(trio.directory.path().join("node4")).args(others.node("node4"));
    command.stderr(std::fs::File::create(&log).expect("a log")).stdout(std::process::Stdio::null());
    let mut node = command.spawn().expect("starts");
    eventually("it says why it can't join", || {
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("was issued by nobody in the CA's file"))
    });
    crate::support::ask_to_stop(&node);
    ended(&mut node);
    let mut status = trio.command(&["status"]);
    certs.make(&["client", "alice"]);
    for (name, file) in [("CA", "ca.crt"), ("CERT", "alice.crt"), ("KEY", "alice.key")] {
        status.env(format!("RINGFORT_{name}"), certs.file(file));
    }
    let shown = stdout(&run(&mut status, b""));
    assert!(shown.contains("node3") && !shown.contains("node4"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_clients_write_and_nobody_notices() {
    const WRITERS: usize = 32;
    let (trio, certs) = tokio::task::spawn_blocking(guarded).await.expect("they serve");
    let mut options = Options::new(trio.addresses());
    options.timeout = Duration::from_secs(10);
    certs.make(&["client", "writer"]);
    options.tls = Some(certs.client(Some("writer")));
    let client = Client::connect(options).await.expect("it is taken");
    let (done, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, done, is_over) = (client.clone(), done.clone(), is_over.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    client.put(format!("key{writer}"), "value").await.expect("no write fails");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let goes_on = |past: u64| eventually("writes go on", || done.load(Ordering::Relaxed) > past);
    goes_on(100);
    let next = Certs(trio.directory.path().join("next"));
    std::fs::create_dir(&next.0).expect("made");
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(certs.file(file), next.file(file)).expect("copied");
    }
    for node in ["node1", "node2", "node3"] {
        next.node(node);
        for ending in ["crt", "key"] {
            let file = format!("{node}.{ending}");
            std::fs::rename(next.file(&file), certs.file(&file)).expect("renamed");
        }
    }
    eventually("all have read them", || (0..3).all(|node| trio.said(node).contains("are read again")));
    goes_on(done.load(Ordering::Relaxed) + 1000);
    // Connections between nodes are made anew, too.
    let mut trio = trio;
    let trio = tokio::task::spawn_blocking(move || {
        trio.terminate(2);
        trio.start_node(2);
        trio
    })
    .await
    .expect("it starts");
    eventually("it is back", || trio.said(2).contains("serves on"));
    goes_on(done.load(Ordering::Relaxed) + 1000);
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("no write has failed");
    }
}

#[test]
fn a_certificate_names_a_user_whose_rights_count_and_none_is_nobodys() {
    let (trio, certs) = guarded();
    for user in ["root", "alice", "mallory"] {
        certs.make(&["client", user]);
    }
    let by = |user: &str, arguments: &[&str]| {
        let mut command = trio.command(arguments);
        command.env("RINGFORT_CA", certs.file("ca.crt"));
        command.env("RINGFORT_CERT", certs.file(&format!("{user}.crt")));
        command.env("RINGFORT_KEY", certs.file(&format!("{user}.key")));
        run(&mut command, b"")
    };
    // Users need level 2, which a new cluster rises to by itself.
    eventually("there can be users", || {
        by("root", &["user", "add", "root", "--no-password"]).status.success()
    });
    for arguments in [
        &["user", "add", "alice", "--no-password"][..],
        &["user", "grant", "root", "cluster"],
        &["user", "grant", "alice", "write", "a/"],
        &["user", "enforce", "on"],
    ] {
        let done = by("root", arguments);
        assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
    }
    eventually("all nodes have heard of it", || !by("mallory", &["status"]).status.success());
    assert!(by("alice", &["put", "a/key", "value"]).status.success());
    let says = |user: &str, arguments: &[&str], part: &str| {
        let (_, line) = refusal(&by(user, arguments));
        assert!(line.contains(part), "{line}");
    };
    says(
        "alice",
        &["put", "b/key", "value"],
        "it needs the right write over it, or over keys that begin as it does (ringfort user grant alice write b/key)",
    );
    says("alice", &["get", "a/key"], "it needs the right read");
    says("alice", &["cluster", "set", "replicas=1"], "cluster");
    // Of this CA, and no user; and a user that is removed is none any more.
    says("mallory", &["put", "a/key", "value"], "nobody has said who asks");
    assert!(by("root", &["user", "remove", "alice"]).status.success());
    eventually("she is out", || !by("alice", &["put", "a/key", "value"]).status.success());
    // A node's certificate is no user's, though it names one.
    certs.node("root2");
    says("root2", &["user", "list"], "nobody has said who asks");
}
