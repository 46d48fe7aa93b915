//! `ringfort bench`: a closed loop of requests against a cluster, and what it makes of them.
//!
//! So many tasks as requests are to be in flight, spread over the clients; each sends its next request when its
//! last one is answered. A latency is what the caller sees: from asking to having the answer, retries included.

mod flags;
mod keys;
mod load;
mod report;
mod tally;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_client::{Client, Condition, Decision, List, Options, Transport};
use ringfort_types::{Code, Failure};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use crate::runtimes::Runtimes;
use crate::show;
use crate::signals::Signals;
use crate::stop::Stop;
use flags::{Travel, Workload};
use keys::{Each, with_every_key};
use load::{Dice, KEY_PREFIX, Load, key};
use report::report;
use tally::Tally;

pub(crate) use flags::Bench;

/// Pause of a task whose request failed, lest a cluster that is down is asked in a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn run(bench: &Bench) -> Result<(), Stop> {
    if bench.clients > bench.in_flight {
        return Err(Stop::usage(format!(
            "--clients {} with --in-flight {}: each client has a request under way at least; raise --in-flight or lower --clients",
            bench.clients, bench.in_flight
        )));
    }
    if bench.threads > bench.clients {
        return Err(Stop::usage(format!(
            "--threads {} with --clients {}: a client's connections are all on one thread; raise --clients or lower --threads",
            bench.threads, bench.clients
        )));
    }
    let mut options = bench.connect.options()?;
    options.transport = match bench.transport {
        Travel::Session => Transport::Session,
        Travel::Unary => Transport::Unary,
    };
    options.exactly_once = !bench.at_most_once;
    bench.reading.apply(&mut options);
    options.in_flight_max = bench.in_flight as usize;
    let runtimes = Runtimes::new(bench.threads as usize, "ringfort-io")?;
    let done = runtimes.block_on(measure_and_clean(bench, &options, &runtimes.all()));
    runtimes.shutdown_background();
    done
}

/// The figures are out before the keys are deleted, which may fail; an early end deletes them, too.
async fn measure_and_clean(bench: &Bench, options: &Options, runtimes: &[Handle]) -> Result<(), Stop> {
    let mut signals = Signals::new()?;
    let clients = connect(bench, options, runtimes).await?;
    let load = Arc::new(Load::new(bench.workload, bench.keys, bench.value_size as usize));
    let measured = load_and_measure(bench, options, &load, &clients, &mut signals).await;
    if bench.clean {
        tokio::select! {
            deleted = with_every_key(Each::Delete, options, &load) => deleted?,
            _ = signals.next() => return Err(Stop::unavailable(
                "interrupted while keys are deleted: the same command once more, with --seconds 1, deletes the rest",
            )),
        }
    }
    measured
}

async fn connect(bench: &Bench, options: &Options, runtimes: &[Handle]) -> Result<Vec<Own>, Stop> {
    let mut clients = Vec::new();
    for runtime in runtimes.iter().cycle().take(bench.clients as usize) {
        let connecting = runtime.spawn(Client::connect(options.clone()));
        let client = connecting.await.map_err(|_| Stop::unavailable("the connecting broke down"))??;
        clients.push(Own { client, runtime: runtime.clone() });
    }
    // A first answer, so that a cluster that is not there fails here and not in numbers.
    let first = &clients[0].client;
    first.cluster_state().await?;
    if bench.workload != Workload::Put && bench.skip_load {
        some_row_is_there(first).await?;
    }
    Ok(clients)
}

/// A client, and the runtime that it belongs to with its connections and all tasks that use it.
struct Own {
    client: Client,
    runtime: Handle,
}

/// Reports what was measured, also if a signal ended it early.
async fn load_and_measure(
    bench: &Bench,
    options: &Options,
    load: &Arc<Load>,
    clients: &[Own],
    signals: &mut Signals,
) -> Result<(), Stop> {
    if bench.workload != Workload::Put && !bench.skip_load {
        tokio::select! {
            loaded = with_every_key(Each::Load, options, load) => loaded?,
            signal = signals.next() => return Err(signal.stop()),
        }
    }
    let tally = Arc::new(Tally::new(clients.len()));
    let begun = Instant::now();
    let until = begun + Duration::from_secs(bench.seconds);
    let mut tasks = JoinSet::new();
    for task in 0..bench.in_flight as usize {
        let part = task % clients.len();
        let Own { client, runtime } = &clients[part];
        let work = work(client.clone(), load.clone(), tally.clone(), part, Dice(task as u64), until);
        tasks.spawn_on(work, runtime);
    }
    let whole = async {
        watch(&tally, begun, bench.seconds).await;
        while tasks.join_next().await.is_some() {}
    };
    let signal = tokio::select! {
        () = whole => None,
        signal = signals.next() => Some(signal),
    };
    tasks.shutdown().await;
    report(bench, &tally.measured(begun.elapsed()))?;
    signal.map_or(Ok(()), |signal| Err(signal.stop()))
}

/// Refuses to measure reads of nothing.
async fn some_row_is_there(client: &Client) -> Result<(), Stop> {
    let any = List { prefix: Bytes::from_static(KEY_PREFIX), limit: 1, keys_only: true, ..List::default() };
    match client.list(any).await?.next().await {
        Some(Ok(_)) => Ok(()),
        Some(Err(failure)) => Err(failure.into()),
        None => Err(Stop::usage(
            "--skip-load, but no run has left keys here: leave it out, and they are loaded first",
        )),
    }
}

/// A live line on a terminal, each second, until the end.
async fn watch(tally: &Tally, begun: Instant, seconds: u64) {
    let live = std::io::stderr().is_terminal();
    let mut last = 0;
    for second in 1..=seconds {
        tokio::time::sleep_until((begun + Duration::from_secs(second)).into()).await;
        let done = tally.done.load(Ordering::Relaxed);
        if live {
            let rate = show::grouped(done - last);
            let errors = show::count(tally.errors.load(Ordering::Relaxed), "error", "errors");
            let _ = write!(std::io::stderr(), "\r\x1b[K{second:>4} s  {rate:>9} ops/s  {errors}");
        }
        last = done;
    }
    if live {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

/// One task: a request at a time, until it is over.
async fn work(
    client: Client,
    load: Arc<Load>,
    tally: Arc<Tally>,
    part: usize,
    mut dice: Dice,
    until: Instant,
) {
    let mut begun = Instant::now();
    while begun < until {
        let key = key(dice.roll() % load.keys);
        let done = match load.workload {
            Workload::Put => client.put(key, load.value(&mut dice)).await.map(drop),
            Workload::PutIf => put_if(&client, key, load.value(&mut dice)).await,
            Workload::Mixed if dice.roll().is_multiple_of(2) => {
                client.put(key, load.value(&mut dice)).await.map(drop)
            }
            Workload::Get | Workload::Mixed => client.get(key).await.map(|row| {
                if row.is_none() {
                    tally.missing.fetch_add(1, Ordering::Relaxed);
                }
            }),
        };
        let now = Instant::now();
        if let Err(failure) = done {
            tally.failed(failure);
            tokio::time::sleep(PAUSE).await;
            begun = Instant::now();
        } else {
            tally.answered(part, now - begun);
            begun = now;
        }
    }
}

/// Puts a key that is there, which is its condition.
async fn put_if(client: &Client, key: Bytes, value: Bytes) -> Result<(), Failure> {
    match client.put_if(key, value, Condition::Present).await? {
        Decision::Done(_) => Ok(()),
        Decision::NotMet(_) => {
            let why = "a key to be put under a condition is not there: leave --skip-load out";
            Err(Failure::rejected(Code::FailedPrecondition, why))
        }
    }
}
