//! Users and their rights, through the shipped binary: who is known how, what is refused at which door, and that no secret shows.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringfort_client::{Client, Credentials, Options};
use ringfort_proto::family::family_service_client::FamilyServiceClient;
use ringfort_proto::family::{MessageId, NodeInfo, StoredMessage};
use ringfort_proto::kv::key_value_client::KeyValueClient;
use ringfort_proto::kvstore::kv_store_client::KvStoreClient;
use ringfort_proto::proto_kv::kv_client::KvClient as ProtoKvClient;
use ringfort_proto::status::to_failure;
use ringfort_proto::{kv, kvstore, proto_kv};
use ringfort_types::{Code as FailureCode, Outcome};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::support::{eventually, free_ports, objects, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

/// Three nodes with text ports, and files with secrets.
struct Fort {
    trio: Trio,
    text: [u16; 3],
    files: tempfile::TempDir,
}

impl Fort {
    fn start() -> Fort {
        let base = free_ports(3);
        let text = [base, base + 1, base + 2];
        let trio = Trio::start_with(|node| {
            ["--text-addr", &format!("127.0.0.1:{}", text[node])].map(str::to_owned).to_vec()
        });
        let fort = Fort { trio, text, files: tempfile::tempdir().expect("a directory") };
        // Users need level 2, which a new cluster rises to by itself.
        eventually("level 2 is in force", || {
            objects(&fort.as_nobody(&["cluster", "set", "--json"]))[0]["level"].as_u64() >= Some(2)
        });
        fort
    }

    /// One whose rights are enforced: `root` has the right cluster, and the password `open sesame`.
    fn enforced() -> Fort {
        let fort = Fort::start();
        fort.nobody_ok(&["user", "add", "root", "--new-password-file", &fort.file("root", "open sesame")]);
        fort.nobody_ok(&["user", "grant", "root", "cluster"]);
        assert_eq!(
            fort.nobody_ok(&["user", "enforce", "on"]),
            "rights are enforced: what somebody may not do is refused\n"
        );
        fort
    }

    /// A file with this secret.
    fn file(&self, name: &str, secret: &str) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, format!("{secret}\n")).expect("written");
        path.to_str().expect("plain").to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn as_nobody(&self, arguments: &[&str]) -> Output {
        run(&mut self.trio.command(arguments), b"")
    }

    /// A command of a user whose password is in the file of this name.
    fn as_user(&self, user: &str, arguments: &[&str]) -> Output {
        run(&mut self.command_of(user, arguments), b"")
    }

    fn command_of(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = self.trio.command(arguments);
        command.env("RINGFORT_USER", user).env("RINGFORT_PASSWORD_FILE", self.path(user));
        command
    }

    fn nobody_ok(&self, arguments: &[&str]) -> String {
        ok(&self.as_nobody(arguments), arguments)
    }

    fn root_ok(&self, arguments: &[&str]) -> String {
        self.user_ok("root", arguments)
    }

    /// What may have been allowed just now is on every node soon.
    fn user_ok(&self, user: &str, arguments: &[&str]) -> String {
        let mut last = None;
        eventually(&format!("{user} may {arguments:?}"), || {
            let output = last.insert(self.as_user(user, arguments));
            output.status.success() || !stderr(output).contains(" may not ")
        });
        ok(&last.expect("it was tried"), arguments)
    }

    /// The same of what is refused; by nobody, if there is no name.
    fn refuses(&self, user: &str, arguments: &[&str], says: &str) {
        let mut last = None;
        eventually(&format!("{user} may not {arguments:?}: {says}"), || {
            let of_user = || self.as_user(user, arguments);
            let output = last.insert(if user.is_empty() { self.as_nobody(arguments) } else { of_user() });
            stderr(output).contains(says)
        });
        assert_refused(&last.expect("it was tried"), says);
    }

    /// A user with a password like this and these rights, each a right and a prefix or not.
    fn add(&self, user: &str, rights: &[&[&str]]) {
        let file = self.file(user, &password_of(user));
        self.root_ok(&["user", "add", user, "--new-password-file", &file]);
        for right in rights {
            self.root_ok(&[&["user", "grant", user], *right].concat());
        }
    }

    async fn channel(&self, node: usize) -> Channel {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.trio.address(node))).expect("an address");
        endpoint.connect().await.expect("connects")
    }

    fn text(&self, node: usize) -> Text {
        let stream = TcpStream::connect(("127.0.0.1", self.text[node])).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("is a socket");
        let lines = BufReader::new(stream.try_clone().expect("is a socket"));
        Text { stream, lines }
    }
}

fn ok(output: &Output, arguments: &[&str]) -> String {
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(output));
    stdout(output)
}

fn password_of(user: &str) -> String {
    format!("pass word of {user}")
}

#[track_caller]
fn assert_refused(output: &Output, says: &str) {
    let (code, line) = refusal(output);
    assert!(code == Some(2) && line.contains(says), "{code:?} {line}");
}

/// A connection to a text port.
struct Text {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Text {
    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.line()
    }

    fn send(&mut self, lines: &str) {
        self.stream.write_all(format!("{lines}\n").as_bytes()).expect("is read");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("answers in time");
        line.trim_end().to_owned()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A call that says who makes it.
fn by<M>(authorization: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.parse().expect("plain"));
    request
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

#[track_caller]
fn assert_denied<T: std::fmt::Debug>(told: Result<T, Status>, code: Code) {
    let status = told.expect_err("refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(to_failure(&status).outcome, Outcome::Rejected, "{status:?}");
}

#[test]
fn rights_hold_at_the_command_line_and_at_the_text_port() {
    let fort = Fort::start();
    // As long as nothing is enforced, nobody needs a name.
    fort.nobody_ok(&["put", "app/a", "1"]);
    fort.nobody_ok(&["user", "add", "root", "--new-password-file", &fort.file("root", "open sesame")]);
    // But a wrong password is one.
    assert_refused(
        &run(fort.trio.command(&["get", "app/a", "--user", "root"]).env("RINGFORT_PASSWORD", "wrong"), b""),
        "there is no such user, or the password or token is wrong",
    );
    let nobody = fort.as_nobody(&["user", "enforce", "on"]);
    assert_refused(&nobody, "cluster");
    assert_eq!(fort.nobody_ok(&["user", "grant", "root", "cluster"]), "user root may cluster\n");
    fort.nobody_ok(&["user", "enforce", "on"]);
    // Other nodes hear of it within a second.
    fort.refuses("", &["get", "app/a"], "nobody has said who asks");
    fort.refuses("", &["user", "add", "eve", "--no-password"], "nobody has said who asks");

    fort.add("reader", &[&["read", "app/"]]);
    fort.add("writer", &[&["write", "app/"]]);
    fort.add("admin", &[&["admin", "app/"]]);
    fort.add("idle", &[]);
    fort.root_ok(&["user", "grant", "root", "admin"]);
    fort.root_ok(&["put", "other/b", "2"]);

    // Reads: one key, a list (which shows what may be read of all), a shell.
    assert_eq!(fort.user_ok("reader", &["get", "app/a"]), "1\n");
    fort.refuses("reader", &["get", "other/b"], "may not read key \"other/b\"");
    fort.refuses("writer", &["get", "app/a"], "may not read key \"app/a\"");
    fort.refuses("idle", &["list"], "may not read all keys");
    assert_eq!(fort.user_ok("reader", &["list", "--prefix", "app/"]), "app/a\t1\n");
    assert_eq!(fort.user_ok("reader", &["list"]), "app/a\t1\n");
    let shell = run(&mut fort.command_of("reader", &["shell"]), b"get app/a\n");
    assert_eq!(stdout(&shell), "app/a = 1\n", "{}", stderr(&shell));

    // Writes: put, delete, incr, several at once.
    fort.user_ok("writer", &["put", "app/w", "5"]);
    fort.user_ok("writer", &["incr", "app/n"]);
    fort.user_ok("writer", &["delete", "app/w"]);
    for arguments in [&["put", "app/x", "1"][..], &["delete", "app/a"], &["incr", "app/n"]] {
        fort.refuses("reader", arguments, "may not write key");
    }
    fort.refuses("writer", &["put", "other/b", "3"], "may not write key \"other/b\"");
    fort.refuses("writer", &["put", "app/a", "2", "--if-value", "1"], "may not read key");
    let both = run(&mut fort.command_of("writer", &["write"]), b"put {app/}x 1\nput {other/}x 1\n");
    assert_ne!(both.status.code(), Some(0));

    // Who has admin grants what is below; nobody else does, and only cluster changes the cluster.
    fort.user_ok("admin", &["user", "grant", "idle", "read", "app/a"]);
    assert_eq!(fort.user_ok("idle", &["get", "app/a"]), "1\n");
    fort.refuses("admin", &["user", "grant", "idle", "read", "other/"], "may not grant");
    fort.refuses("reader", &["user", "grant", "idle", "read", "app/"], "may not grant");
    fort.refuses("admin", &["user", "add", "eve", "--no-password"], "the right cluster");
    fort.refuses("admin", &["cluster", "set", "replicas=3"], "the right cluster");
    fort.refuses("admin", &["log-level", "node1", "info"], "the right cluster");
    fort.root_ok(&["log-level", "node1"]);
    // A user may change their own password, and is known by the new one at once.
    let new = fort.file("new", "new one");
    fort.user_ok("idle", &["user", "passwd", "idle", "--new-password-file", &new]);
    fort.refuses("idle", &["get", "app/a"], "no such user, or the password");
    std::fs::copy(&new, fort.path("idle")).expect("copied");
    assert_eq!(fort.user_ok("idle", &["get", "app/a"]), "1\n");
    fort.refuses("idle", &["user", "passwd", "admin", "--no-password"], "the right cluster");

    // Lines.
    let mut text = fort.text(1);
    let first = "ERROR rejected: it is not known who asks, or they have been removed, and this node answers users only: say AUTH <name> <password> first";
    assert_eq!(text.ask("GET app/a"), first);
    assert_eq!(text.ask("STATS"), first);
    assert!(text.ask("HELP").contains("AUTH <name> <password>"));
    let wrong = text.ask("AUTH reader open sesame");
    assert_eq!(wrong, "ERROR rejected: there is no such user, or the password or token is wrong");
    // What comes after an AUTH is asked by the user whom it names.
    text.send("GET app/a\nAUTH reader pass word of reader\nGET app/a\nSET app/a 2\nGET other/b");
    assert_eq!(text.line(), first);
    assert_eq!((text.line(), text.line()), ("OK".to_owned(), "1".to_owned()));
    assert!(text.line().starts_with("ERROR rejected: user \"reader\" may not write key \"app/a\""));
    assert!(text.line().starts_with("ERROR rejected: user \"reader\" may not read key \"other/b\""));
    assert_eq!(text.ask("auth writer pass word of writer"), "OK");
    assert_eq!(text.ask("SET app/a 2"), "OK");
    // An AUTH and what comes after it are answered though the client has closed its side.
    let mut leaving = fort.text(2);
    leaving.send("AUTH reader pass word of reader\nGET app/a");
    leaving.stream.shutdown(std::net::Shutdown::Write).expect("is a socket");
    assert_eq!((leaving.line(), leaving.line(), leaving.line()), ("OK".into(), "2".into(), String::new()));

    // No secret is in a log, and who was wrong is.
    for node in 0..3 {
        let said = fort.trio.said(node);
        for secret in ["sesame", "pass word", "new one", "$argon2id"] {
            assert!(!said.contains(secret), "{secret:?} in {said}");
        }
    }
    let all: String = (0..3).map(|node| fort.trio.said(node)).collect();
    assert!(all.contains("wrong password for user \"root\" from 127.0.0.1"), "{all}");
}

#[test]
fn rights_hold_at_every_door_for_programs() {
    let fort = Fort::enforced();
    fort.add("seven", &[&["admin", "7"]]);
    let token = fort.root_ok(&["user", "add", "robot", "--token"]);
    fort.root_ok(&["user", "grant", "robot", "read", "7"]);
    runtime().block_on(async {
        let (seven, nobody) = (&basic("seven", &password_of("seven")), "");
        let robot = &format!("Bearer {}", token.trim_end());
        let ask = |by_whom: &str, key: &str| {
            let message = kv::GetRequest { key: key.into() };
            if by_whom == nobody { Request::new(message) } else { by(by_whom, message) }
        };
        let channel = fort.channel(0).await;
        let mut store = KeyValueClient::new(channel.clone());
        let set = |value: &'static str| kv::SetRequest { key: "7".into(), value: value.into(), version: 0 };
        store.set(by(seven, set("v"))).await.expect("allowed");
        assert!(store.get(ask(robot, "7")).await.expect("allowed").into_inner().found);
        assert_denied(store.get(ask(nobody, "7")).await, Code::Unauthenticated);
        assert_denied(store.get(ask(robot, "8")).await, Code::PermissionDenied);
        assert_denied(store.set(by(robot, set("w"))).await, Code::PermissionDenied);
        for wrong in [
            &basic("seven", "wrong"),
            &basic("eve", "wrong"),
            &robot.replace("robot.", "seven."),
            "Basic ?",
            "Digest x",
        ] {
            assert_denied(store.get(ask(wrong, "7")).await, Code::Unauthenticated);
        }

        let mut family = FamilyServiceClient::new(channel.clone());
        family.store(by(seven, StoredMessage { id: 7, text: "v".into() })).await.expect("allowed");
        family.retrieve(by(robot, MessageId { id: 7 })).await.expect("allowed");
        assert_denied(
            family.store(by(robot, StoredMessage { id: 7, text: "w".into() })).await,
            Code::PermissionDenied,
        );
        assert_denied(family.retrieve(MessageId { id: 7 }).await, Code::Unauthenticated);
        let newcomer = NodeInfo { host: "127.0.0.1".into(), port: 1 };
        assert_denied(family.join(by(seven, newcomer.clone())).await, Code::PermissionDenied);
        assert_denied(family.join(newcomer).await, Code::Unauthenticated);

        let mut proto = ProtoKvClient::new(channel.clone());
        let put = || proto_kv::PutRequest { key: "7".into(), value: "v".into() };
        proto.put(by(seven, put())).await.expect("allowed");
        proto.get(by(robot, proto_kv::GetRequest { key: "7".into() })).await.expect("allowed");
        assert_denied(proto.put(by(robot, put())).await, Code::PermissionDenied);
        assert_denied(proto.put(put()).await, Code::Unauthenticated);
        let join = || proto_kv::JoinRequest {
            node_id: "node9".into(),
            grpc_address: "127.0.0.1:1".into(),
            ..proto_kv::JoinRequest::default()
        };
        assert_denied(proto.join(by(seven, join())).await, Code::PermissionDenied);
        assert_denied(proto.join(join()).await, Code::Unauthenticated);

        let mut kvstore = KvStoreClient::new(channel.clone());
        let put = || kvstore::KeyValue { key: "7".into(), value: "v".into() };
        kvstore.put(by(seven, put())).await.expect("allowed");
        kvstore.get(by(robot, kvstore::Key { key: "7".into() })).await.expect("allowed");
        assert_denied(kvstore.put(by(robot, put())).await, Code::PermissionDenied);
        assert_denied(kvstore.get(kvstore::Key { key: "7".into() }).await, Code::Unauthenticated);
        let mut rows = kvstore.list(by(robot, ())).await.expect("allowed").into_inner();
        assert_eq!(rows.message().await.expect("allowed").map(|row| row.key).as_deref(), Some("7"));
        assert_denied(kvstore.list(()).await, Code::Unauthenticated);

        // Our own client: unary, sessions and lists, by token.
        let mut options = Options::new(fort.trio.addresses());
        options.credentials = Some(Credentials::Token(token.trim_end().to_owned()));
        for transport in [ringfort_client::Transport::Unary, ringfort_client::Transport::Session] {
            options.transport = transport;
            let client = Client::connect(options.clone()).await.expect("good addresses");
            assert!(client.get("7").await.expect("allowed").is_some());
            let denied = client.put("7", "w").await.expect_err("refused");
            assert_eq!((denied.code, denied.outcome), (FailureCode::PermissionDenied, Outcome::Rejected));
            assert!(client.list(ringfort_client::List::default()).await.is_ok());
        }
        options.credentials = None;
        let client = Client::connect(options).await.expect("good addresses");
        assert_eq!(client.get("7").await.expect_err("refused").code, FailureCode::Unauthenticated);
    });
    // Who only looks whether a node serves has no name, and what a health check carries is left alone.
    let mut health = fort.trio.command(&["health"]);
    health.env("RINGFORT_USER", "eve").env("RINGFORT_PASSWORD", "wrong");
    assert_eq!(run(&mut health, b"").status.code(), Some(0));
}

#[test]
fn what_is_revoked_is_soon_refused_on_every_node() {
    let fort = Fort::enforced();
    fort.add("ada", &[&["admin"]]);
    runtime().block_on(async {
        let ada = Credentials::Password { name: "ada".into(), password: password_of("ada") };
        let mut clients = Vec::new();
        for node in 0..3 {
            let mut options = Options::new(vec![fort.trio.address(node)]);
            options.credentials = Some(ada.clone());
            let client = Client::connect(options).await.expect("a good address");
            client.put(format!("k{node}"), "v").await.expect("allowed");
            clients.push(client);
        }
        let mut texts: Vec<Text> = (0..3).map(|node| fort.text(node)).collect();
        for text in &mut texts {
            assert_eq!(text.ask("AUTH ada pass word of ada"), "OK");
            assert_eq!(text.ask("GET k0"), "v");
        }
        fort.root_ok(&["user", "revoke", "ada", "admin"]);
        let revoked = Instant::now();
        for (client, text) in clients.iter().zip(&mut texts) {
            while client.get("k0").await.is_ok() || text.ask("GET k0") == "v" {
                // Within a second, where the machine is not busy.
                assert!(revoked.elapsed() < Duration::from_secs(10), "it is still allowed");
            }
            let denied = client.get("k0").await.expect_err("refused");
            assert_eq!(denied.code, FailureCode::PermissionDenied, "{denied:?}");
        }
        // A user who is removed is nobody, whatever connections they have.
        fort.root_ok(&["user", "remove", "ada"]);
        for (client, text) in clients.iter().zip(&mut texts) {
            eventually("the text port knows", || text.ask("GET k0").contains("say AUTH"));
            let begun = Instant::now();
            while client.get("k0").await.expect_err("refused").code != FailureCode::Unauthenticated {
                assert!(begun.elapsed() < Duration::from_secs(10), "it is still known");
            }
        }
        // Nor is a new one of that name the old one.
        fort.add("ada", &[&["admin"]]);
        assert!(texts[0].ask("GET k0").contains("say AUTH"));
        assert_eq!(fort.user_ok("ada", &["get", "k0"]), "v\n");
    });
    // Somebody has to be left who can change that.
    assert_refused(&fort.root_fails(&["user", "remove", "root"]), "cluster");
    assert_refused(&fort.root_fails(&["user", "revoke", "root", "cluster"]), "cluster");
    fort.root_ok(&["user", "enforce", "off"]);
    // Other nodes hear of it within a second.
    eventually("nobody is refused", || fort.as_nobody(&["get", "k0"]).status.success());
    eventually("root can go", || fort.as_nobody(&["user", "remove", "root"]).status.success());
}

impl Fort {
    fn root_fails(&self, arguments: &[&str]) -> Output {
        self.as_user("root", arguments)
    }
}

#[test]
fn guessing_is_slowed_and_locks_nobody_out_who_is_remembered() {
    let fort = Fort::enforced();
    let mut text = fort.text(0);
    let wrong = "ERROR rejected: there is no such user, or the password or token is wrong";
    // The same one again is no guess.
    for _ in 0..10 {
        assert_eq!(text.ask("AUTH root guess"), wrong);
    }
    for guess in 1..5 {
        assert_eq!(text.ask(&format!("AUTH root guess {guess}")), wrong);
    }
    let begun = Instant::now();
    let slowed = text.ask("AUTH root guess");
    assert_eq!(slowed, "ERROR rejected: too many wrong passwords; try again in 1 s");
    // The right one, too, from here, at every door of the node; and the name does not matter.
    assert_eq!(text.ask("AUTH root open sesame"), slowed);
    assert_eq!(fort.text(0).ask("AUTH eve guess"), slowed);
    assert!(begun.elapsed() < Duration::from_secs(1), "they are refused at once");
    // A token can't be guessed, so it is not slowed.
    let fine = fort.text(1).ask("AUTH root open sesame");
    assert_eq!(fine, "OK", "each node slows for itself");
    eventually("the second is over", || text.ask("AUTH root open sesame") == "OK");
    // It is remembered, so it is right at once; what is wrong is slowed for twice as long each time.
    assert_eq!(text.ask("AUTH root guess 5"), wrong);
    assert_eq!(text.ask("AUTH root guess 6"), "ERROR rejected: too many wrong passwords; try again in 2 s");
    // Whoever was right before and comes from elsewhere is not slowed. (All of 127.0.0.0/8 is this machine.)
    let mut elsewhere = elsewhere(&fort);
    assert_eq!(elsewhere.ask("AUTH root open sesame"), "OK");
    assert_eq!(
        elsewhere.ask("AUTH root guess 6"),
        "ERROR rejected: too many wrong passwords; try again in 2 s"
    );
    let said = fort.trio.said(0);
    assert_eq!(
        said.matches("wrong password for user").count(),
        1,
        "one line says it, and a count the rest: {said}"
    );
}

/// A connection to the first node's text port from another address of this machine.
fn elsewhere(fort: &Fort) -> Text {
    runtime().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.9:0".parse().expect("an address")).expect("it is this machine's");
        let to = format!("127.0.0.1:{}", fort.text[0]).parse().expect("an address");
        let stream = socket.connect(to).await.expect("connects").into_std().expect("a socket");
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let lines = BufReader::new(stream.try_clone().expect("a socket"));
        Text { stream, lines }
    })
}

#[test]
fn users_are_shown_and_changed_and_what_can_not_be_is_told() {
    let fort = Fort::start();
    assert_eq!(fort.nobody_ok(&["user", "list"]), "rights are not enforced: everybody may do everything\n");
    let added = run(&mut fort.trio.command(&["user", "add", "ada", "--new-password-file", "-"]), b"secret\n");
    assert_eq!(
        ok(&added, &["user", "add"]),
        "user ada is added, and known by a password; it has no rights yet\n"
    );
    let robot = fort.as_nobody(&["user", "add", "robot", "--token", "--json"]);
    let robot = objects(&robot)[0].clone();
    let token = robot["new_token"].as_str().expect("a token").to_owned();
    assert_eq!(
        (&robot["user"], &robot["token"], &robot["password"]),
        (&"robot".into(), &true.into(), &false.into())
    );
    assert!(token.starts_with("robot.") && token.len() == "robot.".len() + 64, "{token}");
    fort.nobody_ok(&["user", "add", "cert", "--no-password"]);
    assert_eq!(fort.nobody_ok(&["user", "grant", "ada", "read", "app/"]), "user ada may read \"app/\"\n");
    assert_eq!(fort.nobody_ok(&["user", "grant", "ada", "cluster"]), "user ada may read \"app/\", cluster\n");
    assert_eq!(fort.nobody_ok(&["user", "revoke", "ada", "read", "app/"]), "user ada may cluster\n");
    assert_eq!(
        fort.nobody_ok(&["user", "list"]),
        "USER   KNOWN BY     MAY\nada    password     cluster\ncert   certificate\nrobot  token\n\
         rights are not enforced: everybody may do everything\n"
    );
    let listed: Value = serde_json::from_str(&fort.nobody_ok(&["user", "list", "--json"])).expect("JSON");
    assert_eq!(
        listed["users"][0],
        json!({"user": "ada", "password": true, "token": false, "rights": [{"right": "cluster"}]})
    );
    // Another token, and the one before is none any more.
    let next = fort.nobody_ok(&["user", "token", "robot"]);
    let with = |token: &str| {
        run(&mut fort.trio.command(&["get", "k", "--token-file", &fort.file("token", token)]), b"")
    };
    assert_refused(&with(&token), "no such user, or the password or token is wrong");
    assert_eq!(with(next.trim_end()).status.code(), Some(1), "there is no such key, and it may be asked for");
    let by_environment = run(fort.trio.command(&["get", "k"]).env("RINGFORT_TOKEN", next.trim_end()), b"");
    assert_eq!(by_environment.status.code(), Some(1));

    for (arguments, says) in [
        (&["user", "add", "ada", "--token"][..], "ada"),
        (&["user", "add", "a b", "--no-password"], "no name for a user"),
        (&["user", "add", "eve"], "--new-password-file"),
        (&["user", "add", "eve", "--token", "--no-password"], "cannot be used"),
        (
            &["user", "add", "eve", "--new-password-file", "/nowhere"],
            "--new-password-file /nowhere: it can't be read",
        ),
        (&["user", "add", "eve", "--new-password-file", "/dev/null"], "its first line is empty"),
        (&["user", "grant", "eve", "read"], "eve"),
        (&["user", "passwd", "eve", "--no-password"], "eve"),
        (&["user", "token", "eve"], "eve"),
        (&["user", "grant", "ada", "fly"], "read, write and admin"),
        (&["user", "enforce", "maybe"], "on or off"),
        (
            &["user", "add", "eve", "--new-password-file", &fort.file("long", &"p".repeat(257))],
            "the limit is 256",
        ),
        (&["get", "k", "--password-file", &fort.file("p", "p")], "say --user NAME"),
        (&["get", "k", "--user", "ada"], "--password-file FILE or --token-file FILE"),
        (
            &["get", "k", "--user", "ada", "--token-file", &fort.file("t", &token)],
            "the token is of user \"robot\"",
        ),
        (&["get", "k", "--token-file", &fort.file("no", "none")], "this is no token"),
        (&["get", "k", "--password", "secret"], "no flag takes a secret"),
    ] {
        let output = fort.as_nobody(arguments);
        assert_refused(&output, says);
        assert!(!stderr(&output).contains("0123"), "{arguments:?}");
    }
    let both = run(
        fort.trio
            .command(&["get", "k", "--user", "ada"])
            .env("RINGFORT_PASSWORD", "x")
            .env("RINGFORT_TOKEN", "y"),
        b"",
    );
    assert_refused(&both, "leave one out");
    // A password does not go to other machines in the clear, and nobody is asked for that to be found.
    let far = |more: &[&str]| {
        let line =
            [&["get", "k", "--user", "ada", "--addr", "192.0.2.1:1", "--timeout", "200ms"], more].concat();
        run(ringfort(&line).env("RINGFORT_PASSWORD", "secret"), b"")
    };
    assert_refused(&far(&[]), "--insecure-password");
    assert_eq!(far(&["--insecure-password"]).status.code(), Some(3));
}

/// On a terminal a password is asked for, and not shown; it is in nobody's command line.
#[test]
fn a_password_is_asked_for_and_shows_nowhere() {
    let fort = Fort::enforced();
    let binary = env!("CARGO_BIN_EXE_ringfort");
    let mut typed = Command::new("script");
    typed.args(["-qec", &format!("{binary} user list --user root"), "/dev/null"]);
    typed.env("RINGFORT_ADDR", fort.trio.address(0)).env("SHELL", "/bin/sh");
    let mut child = typed
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is script");
    let mut shown = child.stdout.take().expect("piped");
    let mut read = Vec::new();
    // Typed once it is asked for.
    while !String::from_utf8_lossy(&read).contains("Password of root: ") {
        let mut piece = [0; 256];
        let count = std::io::Read::read(&mut shown, &mut piece).expect("it goes on");
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..count]);
    }
    let mut keys = child.stdin.take().expect("piped");
    keys.write_all(b"open sesame\r").expect("is read");
    std::io::Read::read_to_end(&mut shown, &mut read).expect("it ends");
    assert!(child.wait().expect("it ends").success());
    let read = String::from_utf8_lossy(&read);
    assert!(read.contains("root  password") && !read.contains("sesame"), "{read}");

    // A command that lasts, by each of the ways that are no terminal.
    let token = fort.root_ok(&["user", "token", "root"]);
    fort.root_ok(&["user", "grant", "root", "admin"]);
    let ways: [(&str, &str); 2] =
        [("RINGFORT_PASSWORD", "open sesame"), ("RINGFORT_TOKEN", token.trim_end())];
    for (variable, secret) in ways {
        let mut shell = fort.trio.command(&["shell"]);
        shell.env(variable, secret);
        if variable == "RINGFORT_PASSWORD" {
            shell.env("RINGFORT_USER", "root");
        }
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        writeln!(stdin, "put k v").expect("is read");
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut answer).expect("answers");
        assert_eq!(answer, "Stored and replicated\n");
        for process in std::fs::read_dir("/proc").expect("Linux").flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("ringfort") {
                assert!(!line.contains("open sesame") && !line.contains(token.trim_end()), "{line}");
            }
        }
        drop(stdin);
        assert!(child.wait().expect("ends").success());
    }
    for node in 0..3 {
        assert!(!fort.trio.said(node).contains(token.trim_end()));
    }
}
