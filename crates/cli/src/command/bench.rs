//! `ringfort bench`: a closed loop of requests against a cluster, and what it makes of them.
//!
//! So many tasks as requests are to be in flight, spread over the clients; each sends its next request when its
//! last one is answered. A latency is what the caller sees: from asking to having the answer, retries included.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use ringfort_client::{Client, Condition, Decision, Options, Transport};
use ringfort_types::limits::VALUE_BYTES_MAX;
use ringfort_types::{Code, Failure};
use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::{Connect, runtime};
use crate::out::{self, Output};
use crate::progress::Progress;
use crate::reading::Reading;
use crate::show;
use crate::stop::Stop;

/// Each client has connections of its own to all nodes.
const CLIENTS_MAX: u32 = 256;
const IN_FLIGHT_MAX: u32 = 64 * 1024;
/// Values are cut from one block of noise at any place, so that they neither compress nor cost anything to make.
const NOISE_BYTES: usize = 1024 * 1024;
/// Requests in flight while keys are loaded for reading.
const LOADING: u32 = 256;
const KEY_BYTES: u64 = 16;
/// Pause of a task whose request failed, lest a cluster that is down is asked in a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// Measure puts and gets per second, and how long they take
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  ringfort bench --workload put --in-flight 256\n  \
    ringfort bench --workload get --transport unary --clients 8 --in-flight 64 --seconds 30\n  \
    ringfort bench --workload get --consistency stale --reads-from replicas\n  \
    ringfort bench --workload put --clients 1 --in-flight 1 --json\n\n\
    Keys are 16 bytes, chosen evenly; gets and conditions find all of them, since they are loaded first. The report names \
    --consistency and --reads-from (of gets) and --at-most-once (of puts), if they are not the defaults.")]
pub(crate) struct Bench {
    /// What to do
    #[arg(long, value_enum, default_value_t = Workload::Put)]
    workload: Workload,
    /// How requests travel: many on one stream a node, or a gRPC call each
    #[arg(long, value_enum, default_value_t = Travel::Session)]
    transport: Travel,
    /// Don't number writes: one that may have been done is not sent again, and counts as an error
    #[arg(long)]
    at_most_once: bool,
    /// Independent clients, each with its own connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,
    /// Requests in flight, over all clients
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    /// How many different keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Bytes in a value
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=VALUE_BYTES_MAX as i64))]
    value_size: u32,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Don't load the keys before reading: an earlier run has
    #[arg(long)]
    skip_load: bool,
    /// Threads for the load; servers may share the machine
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Only puts
    Put,
    /// Puts under a condition that holds
    PutIf,
    /// Only gets
    Get,
    /// Half of puts, half of gets
    Mixed,
}

impl Workload {
    /// Whether some of it are gets.
    fn reads(self) -> bool {
        matches!(self, Workload::Get | Workload::Mixed)
    }

    /// Whether some of it are puts.
    fn writes(self) -> bool {
        self != Workload::Get
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Travel {
    Session,
    Unary,
}

pub(crate) fn run(bench: &Bench) -> Result<(), Stop> {
    let mut options = bench.connect.options();
    options.transport = match bench.transport {
        Travel::Session => Transport::Session,
        Travel::Unary => Transport::Unary,
    };
    options.exactly_once = !bench.at_most_once;
    bench.reading.apply(&mut options);
    options.in_flight_max = bench.in_flight as usize;
    let runtime = runtime(bench.threads as usize)?;
    let done = runtime.block_on(measure(bench, options));
    runtime.shutdown_background();
    report(bench, &done?)
}

/// What came of it.
#[derive(Debug)]
struct Measured {
    time: Duration,
    /// Requests answered.
    done: u64,
    errors: u64,
    /// The first error.
    failure: Option<Failure>,
    /// In microseconds, of requests answered.
    latency: Histogram<u64>,
}

async fn measure(bench: &Bench, options: Options) -> Result<Measured, Stop> {
    let mut clients = Vec::new();
    for _ in 0..bench.clients.min(bench.in_flight) {
        clients.push(Client::connect(options.clone()).await?);
    }
    // A first answer, so that a cluster that is not there fails here and not in numbers.
    clients[0].cluster_state().await?;
    let load = Arc::new(Load::new(bench.workload, bench.keys, bench.value_size as usize));
    if bench.workload != Workload::Put && !bench.skip_load {
        fill(bench, &options, &load).await?;
    }
    let tally = Arc::new(Tally::new(clients.len()));
    let begun = Instant::now();
    let until = begun + Duration::from_secs(bench.seconds);
    let mut tasks = JoinSet::new();
    for task in 0..bench.in_flight as usize {
        let part = task % clients.len();
        tasks.spawn(work(clients[part].clone(), load.clone(), tally.clone(), part, Dice(task as u64), until));
    }
    watch(&tally, begun, bench.seconds).await;
    while tasks.join_next().await.is_some() {}
    let time = begun.elapsed();
    Ok(tally.measured(time))
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
            let errors = tally.errors.load(Ordering::Relaxed);
            let _ = write!(std::io::stderr(), "\r\x1b[K{second:>4} s  {rate:>9} ops/s  {errors} errors");
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
            Workload::Get | Workload::Mixed => client.get(key).await.map(drop),
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

/// Puts every key once.
async fn fill(bench: &Bench, options: &Options, load: &Arc<Load>) -> Result<(), Stop> {
    let client = Client::connect(Options { in_flight_max: LOADING as usize, ..options.clone() }).await?;
    let progress = Progress::new(None);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..u64::from(LOADING) {
        let (client, load, next) = (client.clone(), load.clone(), next.clone());
        tasks.spawn(async move {
            let mut dice = Dice(task);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.keys {
                    return Ok(());
                }
                client.put(key(number), load.value(&mut dice)).await?;
            }
        });
    }
    loop {
        match tokio::time::timeout(Duration::from_millis(200), tasks.join_next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(filled))) => filled.map_err(|failure: Failure| {
                let stop = Stop::from(failure);
                Stop { message: format!("can't load the keys: {}", stop.message), ..stop }
            })?,
            Ok(Some(Err(_))) => return Err(Stop::unavailable("loading the keys broke down")),
            Err(_) => {
                let rows = next.load(Ordering::Relaxed).min(bench.keys);
                progress.set(rows * (KEY_BYTES + u64::from(bench.value_size)), rows);
            }
        }
    }
}

/// What is asked for.
#[derive(Debug)]
struct Load {
    workload: Workload,
    keys: u64,
    value_bytes: usize,
    noise: Bytes,
}

impl Load {
    fn new(workload: Workload, keys: u64, value_bytes: usize) -> Load {
        let mut dice = Dice(1);
        let mut noise = BytesMut::new();
        while noise.len() < NOISE_BYTES + value_bytes {
            noise.put_u64_le(dice.roll());
        }
        Load { workload, keys, value_bytes, noise: noise.freeze() }
    }

    fn value(&self, dice: &mut Dice) -> Bytes {
        let from = (dice.roll() as usize) % NOISE_BYTES;
        self.noise.slice(from..from + self.value_bytes)
    }
}

/// 16 bytes: `key-` and twelve digits.
fn key(number: u64) -> Bytes {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    Bytes::copy_from_slice(&key)
}

/// `SplitMix64`: even enough, and the same in every run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Counts, as they grow.
#[derive(Debug)]
struct Tally {
    done: AtomicU64,
    errors: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// One a client, so that tasks rarely wait for each other.
    latency: Vec<Mutex<Histogram<u64>>>,
}

impl Tally {
    fn new(parts: usize) -> Tally {
        Tally {
            done: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failure: Mutex::new(None),
            latency: (0..parts).map(|_| Mutex::new(histogram())).collect(),
        }
    }

    fn answered(&self, part: usize, time: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut latency = self.latency[part].lock().expect("recording does not panic");
        latency.saturating_record(time.as_micros() as u64);
    }

    fn failed(&self, failure: Failure) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.failure.lock().expect("nothing panics here").get_or_insert(failure);
    }

    fn measured(&self, time: Duration) -> Measured {
        let mut latency = histogram();
        for part in &self.latency {
            let part = part.lock().expect("recording does not panic");
            latency.add(&*part).expect("all histograms have the same bounds");
        }
        Measured {
            time,
            done: self.done.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            failure: self.failure.lock().expect("nothing panics here").clone(),
            latency,
        }
    }
}

/// Microseconds to a day, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 24 * 3600 * 1_000_000, 3).expect("these bounds are allowed")
}

fn report(bench: &Bench, measured: &Measured) -> Result<(), Stop> {
    let rate = measured.done as f64 / measured.time.as_secs_f64();
    let at = |quantile: f64| measured.latency.value_at_quantile(quantile);
    let max = measured.latency.max();
    let unusual = unusual(bench);
    let text = if bench.output.json {
        let mut object = json!({
            "workload": name(&bench.workload),
            "transport": name(&bench.transport),
            "clients": bench.clients.min(bench.in_flight),
            "in_flight": bench.in_flight,
            "keys": bench.keys,
            "value_size": bench.value_size,
            "seconds": measured.time.as_secs_f64(),
            "ops": measured.done,
            "errors": measured.errors,
            "ops_per_sec": rate.round(),
            "latency_us": { "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": max },
        });
        for Unusual { field, value, .. } in unusual {
            object[field] = value;
        }
        object.to_string()
    } else {
        let latency = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
        let unusual = unusual.into_iter().fold(String::new(), |all, one| all + ", " + &one.words);
        format!(
            "{} over {}{unusual}: {}, {} in flight, {} keys, values of {} B, {:.1} s\n\
             {} ops/s   p50 {}   p99 {}   p99.9 {}   max {}   errors {}",
            name(&bench.workload),
            name(&bench.transport),
            show::count(bench.clients.min(bench.in_flight).into(), "client", "clients"),
            bench.in_flight,
            show::grouped(bench.keys),
            bench.value_size,
            measured.time.as_secs_f64(),
            show::grouped(rate as u64),
            latency(at(0.5)),
            latency(at(0.99)),
            latency(at(0.999)),
            latency(max),
            measured.errors
        )
    };
    out::line(text)?;
    match &measured.failure {
        Some(failure) if measured.done == 0 => Err(failure.clone().into()),
        Some(failure) => {
            let _ = writeln!(std::io::stderr(), "ringfort: the first error was: {failure}");
            Ok(())
        }
        None => Ok(()),
    }
}

/// A choice that is not the default: its name and value in JSON, and how people say it.
#[derive(Debug)]
struct Unusual {
    field: &'static str,
    value: serde_json::Value,
    words: String,
}

/// What the numbers may owe to choices that matter to this workload.
fn unusual(bench: &Bench) -> Vec<Unusual> {
    let mut all = Vec::new();
    if bench.workload.reads() {
        if let Some(kind) = bench.reading.unusual_kind() {
            all.push(Unusual { field: "consistency", value: kind.into(), words: format!("{kind} reads") });
        }
        if let Some(source) = bench.reading.unusual_source() {
            let words = format!("reads from {source}");
            all.push(Unusual { field: "reads_from", value: source.into(), words });
        }
    }
    if bench.workload.writes() && bench.at_most_once {
        let words = "writes at most once".to_owned();
        all.push(Unusual { field: "at_most_once", value: true.into(), words });
    }
    all
}

/// What a choice is called on the command line.
fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_bytes_and_values_their_size() {
        let load = Load::new(Workload::Mixed, 10, 100);
        assert_eq!(key(99_999), Bytes::from_static(b"key-000000099999"));
        let mut dice = Dice(7);
        for _ in 0..1000 {
            assert_eq!(load.value(&mut dice).len(), 100);
        }
    }

    #[test]
    fn parts_add_up() {
        let tally = Tally::new(2);
        for micros in 1..=1000 {
            tally.answered(usize::from(micros % 2 == 0), Duration::from_micros(micros));
        }
        tally.failed(Failure::unknown(ringfort_types::Code::Unavailable, "first"));
        tally.failed(Failure::unknown(ringfort_types::Code::Unavailable, "second"));
        let measured = tally.measured(Duration::from_secs(1));
        assert_eq!((measured.done, measured.errors, measured.latency.len()), (1000, 2, 1000));
        assert_eq!(measured.latency.value_at_quantile(0.5), 500);
        assert_eq!(measured.failure.map(|failure| failure.message), Some("first".into()));
    }

    #[test]
    fn dice_are_even_enough() {
        let mut dice = Dice(0);
        let mut hits = [0u32; 16];
        for _ in 0..16_000 {
            hits[(dice.roll() % 16) as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (800..1200).contains(hits)), "{hits:?}");
    }
}
