//! The text protocol, spoken to real processes over plain sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfort_proto::family::family_service_client::FamilyServiceClient;
use ringfort_proto::family::{StoreResult, StoredMessage};

use crate::support::{eventually, free_ports, refusal, ringfort, run};
use crate::trio::Trio;

/// One connection.
struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Client {
    fn new(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        stream.set_nodelay(true).expect("is a socket");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("is a socket");
        let lines = BufReader::new(stream.try_clone().expect("is a socket"));
        Client { stream, lines }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("is read");
    }

    /// The next line of answer, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("answers in time");
        assert!(line.ends_with('\n'), "the connection ended: {line:?}");
        line.pop();
        line
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// Everything until the other side closes.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("closes in time");
        rest
    }
}

/// Three nodes, each with a text port, and its number.
fn trio(flags: &[&str]) -> (Trio, [u16; 3]) {
    let base = free_ports(3);
    let ports = [base, base + 1, base + 2];
    let trio = Trio::start_with(|node| {
        let address = format!("127.0.0.1:{}", ports[node]);
        [&["--text-addr", &address], flags].concat().into_iter().map(str::to_owned).collect()
    });
    (trio, ports)
}

#[test]
fn each_command_gets_its_line() {
    let (trio, ports) = trio(&[]);
    let mut client = Client::new(ports[0]);
    let large = "7".repeat(1_000_000);
    for (said, answer) in [
        ("SET 7 two words", "OK"),
        ("get 7", "two words"),
        ("  GeT 7  \r", "two words"),
        ("GET 007", "NOT_FOUND"),
        ("SET 8 h\u{e9}llo \u{1F600}", "OK"),
        ("GET 8", "h\u{e9}llo \u{1F600}"),
        (&format!("SET 9 {large}"), "OK"),
        ("GET 9", &large),
        ("DEL 7", "OK"),
        ("DEL 7", "NOT_FOUND"),
        ("GET 7", "NOT_FOUND"),
    ] {
        assert_eq!(client.ask(said), answer, "{}", &said[..said.len().min(40)]);
    }
    for said in ["SET", "SET 1", "GET", "GET 1 2", "DEL", "FETCH 1", "\u{e9}"] {
        let answer = client.ask(said);
        assert!(answer.starts_with("ERROR rejected: "), "{said}: {answer}");
    }
    client.send(b"SET 1 \xff\xfe\n\0\0\n");
    assert!(client.line().contains("not UTF-8"));
    assert!(client.line().starts_with("ERROR rejected: unknown command"));
    eventually("all shards are led", || {
        let stats = client.ask("stats");
        stats.starts_with("keys=~") && stats.contains(" shards=16 led=16 nodes=3 up=3")
    });
    let nodes = client.ask("NODES");
    assert!(nodes.starts_with(&format!("node1 {} up leads=", trio.address(0))), "{nodes}");
    assert!(client.ask("HELP").starts_with("SET <id> <message>"));

    // All in one packet, empty lines between them, and the goodbye last.
    client.send("SET a 1\n\r\n\nSET a 2\r\nGET a\nGET b\nquit\nGET a\n");
    assert_eq!(client.rest(), "OK\nOK\n2\nNOT_FOUND\nBye\n");

    // What is there is answered, though the client has closed its side in the middle of a command.
    let mut leaving = Client::new(ports[1]);
    leaving.send("GET a\nSET a half");
    leaving.stream.shutdown(std::net::Shutdown::Write).expect("is a socket");
    assert_eq!(leaving.rest(), "2\n");
    assert_eq!(Client::new(ports[2]).ask("GET a"), "2");

    // Other doors see the same rows.
    let got = trio.command(&["get", "a"]).output().expect("runs");
    assert_eq!(got.stdout, b"2\n");
    let put = trio.command(&["put", "lines", "one\ntwo"]).output().expect("runs");
    assert!(put.status.success());
    assert!(Client::new(ports[0]).ask("GET lines").starts_with("ERROR rejected: the value has line breaks"));
}

#[test]
fn get_says_ok_if_that_is_wanted() {
    let (_trio, ports) = trio(&["--text-get-reply", "ok"]);
    let mut client = Client::new(ports[0]);
    assert_eq!(client.ask("SET 1 hello there"), "OK");
    assert_eq!((client.ask("GET 1"), client.ask("GET 2")), ("OK hello there".into(), "NOT_FOUND".into()));
}

/// How many rounds, or seconds, a test takes: what the variable says, or fewer.
fn how_many(variable: &str, or: u64) -> u64 {
    std::env::var(variable).ok().map_or(or, |number| number.parse().expect("a number"))
}

#[test]
fn a_connection_reads_what_it_has_written_while_leaders_are_killed() {
    let (mut trio, ports) = trio(&[]);
    let rounds = how_many("RINGFORT_TEST_ORDER_ROUNDS", 1_500);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (over, port) = (over.clone(), ports[0]);
            std::thread::spawn(move || {
                let mut connection = Client::new(port);
                for round in 0..rounds {
                    // Over keys of all shards.
                    let key = format!("order-{client}-{}", round % 500);
                    let (first, second) = (2 * round, 2 * round + 1);
                    connection.send(format!("SET {key} {first}\nSET {key} {second}\nGET {key}\n"));
                    let told = (connection.line(), connection.line(), connection.line());
                    let expected = ("OK".to_owned(), "OK".to_owned(), second.to_string());
                    assert_eq!(told, expected, "client {client}, round {round}");
                }
                over.store(true, Ordering::Relaxed);
            })
        })
        .collect();
    // The node that the clients speak with lives; the others are killed in turn.
    let mut killed = 1;
    while !over.load(Ordering::Relaxed) {
        trio.kill(killed);
        std::thread::sleep(Duration::from_millis(1_500));
        trio.start_node(killed);
        std::thread::sleep(Duration::from_millis(1_500));
        killed = 3 - killed;
    }
    for client in clients {
        client.join().expect("each read was right");
    }
}

/// The course's pattern: 80 % SET, ids 0 to 9999, every 200th SET of 1,000,000 bytes.
#[test]
fn no_request_fails_when_another_node_is_killed() {
    let (mut trio, ports) = trio(&[]);
    let seconds = how_many("RINGFORT_TEST_TEXT_SECONDS", 8);
    let end = Instant::now() + Duration::from_secs(seconds);
    let count = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4_u64)
        .map(|client| {
            let (count, port) = (count.clone(), ports[0]);
            std::thread::spawn(move || {
                let mut connection = Client::new(port);
                let mut sets = 0;
                // Its own share of the ids, so that it knows what each has to be.
                let mut expected = std::collections::BTreeMap::new();
                let mut number = client;
                while Instant::now() < end {
                    number = number
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let id = (number >> 33) % 2_500 * 4 + client;
                    if (number >> 20) % 5 < 4 {
                        sets += 1;
                        let bytes =
                            if sets % 200 == 0 { 1_000_000 } else { 5 + (number >> 40) as usize % 1_996 };
                        let message = format!("{sets:05}").repeat(bytes / 5);
                        assert_eq!(connection.ask(&format!("SET {id} {message}")), "OK");
                        expected.insert(id, message);
                    } else {
                        let told = connection.ask(&format!("GET {id}"));
                        assert_eq!(&told, expected.get(&id).map_or("NOT_FOUND", String::as_str), "id {id}");
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                expected
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds / 3));
    trio.kill(2);
    let mut last = Client::new(ports[1]);
    for client in clients {
        for (id, message) in client.join().expect("no request failed") {
            assert_eq!(last.ask(&format!("GET {id}")), message, "id {id}, read at another node");
        }
    }
    let count = count.load(Ordering::Relaxed);
    println!("{count} requests in {seconds} s, none failed");
    assert!(count > 100);
}

#[test]
fn a_message_is_ok_once_as_many_have_it_as_the_file_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tolerance.conf");
    std::fs::write(&file, "# besides the leader\n tolerance = 2\n").expect("written");
    let (mut trio, ports) = trio(&["--tolerance-file", file.to_str().expect("text"), "--text-timeout", "2s"]);
    eventually("it says what three replicas can't keep", || {
        trio.said(0)
            .contains("have a cluster of 5 nodes keep as many copies (ringfort cluster set replicas=5)")
    });
    let mut client = Client::new(ports[0]);
    assert_eq!(client.ask("SET 1 everywhere"), "OK");
    trio.kill(2);
    let told = client.ask("SET 2 on two");
    assert!(told.starts_with("ERROR stored by 1 besides the leader, TOLERANCE=2"), "{told}");
    assert_eq!(client.ask("GET 2"), "on two", "it is kept");

    std::fs::write(&file, "TOLERANCE=3").expect("written");
    eventually("the new number is in force", || {
        client.ask("SET 3 too many").starts_with("ERROR rejected: TOLERANCE=3 wants 4 copies")
    });
    assert!(client.ask("SET 4 too many").starts_with("ERROR rejected: TOLERANCE=3 wants 4 copies"));
    let told = family_store(&trio.address(0));
    assert!(!told.success && told.error.starts_with("TOLERANCE=3 wants 4 copies"), "{told:?}");
    assert_eq!(client.ask("GET 4"), "NOT_FOUND", "nothing was written");
    std::fs::write(&file, "TOLERANCE=many").expect("written");
    eventually("it is said that the file makes no sense", || {
        trio.said(0)
            .contains("line 1 is not TOLERANCE=N with N from 1 to 7: \"TOLERANCE=many\"; the last good number stays in force")
    });
    assert!(client.ask("SET 3 too many").starts_with("ERROR rejected: TOLERANCE=3"));
    std::fs::write(&file, "TOLERANCE=1").expect("written");
    eventually("the new number is in force", || client.ask("SET 3 on two") == "OK");
}

/// The same over gRPC.
fn family_store(address: &str) -> StoreResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = FamilyServiceClient::connect(format!("http://{address}")).await.expect("connects");
        let message = StoredMessage { id: 4, text: "too many".into() };
        client.store(message).await.expect("answered").into_inner()
    })
}

#[test]
fn reads_fall_back_to_what_any_replica_has_if_that_is_wanted() {
    let (mut trio, ports) = trio(&["--text-stale-after", "500ms", "--text-timeout", "3s"]);
    let mut client = Client::new(ports[0]);
    assert_eq!(client.ask("SET 1 kept"), "OK");
    eventually("all have it", || Client::new(ports[0]).ask("GET 1") == "kept");
    std::thread::sleep(Duration::from_millis(300));
    trio.kill(1);
    trio.kill(2);
    let begun = Instant::now();
    assert_eq!(client.ask("GET 1"), "kept");
    assert!(begun.elapsed() < Duration::from_millis(2_500));
    let told = client.ask("SET 1 lost");
    assert!(told.starts_with("ERROR "), "writes never fall back: {told}");
    // In its turn, behind a write that waits for a majority in vain.
    client.send("SET 1 lost\nGET 1\nGET 2\n");
    assert!(client.line().starts_with("ERROR "));
    let (one, two) = (client.line(), client.line());
    assert_eq!(one, "kept");
    assert_eq!(two, "NOT_FOUND");
}

#[test]
fn hostile_clients_cost_others_nothing() {
    let (trio, ports) = trio(&[]);
    let idle: Vec<_> =
        (0..1_000).map(|_| TcpStream::connect(("127.0.0.1", ports[0])).expect("connects")).collect();
    let endless: Vec<_> = (0..8)
        .map(|_| {
            let port = ports[0];
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
                stream.set_read_timeout(Some(Duration::from_secs(30))).expect("is a socket");
                let bytes = vec![b'x'; 64 * 1024];
                // Until the node has had enough of it.
                let stopped = (0..1_000).any(|_| stream.write_all(&bytes).is_err());
                assert!(stopped, "nobody stops this");
            })
        })
        .collect();
    let mut longest = Client::new(ports[0]);
    longest.stream.write_all(&vec![b'y'; 10 * 1024 * 1024]).ok();
    let told = longest.line();
    assert!(told.starts_with("ERROR rejected: a line of more than 9437184 bytes"), "{told}");

    let mut client = Client::new(ports[0]);
    let begun = Instant::now();
    for number in 0..300 {
        assert_eq!(client.ask(&format!("SET {number} fine")), "OK");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    for endless in endless {
        endless.join().expect("it was stopped");
    }
    assert_eq!(client.ask("GET 299"), "fine");
    drop(idle);
    assert!(!trio.said(0).contains("panic"));
}

/// A page in a browser can have such a request sent to any port of this machine.
#[test]
fn what_an_http_client_sends_is_refused_with_all_that_follows() {
    let (_trio, ports) = trio(&[]);
    let mut client = Client::new(ports[0]);
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\nSET injected owned\r\n");
    let told = client.rest();
    assert!(told.starts_with("ERROR rejected: this port speaks lines, not HTTP"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(Client::new(ports[0]).ask("GET injected"), "NOT_FOUND");
}

/// What a node has taken when it is asked to stop it answers, and it takes nothing that it does not answer.
#[test]
fn a_stop_answers_every_command_that_took_effect() {
    stops_answer_what_took_effect(&[]);
}

#[test]
fn a_stop_of_several_socket_threads_answers_every_command_that_took_effect() {
    stops_answer_what_took_effect(&["--socket-threads", "3"]);
}

fn stops_answer_what_took_effect(flags: &[&str]) {
    let (mut trio, ports) = trio(flags);
    for round in 0..3 {
        // Where there are several threads, the client's connection belongs to another one each time.
        let _others: Vec<_> = (0..round).map(|_| Client::new(ports[0]).ask("GET ready")).collect();
        let mut client = Client::new(ports[0]);
        assert_eq!(client.ask("SET ready yes"), "OK");
        let mut writer = client.stream.try_clone().expect("is a socket");
        let sending = std::thread::spawn(move || {
            for number in 0..4_000 {
                if writer.write_all(format!("SET {round}-{number} x\n").as_bytes()).is_err() {
                    break;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        trio.terminate(0);
        let told = client.rest();
        sending.join().expect("sends");
        let answers: Vec<&str> = told.lines().collect();
        let answered = answers.len();
        println!("round {round}: {answered} answers");
        let mut other = Client::new(ports[1]);
        for (number, answer) in answers.iter().enumerate() {
            let is_there = other.ask(&format!("GET {round}-{number}")) == "x";
            assert!(is_there == (*answer == "OK"), "{round}-{number}: {answer}");
        }
        for number in answered..(answered + 200).min(4_000) {
            assert_eq!(other.ask(&format!("GET {round}-{number}")), "NOT_FOUND", "done, and not answered");
        }
        trio.start_node(0);
        eventually("it serves again", || trio.said(0).contains("serves on"));
    }
}

/// As many long lines at once as would take all memory for lines, if each took what it could.
#[test]
fn long_lines_of_many_clients_all_come_to_their_ends() {
    let (_trio, ports) = trio(&[]);
    let clients: Vec<_> = (0..250)
        .map(|_| {
            let port = ports[0];
            std::thread::spawn(move || {
                let mut client = Client::new(port);
                let half = vec![0xff; 500_000];
                client.send(b"SET k ");
                client.send(&half);
                std::thread::sleep(Duration::from_millis(500));
                client.send(&half);
                client.send(b"\n");
                client.line()
            })
        })
        .collect();
    for client in clients {
        // Read to its end, and only then refused.
        let told = client.join().expect("is answered");
        assert!(told.starts_with("ERROR rejected: the message is not UTF-8"), "{told}");
    }
}

/// Before a cluster is born nobody says that it is empty.
#[test]
fn a_node_without_a_cluster_says_whom_it_waits_for() {
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    let text = free_ports(1);
    trio.more[0] = vec!["--text-addr".into(), format!("127.0.0.1:{text}")];
    trio.start_node(0);
    eventually("it listens", || TcpStream::connect(("127.0.0.1", text)).is_ok());
    let mut client = Client::new(text);
    for command in ["NODES", "STATS", "GET 1", "SET 1 x"] {
        let told = client.ask(command);
        let waits = "ERROR rejected: this cluster is not born yet: it waits for ";
        assert!(told.starts_with(waits) && told.contains("node3"), "{command}: {told}");
    }
    let status = ["status", "--timeout", "1s", "--addr", &trio.address(0)];
    let (code, told) = refusal(&run(&mut ringfort(&status), b""));
    assert!(code == Some(3) && told.contains("not born yet: it waits for "), "{code:?} {told}");
}

#[test]
fn a_node_reports_its_state() {
    let (mut trio, ports) = trio(&["--report-every", "200ms"]);
    assert_eq!(Client::new(ports[0]).ask("SET 1 x"), "OK");
    assert!(!trio.said(1).contains("(down)"), "nobody is down only because nobody has heard of it yet");
    let wanted = format!("node2 {} keys=~", trio.address(1));
    eventually("a line that names its address, its keys and all members", || {
        trio.said(1).lines().any(|line| {
            line.starts_with("20")
                && line.contains(&wanted)
                && line.ends_with("members=3 up=3: node1, node2, node3")
        })
    });
    // What it holds it knows as soon as it says anything. (Of what comes last in a log it may not know yet that it is committed.)
    let mut client = Client::new(ports[0]);
    assert!((0..100).all(|id| client.ask(&format!("SET {id} x")) == "OK"));
    let holds_some =
        || trio.said(1).lines().any(|line| line.contains("keys=~") && !line.contains("keys=~0 "));
    eventually("it has some of them", holds_some);
    trio.terminate(1);
    trio.start_node(1);
    let first = || trio.said(1).lines().find(|line| line.contains(" keys=~")).map(str::to_owned);
    eventually("a first line", || first().is_some());
    assert!(!first().is_some_and(|line| line.contains("keys=~0 ")), "{}", trio.said(1));
}
