//! Rolling restarts: each node is asked to stop, in turn, while clients write that never try a write again whose fate is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringfort_proto::status::to_failure;
use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::v1::session_op::Request as OpRequest;
use ringfort_proto::v1::session_result::Result as OpResult;
use ringfort_types::Outcome;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::support::{eventually, ringfort, stdout};
use crate::trio::Trio;

const WRITERS: usize = 64;
const COUNTERS: usize = 16;

/// What clients were told.
#[derive(Default)]
struct Told {
    over: AtomicBool,
    acknowledged: AtomicU64,
    added: AtomicU64,
    /// Turned away, and tried elsewhere.
    refused: AtomicU64,
    /// Why a write's fate was not known.
    doubts: std::sync::Mutex<Vec<String>>,
}

#[derive(Clone)]
enum Write {
    Put(v1::PutRequest),
    Add(v1::IncrementRequest),
}

/// One client, of no library's: it asks one node after the other.
struct Client {
    told: Arc<Told>,
    nodes: Vec<KvClient<Channel>>,
    at: usize,
}

impl Client {
    /// Writes until it is done, and gives up only where the fate is not known.
    async fn write(&mut self, write: Write) -> bool {
        loop {
            let node = &mut self.nodes[self.at];
            let answered = match write.clone() {
                Write::Put(put) => node.put(put).await.map(drop),
                Write::Add(add) => node.increment(add).await.map(drop),
            };
            let Err(status) = answered else { return true };
            self.at = (self.at + 1) % self.nodes.len();
            if to_failure(&status).outcome == Outcome::Unknown {
                self.told.doubts.lock().expect("nobody panics with it").push(format!("{status:?}"));
                return false;
            }
            self.told.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn put(mut self, writer: usize) {
        for number in 0_u64.. {
            if self.told.over.load(Ordering::Relaxed) {
                return;
            }
            let (key, value) = (format!("{writer}-{number}").into(), number.to_string().into());
            let put = v1::PutRequest { key, value, ..v1::PutRequest::default() };
            if self.write(Write::Put(put)).await {
                self.told.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn count(mut self, counter: usize) {
        while !self.told.over.load(Ordering::Relaxed) {
            let key = format!("counter{counter}").into();
            let add = v1::IncrementRequest { key, by: 1, ..v1::IncrementRequest::default() };
            if self.write(Write::Add(add)).await {
                self.told.added.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn nodes(trio: &Trio) -> Vec<KvClient<Channel>> {
    let node =
        |address| Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    trio.addresses().into_iter().map(|address| KvClient::new(node(address))).collect()
}

/// Asks the node to stop, waits for its end, and starts it again.
pub(crate) fn restart(trio: &mut Trio, node: usize) {
    trio.terminate(node);
    trio.start_node(node);
    let address = trio.address(node);
    eventually("it serves again, and knows all leaders", || {
        let asked = ["health", "--addr", &address, "--service", "ringfort.v1.KV"];
        ringfort(&asked).output().expect("runs").status.success()
    });
}

#[test]
fn a_restart_of_each_node_in_turn_leaves_no_write_in_doubt() {
    restarts_leave_no_write_in_doubt(Trio::start());
}

#[test]
fn a_restart_of_each_node_with_several_socket_threads_leaves_no_write_in_doubt() {
    let threads = |_| ["--socket-threads", "3"].map(str::to_owned).to_vec();
    restarts_leave_no_write_in_doubt(Trio::start_with(threads));
}

fn restarts_leave_no_write_in_doubt(mut trio: Trio) {
    let restarts = std::env::var("RINGFORT_TEST_RESTARTS").map_or(4, |text| text.parse().expect("a number"));
    under_load(&mut trio, |trio| (0..restarts).for_each(|number| restart(trio, number % 3)));
}

/// Clients write while this is done: none of their writes is left in doubt, and each increment takes effect once.
pub(crate) fn under_load(trio: &mut Trio, mut act: impl FnMut(&mut Trio)) {
    let told = Arc::<Told>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut clients = tokio::task::JoinSet::new();
    {
        let _in_it = runtime.enter();
        for writer in 0..WRITERS {
            let client = Client { told: told.clone(), nodes: nodes(trio), at: writer % 3 };
            clients.spawn(client.put(writer));
        }
        for counter in 0..COUNTERS {
            let client = Client { told: told.clone(), nodes: nodes(trio), at: counter % 3 };
            clients.spawn(client.count(counter));
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    act(trio);
    told.over.store(true, Ordering::Relaxed);
    runtime.block_on(clients.join_all());
    let (acknowledged, added) =
        (told.acknowledged.load(Ordering::Relaxed), told.added.load(Ordering::Relaxed));
    let refused = told.refused.load(Ordering::Relaxed);
    let doubts = told.doubts.lock().expect("nobody panics with it");
    println!(
        "{acknowledged} writes and {added} increments, {refused} turned away, {} in doubt",
        doubts.len()
    );
    assert!(doubts.is_empty(), "{doubts:#?}");
    let sums = (0..COUNTERS).map(|counter| {
        let output = trio.command(&["get", "--raw", &format!("counter{counter}")]).output().expect("runs");
        stdout(&output).parse::<u64>().expect("a number")
    });
    assert_eq!(sums.sum::<u64>(), added, "each took effect once");
    assert!(acknowledged > 1_000);
}

/// What became of the requests of a session whose node was asked to stop.
#[derive(Debug, Default)]
struct Session {
    sent: u64,
    /// With whether it was done, and whether it surely was not.
    answered: BTreeMap<u64, (bool, bool)>,
}

/// Sends frames of so many puts one after another until the session ends; then how, and what was answered.
async fn talk(node: &str, tag: &str, frame: u64, pause: Duration) -> (Session, Option<tonic::Status>) {
    let endpoint = Endpoint::from_shared(format!("http://{node}")).expect("an address");
    let mut client = KvClient::new(endpoint.connect().await.expect("it listens"));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let tag = tag.to_owned();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        loop {
            let put = |id: u64| {
                let (key, value) = (format!("{tag}{id}").into(), "v".into());
                let put = v1::PutRequest { key, value, ..v1::PutRequest::default() };
                v1::SessionOp { id, timeout_ms: 10_000, request: Some(OpRequest::Put(put)) }
            };
            let ops: Vec<_> = (sent + 1..=sent + frame).map(put).collect();
            if sender.send(v1::SessionRequest::from(ops)).await.is_err() {
                return sent;
            }
            sent += frame;
            tokio::time::sleep(pause).await;
        }
    });
    let mut session = Session::default();
    let mut answers = client.session(ReceiverStream::new(receiver)).await.expect("it opens").into_inner();
    let ended = loop {
        match answers.message().await {
            Ok(Some(frame)) => session.answered.extend(frame.results.into_iter().map(|told| {
                let what = match told.result.expect("one") {
                    OpResult::Error(error) => (false, error.outcome() == v1::Outcome::Rejected),
                    _ => (true, false),
                };
                (told.id, what)
            })),
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    drop(answers);
    session.sent = sending.await.expect("it ends with the stream");
    (session, ended)
}

#[test]
fn a_session_that_ends_with_its_node_leaves_no_request_without_an_outcome() {
    let mut trio = Trio::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let rounds = std::env::var("RINGFORT_TEST_RESTARTS").map_or(4, |text| text.parse().expect("a number"));
    for round in 0..rounds {
        let node = round % 3;
        let (address, tag) = (trio.address(node), format!("{round}-"));
        let (frame, pause_ms) = [(1, 0), (20, 2), (200, 5)][round % 3];
        let pause = Duration::from_millis(pause_ms);
        let talking = runtime.spawn({
            let (address, tag) = (address.clone(), tag.clone());
            async move { talk(&address, &tag, frame, pause).await }
        });
        std::thread::sleep(Duration::from_millis(500));
        trio.terminate(node);
        let (session, ended) = runtime.block_on(talking).expect("it does not panic");
        let status = ended.expect("it does not end well while something is not answered");
        let (unanswered, rejected): (Vec<u64>, Vec<u64>) = (
            (1..=session.sent).filter(|id| !session.answered.contains_key(id)).collect(),
            session.answered.iter().filter(|(_, (_, is_rejected))| *is_rejected).map(|(id, _)| *id).collect(),
        );
        let done = session.answered.values().filter(|(done, _)| *done).count();
        println!(
            "round {round}: {} sent, {done} done, {} rejected, {} in doubt, {} unanswered, {status:?}",
            session.sent,
            rejected.len(),
            session.answered.len() - done - rejected.len(),
            unanswered.len()
        );
        assert!(done > 0);
        let failure = to_failure(&status);
        assert_eq!(failure.outcome, Outcome::Rejected, "{status:?}");
        assert!(failure.message.contains("is stopping"), "{status:?}");
        assert_eq!(done + rejected.len(), session.answered.len(), "whatever was taken is answered");
        let client = runtime.block_on(ringfort_client::Client::connect(ringfort_client::Options::new(vec![
            trio.address((node + 1) % 3),
        ])));
        let keys = unanswered.iter().chain(&rejected).map(|id| format!("{tag}{id}"));
        let rows = runtime.block_on(client.expect("it connects").get_many(keys)).expect("read");
        assert!(rows.iter().all(Option::is_none), "what is said not to have been taken was done");
        trio.start_node(node);
        eventually("it serves again", || {
            let asked = ["health", "--addr", &address, "--service", "ringfort.v1.KV"];
            ringfort(&asked).output().expect("runs").status.success()
        });
    }
}
