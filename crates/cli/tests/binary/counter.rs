//! A counter, incremented over and over while nodes are killed in turn: each increment takes effect once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfort_client::{Client, Options, Outcome};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::{eventually, run, stdout};
use crate::trio::Trio;

/// How many are to be acknowledged at least; `RINGFORT_TEST_INCREMENTS` asks for another number.
const INCREMENTS: u64 = 2_000;
/// Nodes that are killed, at least.
const KILLS: usize = 4;

/// What became of increments.
#[derive(Default)]
struct Tally {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    over: AtomicBool,
}

/// Increments until it is over, one after the other; tries again after every error.
async fn count(addresses: Vec<String>, timeout: Duration, tally: Arc<Tally>) {
    let client =
        Client::connect(Options { timeout, ..Options::new(addresses) }).await.expect("good addresses");
    while !tally.over.load(Ordering::Relaxed) {
        match client.increment("counter", 1).await {
            Ok(_) => tally.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err(failure) if failure.outcome == Outcome::Unknown => {
                tally.unknown.fetch_add(1, Ordering::Relaxed)
            }
            Err(_) => 0,
        };
    }
}

/// Kills one node after the other, and starts each again, until there were enough of everything.
fn kill_in_turn(trio: &mut Trio, tally: &Tally) {
    let wanted =
        std::env::var("RINGFORT_TEST_INCREMENTS").map_or(INCREMENTS, |n| n.parse().expect("a number"));
    let pause = || std::thread::sleep(Duration::from_millis(700));
    for kill in 0.. {
        pause();
        if kill >= KILLS && tally.acknowledged.load(Ordering::Relaxed) >= wanted {
            break;
        }
        trio.kill(kill % 3);
        pause();
        trio.start_node(kill % 3);
    }
    tally.over.store(true, Ordering::Relaxed);
}

fn finish(runtime: &Runtime, clients: Vec<JoinHandle<()>>, trio: &Trio) -> u64 {
    for client in clients {
        runtime.block_on(client).expect("no client panics");
    }
    let mut value = String::new();
    eventually("the counter can be read", || {
        value = stdout(&run(&mut trio.command(&["get", "counter"]), b""));
        !value.is_empty()
    });
    eventually("all replicas agree", || run(&mut trio.command(&["check"]), b"").status.code() == Some(0));
    value.trim().parse().expect("a number")
}

#[test]
fn what_six_clients_were_told_of_is_in_the_counter_once() {
    let mut trio = Trio::start();
    let runtime = Runtime::new().expect("a runtime");
    let tally = Arc::new(Tally::default());
    let timeout = Duration::from_secs(2);
    let clients = (0..6).map(|_| runtime.spawn(count(trio.addresses(), timeout, tally.clone()))).collect();
    kill_in_turn(&mut trio, &tally);
    let value = finish(&runtime, clients, &trio);
    let (acknowledged, unknown) =
        (tally.acknowledged.load(Ordering::Relaxed), tally.unknown.load(Ordering::Relaxed));
    println!("{acknowledged} acknowledged, {unknown} unknown, the counter is {value}");
    assert!((acknowledged..=acknowledged + unknown).contains(&value), "{acknowledged}, {unknown}: {value}");
}

#[test]
fn a_client_that_does_not_give_up_counts_exactly() {
    let mut trio = Trio::start();
    let runtime = Runtime::new().expect("a runtime");
    let tally = Arc::new(Tally::default());
    let clients = vec![runtime.spawn(count(trio.addresses(), Duration::from_mins(1), tally.clone()))];
    kill_in_turn(&mut trio, &tally);
    let value = finish(&runtime, clients, &trio);
    println!("{} acknowledged, the counter is {value}", tally.acknowledged.load(Ordering::Relaxed));
    assert_eq!(tally.unknown.load(Ordering::Relaxed), 0);
    assert_eq!(value, tally.acknowledged.load(Ordering::Relaxed));
}
