//! The client against nodes that misbehave on purpose: where it asks, what it asks again, and what it says of the rest.

mod node;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use node::{Act, Listed, Node, acquaint, failed, fine};
use ringfort_client::{Client, Condition, Decision, List, NotMet, Options, Outcome, Rows, Transport, Write};
use ringfort_proto::v1::ListRequest;
use ringfort_types::{Code, Failure, Index, NodeId, Reply, Request, Revision, Row, ShardId, Stamp, slot_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

const TRANSPORTS: [Transport; 2] = [Transport::Session, Transport::Unary];

fn options(nodes: &[&Node], transport: Transport) -> Options {
    let addresses = nodes.iter().map(|node| node.address.clone()).collect();
    Options { timeout: Duration::from_secs(2), transport, ..Options::new(addresses) }
}

async fn client(nodes: &[&Node], transport: Transport) -> Client {
    Client::connect(options(nodes, transport)).await.unwrap()
}

/// Keys whose slots lie in the first, and in the second half.
fn halves() -> (String, String) {
    let (mut first, mut second) = (String::new(), String::new());
    for key in (0..100).map(|n| format!("k{n}")) {
        if slot_of(key.as_bytes()).0 < 8192 { first = key } else { second = key }
    }
    (first, second)
}

#[tokio::test]
async fn each_key_is_asked_of_its_leader_though_only_one_node_was_named() {
    for transport in TRANSPORTS {
        let (one, two) =
            (Node::start(|_, r| Act::Reply(fine(r))).await, Node::start(|_, r| Act::Reply(fine(r))).await);
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (first, second) = halves();
        for _ in 0..5 {
            assert_eq!(client.get(first.clone()).await.unwrap().unwrap().value, first);
            client.put(second.clone(), "v").await.unwrap();
        }
        assert_eq!((one.seen(), two.seen()), (5, 5), "{transport:?}");
        assert_eq!(client.digest_at(NodeId(2), ShardId(1), Index(3)).await.unwrap().hash, 2);
        assert_eq!(two.seen(), 6);
    }
}

#[tokio::test]
async fn whoever_is_unknown_is_told_so_at_once() {
    let refusal = || Failure::rejected(Code::Unauthenticated, "who asks?");
    for transport in TRANSPORTS {
        let node = Node::start(move |_, _| failed(refusal())).await;
        node.shared.asks_who.store(true, Ordering::Relaxed);
        let client = client(&[&node], transport).await;
        let begun = Instant::now();
        // A write needs to know the cluster first.
        assert_eq!(client.put("k", "v").await, Err(refusal()));
        assert_eq!(client.get("k").await, Err(refusal()));
        assert_eq!(client.cluster_state().await, Err(refusal()));
        assert!(begun.elapsed() < Duration::from_secs(1), "{transport:?}: nobody else would say otherwise");
    }
}

#[tokio::test]
async fn users_are_asked_for() {
    let node = Node::start(|_, r| Act::Reply(fine(r))).await;
    acquaint(&[&node]);
    let users = client(&[&node], Transport::Session).await.users().await.unwrap();
    assert!(users.enforced && users.users.is_empty());
}

#[tokio::test]
async fn a_hint_is_followed_next_time() {
    for transport in TRANSPORTS {
        let one = Node::start(|_, r| Act::Hint(fine(r), NodeId(2))).await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (first, _) = halves();
        for _ in 0..4 {
            client.delete(first.clone()).await.unwrap();
        }
        assert_eq!((one.seen(), two.seen()), (1, 3), "{transport:?}");
    }
}

#[tokio::test]
async fn what_surely_did_not_happen_is_asked_again() {
    for transport in TRANSPORTS {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Stopping] {
            let node = Node::start(move |before, r| {
                if before < 3 { failed(Failure::rejected(code, "not now")) } else { Act::Reply(fine(r)) }
            })
            .await;
            acquaint(&[&node]);
            client(&[&node], transport).await.put("k", "v").await.unwrap();
            assert_eq!(node.seen(), 4, "{transport:?} {code:?}");
        }
    }
}

#[tokio::test]
async fn until_the_deadline_and_then_with_the_nodes_own_words() {
    for transport in TRANSPORTS {
        let node = Node::start(|_, _| failed(Failure::rejected(Code::Unavailable, "no quorum"))).await;
        acquaint(&[&node]);
        let options = Options { timeout: Duration::from_millis(300), ..options(&[&node], transport) };
        let client = Client::connect(options).await.unwrap();
        let begun = Instant::now();
        let failure = client.put("k", "v").await.unwrap_err();
        assert_eq!(failure, Failure::rejected(Code::Unavailable, "no quorum"));
        assert!(begun.elapsed() < Duration::from_millis(600) && node.seen() > 3, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn what_can_not_be_mended_is_not_asked_again() {
    for transport in TRANSPORTS {
        let node = Node::start(|_, _| failed(Failure::rejected(Code::FailedPrecondition, "gone"))).await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        assert_eq!(client.get("k").await.unwrap_err().code, Code::FailedPrecondition);
        assert_eq!(client.get("").await.unwrap_err().code, Code::InvalidArgument);
        assert_eq!(node.seen(), 1);
    }
}

#[tokio::test]
async fn a_write_that_may_have_been_done_is_sent_again_with_the_same_number() {
    for transport in TRANSPORTS {
        let node = Node::start(|before, r| if before == 0 { Act::Break } else { Act::Reply(fine(r)) }).await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        client.put("k", "v").await.unwrap();
        client.increment("n", 1).await.unwrap();
        let stamps = node.stamps();
        let numbers = |stamp: &Stamp| (stamp.sequence, stamp.prev, stamp.floor);
        assert_eq!(stamps.iter().map(numbers).collect::<Vec<_>>(), [(1, 0, 0), (1, 0, 0), (2, 1, 1)]);
        assert!(stamps.iter().all(|stamp| stamp.client == stamps[0].client), "{transport:?}");
    }
}

#[tokio::test]
async fn without_a_number_it_is_unknown_and_never_sent_again() {
    for transport in TRANSPORTS {
        let node = Node::start(|before, r| if before == 0 { Act::Break } else { Act::Reply(fine(r)) }).await;
        acquaint(&[&node]);
        let options = Options { exactly_once: false, ..options(&[&node], transport) };
        let client = Client::connect(options).await.unwrap();
        assert_eq!(client.put("k", "v").await.unwrap_err().outcome, Outcome::Unknown);
        assert_eq!((node.seen(), node.stamps()), (1, Vec::new()), "{transport:?}");
        client.put("k", "v").await.unwrap();
        assert_eq!(node.seen(), 2);
    }
}

#[tokio::test]
async fn writes_at_once_have_sessions_of_their_own() {
    for transport in TRANSPORTS {
        let node = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        for _ in 0..3 {
            let (one, two) = tokio::join!(client.put("a", "1"), client.put("a", "2"));
            assert!(one.is_ok() && two.is_ok());
        }
        let mut ends = BTreeMap::new();
        for stamp in node.stamps() {
            assert_eq!((stamp.prev, stamp.floor), (stamp.sequence - 1, stamp.sequence - 1));
            let last = ends.insert(stamp.client, stamp.sequence).unwrap_or(0);
            assert_eq!(stamp.sequence, last + 1, "{transport:?}");
        }
        assert_eq!(ends.into_values().sum::<u64>(), 6);
    }
}

#[tokio::test]
async fn a_session_that_is_not_known_any_more_is_replaced() {
    for transport in TRANSPORTS {
        let node = Node::start(|before, r| {
            let expired = || Failure::rejected(Code::SessionExpired, "open a new one");
            if before == 1 { failed(expired()) } else { Act::Reply(fine(r)) }
        })
        .await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        client.put("k", "v").await.unwrap();
        client.put("k", "w").await.unwrap();
        let stamps = node.stamps();
        assert_eq!(stamps.iter().map(|stamp| stamp.sequence).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(stamps[0].client == stamps[1].client && stamps[1].client != stamps[2].client);
    }
}

#[tokio::test]
async fn a_session_is_not_used_again_after_it_ended_in_doubt() {
    for transport in TRANSPORTS {
        let node = Node::start(|before, r| match before {
            0 => Act::Break,
            1 => failed(Failure::rejected(Code::SessionExpired, "open a new one")),
            _ => Act::Reply(fine(r)),
        })
        .await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        let failure = client.put("k", "v").await.unwrap_err();
        assert_eq!((failure.outcome, failure.code), (Outcome::Unknown, Code::SessionExpired));
        client.put("k", "w").await.unwrap();
        let stamps = node.stamps();
        assert!(stamps[0] == stamps[1] && stamps[1].client != stamps[2].client, "{transport:?}");
    }
}

#[tokio::test]
async fn once_unknown_a_write_stays_unknown_whatever_comes_after() {
    let node = Node::start(|before, _| match before {
        0 => Act::Break,
        _ => failed(Failure::rejected(Code::Unavailable, "no quorum")),
    })
    .await;
    acquaint(&[&node]);
    let timeout = Duration::from_millis(300);
    let options = Options { timeout, ..options(&[&node], Transport::Session) };
    let failure = Client::connect(options).await.unwrap().put("k", "v").await.unwrap_err();
    assert_eq!(failure, Failure::unknown(Code::Unavailable, "no quorum"));
}

#[tokio::test]
async fn a_write_survives_a_hanging_node() {
    for transport in TRANSPORTS {
        let one = Node::start(|_, _| Act::Silence).await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (first, _) = halves();
        let begun = Instant::now();
        client.increment(first.clone(), 1).await.unwrap();
        assert_eq!((one.stamps(), one.seen()), (two.stamps(), 1), "{transport:?}");
        assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_node_that_hangs_is_remembered_until_it_answers() {
    for transport in TRANSPORTS {
        let hangs = Arc::new(AtomicBool::new(false));
        let heeded = hangs.clone();
        let one =
            Node::start(
                move |_, r| {
                    if heeded.load(Ordering::Relaxed) { Act::Silence } else { Act::Reply(fine(r)) }
                },
            )
            .await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (first, _) = halves();
        client.get(first.clone()).await.unwrap();
        let hang = |whether| {
            hangs.store(whether, Ordering::Relaxed);
            one.shared.hangs.store(whether, Ordering::Relaxed);
        };
        hang(true);
        client.get(first.clone()).await.unwrap();
        let (begun, before) = (Instant::now(), one.seen());
        for _ in 0..5 {
            client.get(first.clone()).await.unwrap();
            client.put(first.clone(), "v").await.unwrap();
            client.cluster_state().await.unwrap();
            client.list(List::default()).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_millis(900), "{transport:?}: {:?}", begun.elapsed());
        assert_eq!(one.seen(), before, "{transport:?}");
        let digest = client.digest_at(NodeId(1), ShardId(1), Index(3)).await;
        assert!(digest.is_ok(), "another node passes it on: {digest:?}");
        hang(false);
        let begun = Instant::now();
        while one.seen() == before {
            client.get(first.clone()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(begun.elapsed() < Duration::from_secs(3), "{transport:?}: it is not asked again");
        }
    }
}

#[tokio::test]
async fn a_read_survives_a_broken_stream_and_a_hanging_node() {
    for transport in TRANSPORTS {
        let one = Node::start(|before, _| if before == 0 { Act::Break } else { Act::Silence }).await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (first, _) = halves();
        let begun = Instant::now();
        assert_eq!(client.get(first.clone()).await.unwrap().unwrap().value, first);
        // With the session's stream the connection is given up, and the other node is next.
        let of_one = if transport == Transport::Session { 1 } else { 2 };
        assert_eq!((one.seen(), two.seen()), (of_one, 1), "{transport:?}");
        assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_at_its_deadline() {
    for transport in TRANSPORTS {
        let node = Node::start(|_, _| Act::Silence).await;
        acquaint(&[&node]);
        let options = Options { timeout: Duration::from_millis(300), ..options(&[&node], transport) };
        let client = Client::connect(options).await.unwrap();
        let begun = Instant::now();
        let failure = client.put("k", "v").await.unwrap_err();
        assert_eq!(
            (failure.outcome, failure.code),
            (Outcome::Unknown, Code::DeadlineExceeded),
            "{transport:?}"
        );
        assert!(failure.message.contains("no quorum"), "{failure}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(500), "{took:?}");
        assert_eq!(node.seen(), 1);
    }
}

#[tokio::test]
async fn a_node_that_is_gone_is_gone_around_and_found_again() {
    let (one, two) =
        (Node::start(|_, r| Act::Reply(fine(r))).await, Node::start(|_, r| Act::Reply(fine(r))).await);
    acquaint(&[&one, &two]);
    let client = client(&[&one, &two], Transport::Session).await;
    let (first, _) = halves();
    client.put(first.clone(), "v").await.unwrap();
    drop(one);
    // Its connections break in their own time; what falls into that is unknown, and anything later goes around.
    let mut failures = 0;
    while let Err(failure) = client.put(first.clone(), "v").await {
        assert_eq!(failure.outcome, Outcome::Unknown, "{failure}");
        failures += 1;
        assert!(failures < 5);
    }
    for _ in 0..5 {
        client.get(first.clone()).await.unwrap();
    }
    assert!(two.seen() >= 6);
}

#[tokio::test]
async fn a_leader_that_can_not_be_reached_from_here_costs_a_hop_and_no_more() {
    for transport in TRANSPORTS {
        let one = Node::start(|_, r| Act::Reply(fine(r))).await;
        let mut two = Node::start(|_, r| Act::Reply(fine(r))).await;
        // Under this address nobody is refused, and nobody comes in: its queue is full.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        two.address = full.local_addr().unwrap().to_string();
        let wait = Duration::from_millis(100);
        let mut waiting = Vec::new();
        while let Ok(stream) = tokio::time::timeout(wait, tokio::net::TcpStream::connect(&two.address)).await
        {
            waiting.push(stream.unwrap());
            assert!(waiting.len() < 10, "the queue has no end");
        }
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let (_, second) = halves();
        let begun = Instant::now();
        for _ in 0..3 {
            client.put(second.clone(), "v").await.unwrap();
        }
        assert_eq!((one.seen(), two.seen()), (3, 0), "{transport:?}");
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    }
}

/// What comes of a connection to an address.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Refused,
    /// Accepted, and closed at once.
    Closed,
    /// Accepted, and reset at once.
    Reset,
    /// Greeted as HTTP/2 wants it, and closed when the first call comes: as a node does that has no place for one more client.
    Greeted,
    /// Accepted, and nothing is ever said.
    Silent,
}

/// Whether there is a frame of HTTP/2 with a call's headers (`HEADERS`) among these, behind the preface.
fn has_call(heard: &[u8]) -> bool {
    let mut frames = heard.get(24..).unwrap_or_default();
    while let [a, b, c, kind, _flags, _, _, _, _, rest @ ..] = frames {
        if *kind == 1 {
            return true;
        }
        frames = rest.get(u32::from_be_bytes([0, *a, *b, *c]) as usize..).unwrap_or_default();
    }
    false
}

/// An address where that comes of connections, and who sees to it.
async fn unreachable(fate: Fate) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while !matches!(fate, Fate::Refused)
            && let Ok((mut stream, _)) = listener.accept().await
        {
            match fate {
                Fate::Reset => stream.set_zero_linger().unwrap(),
                Fate::Silent => held.push(stream),
                Fate::Greeted => drop(tokio::spawn(async move {
                    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                    let mut heard = Vec::new();
                    while !has_call(&heard) {
                        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                })),
                Fate::Refused | Fate::Closed => {}
            }
        }
    });
    tokio::task::yield_now().await;
    (address, task)
}

#[tokio::test]
async fn a_leader_that_takes_no_calls_from_here_costs_a_hop_and_no_more_however_it_refuses() {
    for fate in [Fate::Refused, Fate::Closed, Fate::Reset, Fate::Greeted, Fate::Silent] {
        for (transport, exactly_once) in [
            (Transport::Session, true),
            (Transport::Session, false),
            (Transport::Unary, true),
            (Transport::Unary, false),
        ] {
            let one = Node::start(|_, r| Act::Reply(fine(r))).await;
            let mut two = Node::start(|_, r| Act::Reply(fine(r))).await;
            let (address, task) = unreachable(fate).await;
            two.address = address;
            acquaint(&[&one, &two]);
            let options = Options { exactly_once, ..options(&[&one], transport) };
            let client = Client::connect(options).await.unwrap();
            let (_, second) = halves();
            let begun = Instant::now();
            for _ in 0..5 {
                client.put(second.clone(), "v").await.unwrap();
                client.get(second.clone()).await.unwrap();
                client.get_many([second.clone()]).await.unwrap();
            }
            let took = begun.elapsed();
            assert_eq!((one.seen(), two.seen()), (15, 0), "{fate:?} {transport:?}");
            // Once it has been silent for a second, nobody waits for it.
            assert!(took < Duration::from_millis(2_500), "{fate:?} {transport:?} {took:?}");
            task.abort();
        }
    }
}

#[tokio::test]
async fn what_a_stopping_node_has_not_taken_of_a_session_is_sent_elsewhere_though_it_has_no_number() {
    let one = Node::start(|_, _| Act::End(Failure::rejected(Code::Stopping, "the node is stopping"))).await;
    let two = Node::start(|_, r| Act::Reply(fine(r))).await;
    acquaint(&[&one, &two]);
    let options = Options { exactly_once: false, ..options(&[&one], Transport::Session) };
    let client = Client::connect(options).await.unwrap();
    let (first, _) = halves();
    client.put(first, "v").await.unwrap();
    assert_eq!((one.seen(), two.seen()), (1, 1));
}

#[tokio::test]
async fn nobody_there_is_said_with_names_and_advice() {
    let addresses = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    let options = Options { timeout: Duration::from_millis(200), ..Options::new(addresses) };
    let client = Client::connect(options).await.unwrap();
    let failure = client.put("k", "v").await.unwrap_err();
    let says = "can't reach 127.0.0.1:1, 127.0.0.1:2: connection refused. Are the nodes running, and are the addresses right?";
    assert_eq!(failure, Failure::rejected(Code::Unavailable, says));
    assert_eq!(client.list(List::default()).await.unwrap_err().message, says);
    assert!(Client::connect(Options::new(vec!["nonsense".into()])).await.is_err());
    assert!(Client::connect(Options::new(vec![])).await.is_err());
}

#[tokio::test]
async fn requests_travel_together_and_no_more_than_allowed() {
    let node = Node::start(|_, r| Act::Reply(fine(r))).await;
    acquaint(&[&node]);
    let client = client(&[&node], Transport::Session).await;
    let asking: Vec<_> = (0..1000)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.get(format!("k{n}")).await.unwrap().unwrap().value })
        })
        .collect();
    for (n, asked) in asking.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), format!("k{n}"));
    }
    assert_eq!(node.seen(), 1000);
    assert!(node.shared.frames.load(Ordering::Relaxed) < 100, "{:?}", node.shared.frames);

    let silent = Node::start(|_, _| Act::Silence).await;
    acquaint(&[&silent]);
    let timeout = Duration::from_millis(300);
    let options = Options { in_flight_max: 10, timeout, ..options(&[&silent], Transport::Session) };
    let client = Client::connect(options).await.unwrap();
    let asking: Vec<_> = (0..30)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.put(format!("k{n}"), "v").await.unwrap_err().outcome })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(silent.shared.unanswered.load(Ordering::Relaxed), 10);
    let mut unknown = 0;
    for asked in asking {
        unknown += usize::from(asked.await.unwrap() == Outcome::Unknown);
    }
    assert_eq!(unknown, 10, "the others were never sent");
}

#[tokio::test]
async fn a_list_comes_in_order_and_says_when_it_breaks_off() {
    let node = Node::start(|_, r| Act::Reply(fine(r))).await;
    acquaint(&[&node]);
    let client = client(&[&node], Transport::Session).await;
    let rows: Vec<_> = client.list(List::default()).await.unwrap().collect().await;
    let rows: Vec<_> = rows.into_iter().map(Result::unwrap).collect();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["key0", "key1", "key2", "key3", "key4", "key5"]);
    for (n, (_, row)) in rows.iter().enumerate() {
        let expected = Row { value: format!("value{n}").into(), revision: Revision(n as u64 + 1) };
        assert_eq!(*row, expected);
    }

    // A stream that ends well, as it seems.
    node.shared.list_is_cut.store(true, std::sync::atomic::Ordering::Relaxed);
    let cut: Vec<_> = client.list(List::default()).await.unwrap().collect().await;
    assert_eq!((cut.len(), cut[..6].iter().all(Result::is_ok)), (7, true));
    let failure = cut[6].as_ref().unwrap_err();
    assert_eq!(failure.code, Code::Unavailable);
    assert!(failure.message.contains("ended before its last rows"), "{failure}");

    node.shared.list_is_cut.store(false, std::sync::atomic::Ordering::Relaxed);
    node.shared.list.lock().unwrap().breaks_after = Some(4);
    let rows: Vec<_> = client.list(List::default()).await.unwrap().collect().await;
    assert_eq!(rows.len(), 5);
    assert!(rows[..4].iter().all(Result::is_ok));
    let failure = rows[4].as_ref().unwrap_err();
    assert_eq!(failure.code, Code::Unavailable);
    assert!(failure.message.contains("broke off: stopping"), "{failure}");

    node.shared.list.lock().unwrap().breaks_after = Some(0);
    assert_eq!(client.list(List::default()).await.unwrap_err().message, "stopping");
}

#[tokio::test]
async fn a_list_goes_on_at_another_node_at_the_same_indexes() {
    let fails = Listed { breaks_after: Some(2), indexes: true, ..Listed::default() };
    let hangs = Listed { silent_after: Some(4), indexes: true, ..Listed::default() };
    for (listed, from) in [(fails, "key1\0"), (hangs, "key3\0")] {
        let one = Node::start(|_, r| Act::Reply(fine(r))).await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        for node in [&one, &two] {
            *node.shared.list.lock().unwrap() = listed;
        }
        let client = client(&[&one, &two], Transport::Session).await;
        let mut rows = client.list(List { limit: 5, ..List::default() }).await.unwrap();
        let mut keys = vec![rows.next().await.unwrap().unwrap().0];
        // Whoever is asked next brings the rest.
        for node in [&one, &two] {
            *node.shared.list.lock().unwrap() = Listed { indexes: true, ..Listed::default() };
        }
        let begun = Instant::now();
        while let Some(row) = rows.next().await {
            keys.push(row.unwrap().0);
        }
        assert_eq!(keys, ["key0", "key1", "key2", "key3", "key4"], "{listed:?}");
        assert!(begun.elapsed() < Duration::from_millis(1900), "{:?}", begun.elapsed());
        let (mut first, mut second) = (asked_for_rows(&one), asked_for_rows(&two));
        if first.first().is_none_or(|asked| !asked.from.is_empty()) {
            std::mem::swap(&mut first, &mut second);
        }
        assert_eq!((first.len(), second.len()), (1, 1), "each is asked once");
        assert!(first[0].indexes.is_empty());
        assert_eq!((&second[0].from[..], &second[0].indexes[..]), (from.as_bytes(), &[7, 9][..]));
        assert_eq!(second[0].limit, 5 - u64::from(from.as_bytes()[3] - b'0' + 1));
    }
}

/// What lists the node was asked for, besides the row by which a list is kept.
fn asked_for_rows(node: &Node) -> Vec<ListRequest> {
    let lists = node.shared.lists.lock().unwrap();
    lists.iter().filter(|asked| !asked.keys_only).cloned().collect()
}

/// Three nodes, a list of which the first of them has sent two rows, and these.
async fn list_of_three(listed: Listed) -> (Vec<Node>, Client, Rows, Vec<Bytes>) {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let node = Node::start(|_, r| Act::Reply(fine(r))).await;
        *node.shared.list.lock().unwrap() = listed;
        nodes.push(node);
    }
    let [one, two, three] = &nodes[..] else { unreachable!() };
    acquaint(&[one, two, three]);
    let client = client(&[one, two, three], Transport::Session).await;
    let mut rows = client.list(List::default()).await.unwrap();
    let keys = vec![rows.next().await.unwrap().unwrap().0, rows.next().await.unwrap().unwrap().0];
    let first = nodes.iter().position(|node| !node.shared.lists.lock().unwrap().is_empty()).unwrap();
    nodes.swap(0, first);
    (nodes, client, rows, keys)
}

const ALL_KEYS: [&str; 6] = ["key0", "key1", "key2", "key3", "key4", "key5"];

#[tokio::test]
async fn a_list_goes_on_at_the_node_that_was_asked_to_keep_its_rows() {
    let hangs = Listed { silent_after: Some(2), indexes: true, ..Listed::default() };
    let (mut nodes, _client, mut rows, mut keys) = list_of_three(hangs).await;
    let has_kept = |node: &Node| node.shared.lists.lock().unwrap().iter().any(|asked| asked.keys_only);
    while !nodes.iter().any(has_kept) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if has_kept(&nodes[2]) {
        nodes.swap(1, 2);
    }
    let kept = nodes[1].shared.lists.lock().unwrap()[0].clone();
    assert_eq!((kept.limit, &kept.indexes[..]), (1, &[7, 9][..]));
    for node in &nodes {
        *node.shared.list.lock().unwrap() = Listed { indexes: true, ..Listed::default() };
    }
    while let Some(row) = rows.next().await {
        keys.push(row.unwrap().0);
    }
    assert_eq!(keys, ALL_KEYS);
    assert_eq!(asked_for_rows(&nodes[1]).len(), 1);
    assert!(nodes[2].shared.lists.lock().unwrap().is_empty(), "one is enough");
}

#[tokio::test]
async fn a_list_asks_every_node_before_it_says_that_its_indexes_are_gone() {
    for others_gone in [1, 2] {
        let breaks = Listed { breaks_after: Some(2), indexes: true, ..Listed::default() };
        let (nodes, _client, mut rows, mut keys) = list_of_three(breaks).await;
        *nodes[0].shared.list.lock().unwrap() = Listed { breaks_after: Some(0), ..Listed::default() };
        for (n, node) in nodes.iter().enumerate().skip(1) {
            *node.shared.list.lock().unwrap() = Listed { gone: n <= others_gone, ..Listed::default() };
        }
        let mut failure = None;
        while let Some(row) = rows.next().await {
            match row {
                Ok((key, _)) => keys.push(key),
                Err(why) => failure = Some(why),
            }
        }
        if others_gone == 1 {
            assert_eq!((keys, failure), (ALL_KEYS.map(Bytes::from).to_vec(), None));
        } else {
            let failure = failure.expect("nobody has them");
            assert_eq!(failure.code, Code::FailedPrecondition, "{failure}");
            assert!(failure.message.contains("can't be read at index 7 any more"), "{failure}");
            // One of them a second time at most, since nobody else was left.
            assert!(nodes[1..].iter().all(|node| (1..=2).contains(&asked_for_rows(node).len())));
        }
    }
}

#[tokio::test]
async fn a_list_without_indexes_is_not_gone_on_with_at_another_moment() {
    let silent = Listed { silent_after: Some(2), ..Listed::default() };
    let nodes = [(); 2].map(|()| Node::start(|_, r| Act::Reply(fine(r))));
    let [one, two] = nodes;
    let (one, two) = (one.await, two.await);
    acquaint(&[&one, &two]);
    for node in [&one, &two] {
        *node.shared.list.lock().unwrap() = silent;
    }
    let client = client(&[&one, &two], Transport::Session).await;
    let rows: Vec<_> = client.list(List::default()).await.unwrap().collect().await;
    assert_eq!(rows.len(), 3);
    let failure = rows[2].as_ref().unwrap_err();
    assert!(failure.message.contains("broke off: no answer in time"), "{failure}");
    let asked = |node: &Node| node.shared.lists.lock().unwrap().len();
    assert_eq!(asked(&one) + asked(&two), 1);
}

#[tokio::test]
async fn a_list_that_is_slow_everywhere_is_not_begun_again_and_again() {
    let one = Node::start(|_, r| Act::Reply(fine(r))).await;
    let two = Node::start(|_, r| Act::Reply(fine(r))).await;
    acquaint(&[&one, &two]);
    for node in [&one, &two] {
        node.shared.list.lock().unwrap().silent_after = Some(0);
    }
    let options = Options { timeout: Duration::from_secs(4), ..options(&[&one, &two], Transport::Session) };
    let client = Client::connect(options).await.unwrap();
    let begun = Instant::now();
    assert_eq!(client.list(List::default()).await.unwrap_err().code, Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(4200), "{:?}", begun.elapsed());
    let asked = |node: &Node| node.shared.lists.lock().unwrap().len();
    assert_eq!((asked(&one), asked(&two)), (1, 1));
}

#[tokio::test]
async fn many_keys_are_asked_of_their_leaders_and_come_back_in_order() {
    for transport in TRANSPORTS {
        let one = Node::start(|_, r| Act::Reply(fine(r))).await;
        let two = Node::start(|_, r| Act::Reply(fine(r))).await;
        acquaint(&[&one, &two]);
        let client = client(&[&one], transport).await;
        let keys: Vec<String> = (0..500).map(|n| format!("key{n}")).collect();
        let rows = client.get_many(keys.clone()).await.unwrap();
        let found: Vec<_> = rows.into_iter().map(|row| row.unwrap().value).collect();
        assert_eq!(found, keys);
        assert_eq!((one.seen(), two.seen()), (1, 1), "{transport:?}");
        let same: Vec<String> = (0..2_500).map(|n| format!("{{x}}{n}")).collect();
        assert_eq!(client.get_many(same).await.unwrap().len(), 2_500);
        assert_eq!(one.seen() + two.seen(), 2 + 3, "at most 1024 at once");
        assert_eq!(client.get_many(Vec::<String>::new()).await.unwrap(), []);
        assert_eq!(client.get_many([""]).await.unwrap_err().code, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn many_keys_fail_if_some_do() {
    let one = Node::start(|_, r| Act::Reply(fine(r))).await;
    let two = Node::start(|_, _| failed(Failure::rejected(Code::DataLoss, "damaged"))).await;
    acquaint(&[&one, &two]);
    let client = client(&[&one], Transport::Session).await;
    let (first, second) = halves();
    assert_eq!(client.get_many([first, second]).await.unwrap_err().code, Code::DataLoss);
}

#[tokio::test]
async fn a_condition_that_is_not_met_is_an_answer() {
    for transport in TRANSPORTS {
        let node = Node::start(|before, request| {
            let Request::Write { parts } = request else { return Act::Reply(fine(request)) };
            if before > 0 {
                return Act::Reply(fine(request));
            }
            let (part, key) = (parts.len() as u32 - 1, parts[parts.len() - 1].key.clone());
            Act::Reply(Reply::NotMet { part, key, revision: Some(Revision(7)), at: Index(9) })
        })
        .await;
        acquaint(&[&node]);
        let client = client(&[&node], transport).await;
        let write = Write::new().put("{x}1", "v").check("{x}2", Condition::Absent);
        let expected = NotMet { part: 1, key: "{x}2".into(), revision: Some(Revision(7)), at: Index(9) };
        assert_eq!(client.write(write).await.unwrap(), Decision::NotMet(expected), "{transport:?}");
        let done = client.put_if("k", "v", Condition::Revision(Revision(7))).await.unwrap();
        assert!(matches!(done, Decision::Done(_)));
        let done = client.delete_if("k", Condition::Value("v".into())).await.unwrap();
        assert!(matches!(done, Decision::Done(_)));
        assert_eq!(client.increment("n", -5).await.unwrap().value, -5);
        assert_eq!(node.seen(), 4);
    }
}
