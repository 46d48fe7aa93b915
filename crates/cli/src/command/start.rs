//! `ringfort start`: runs one node in this process.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ringfort_server::{Config, NodeFiles, StartError, Summary};
use ringfort_types::limits::HELD_READS_BYTES;
use rustix::fs::Mode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::audited::Audited;
use crate::connection::ADDRESS_DEFAULT;
use crate::json::Object;
use crate::logging::Logging;
use crate::membership::Membership;
use crate::out::Output;
use crate::runtimes::Runtimes;
use crate::signals::Signals;
use crate::sink::Sink;
use crate::stop::Stop;
use crate::text_door::TextDoor;
use crate::watched::Watched;
use crate::{duration, report, show, tolerance};

/// Most threads for sockets. With one, the node's core runs there too, which on two processors is faster than two threads that wake
/// each other.
const SOCKET_THREADS_MAX: usize = 4;
/// Where data goes if nobody says otherwise: a directory of the node's own in this one.
const DATA_DIR_DEFAULT: &str = "ringfort-data";
/// How long the last lines may take to be written, each of stdout's and stderr's.
const FLUSH_MAX: Duration = Duration::from_millis(200);
const MIB: u64 = 1024 * 1024;

/// Run a node, until Ctrl+C or SIGTERM
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort start                                a cluster of one\n  \
    ringfort start --id node1 --addr 10.0.0.1:50051 --data-dir /var/lib/ringfort \\\n      \
    --tls-cert node1.crt --tls-key node1.key --tls-ca ca.crt \\\n      \
    --peers node2=10.0.0.2:50051,node3=10.0.0.3:50051\n  \
    ringfort start --id node4 --addr 10.0.0.4:50051 --data-dir /var/lib/ringfort \\\n      \
    --tls-cert node4.crt --tls-key node4.key --tls-ca ca.crt \\\n      \
    --join 10.0.0.1:50051,10.0.0.2:50051                 one more node of that cluster\n\n\
    A new cluster is born when all of its nodes have met: start each of them with the others as --peers. Names \
    in --peers may be left out. After that, each node needs its --data-dir and the same flags to come back. With another --addr or \
    --advertise it moves, and the others follow; if they have moved, too, --peers says where they are now, by their names.\n\n\
    With --invited a new node waits until a member of a cluster is told to invite it, as clients of some other systems do (proto.KV/Join, \
    family.FamilyService/Join); its port answers all else with that it waits.\n\n\
    A node that joins is given its share of the replicas while the cluster serves; `ringfort cluster remove` takes it out again. One whose \
    disk is lost is started with a new directory, --join and --replace.\n\n\
    With --tls-cert, --tls-key and --tls-ca it speaks TLS, and nothing else, on all of its ports and with other nodes (`ringfort certs` makes such \
    files); they are read again when they change. Without them it listens on loopback only, or, with --insecure, wherever you say, though \
    whoever reaches it then can do anything.\n\n\
    When it serves, it prints one line; JSON: name, address, nodes, shards, text (null without \
    --text-addr), http (null without that port), ready_ms; with --report-every, then time, name, address, keys_estimate, members (each name and state).")]
pub(crate) struct Start {
    /// This node's name: letters, digits, `-`, `_` and `.` [default: made from the address]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Where to listen [default: where it was last; a new node at 127.0.0.1:50051]
    // By another id than the client commands' `--addr`, of which it is none.
    #[arg(id = "listen", long = "addr", value_name = "HOST:PORT")]
    addr: Option<String>,
    /// Listen on other addresses than loopback without TLS, though whoever reaches them can do anything
    #[arg(long)]
    insecure: bool,
    /// Speak TLS with this certificate, which has to name the node (PEM, with those between it and the CA's)
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// The key to it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The CA whose certificates other nodes and clients show (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// Where the other nodes and the clients find it, if that is not --addr
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where to keep data [default: ringfort-data/NAME, or ringfort-data/HOST-PORT without a name]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The other nodes of a new cluster, separated by commas; none for a cluster of one. Later, where they are now
    #[arg(long, value_name = "[NAME=]HOST:PORT,…", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(Option<String>, String)>,
    #[command(flatten)]
    membership: Membership,
    /// Copies of each key, for a new cluster; with fewer nodes, fewer [default: 3]
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Shards of a new cluster; can't be changed later [default: 64]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Rows kept in memory before they are written to tables, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memtable_mb: u64,
    /// Cache of table blocks, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    cache_mb: u64,
    /// Disk that long reads may hold for the older rows that they read, in MiB; beyond it, those that hold most are ended
    #[arg(long, value_name = "MIB", default_value_t = HELD_READS_BYTES / MIB, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    held_reads_mb: u64,
    /// Log kept for nodes that come back, in MiB; it takes up to half as much again on disk
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    log_mb: u64,
    /// Most that is sent to nodes that need whole tables, as those that join do, in MiB a second
    #[arg(long, visible_alias = "rebalance-rate", value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    snapshot_mb_per_s: u64,
    /// Threads for connections, each of which belongs to one of them [default: half the processors, at least 1, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SOCKET_THREADS_MAX as i64))]
    socket_threads: Option<u32>,
    #[command(flatten)]
    text: TextDoor,
    #[command(flatten)]
    watched: Watched,
    /// Print this node's state on stdout as often as this: its address, the time, the members, keys held
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    report_every: Option<Duration>,
    #[command(flatten)]
    audited: Audited,
    #[command(flatten)]
    logging: Logging,
    /// Stop when stdin ends: whoever holds its other end decides how long this node lives.
    #[arg(long, hide = true)]
    stop_on_stdin_eof: bool,
    #[command(flatten)]
    output: Output,
}

/// `name=host:port` or `host:port`.
fn peer(text: &str) -> Result<(Option<String>, String), String> {
    let text = text.trim();
    Ok(match text.split_once('=') {
        Some(("", _)) => {
            return Err("there is no name before the =: write NAME=HOST:PORT or HOST:PORT".into());
        }
        Some((name, address)) => (Some(name.to_owned()), address.to_owned()),
        None => (None, text.to_owned()),
    })
}

impl From<StartError> for Stop {
    fn from(error: StartError) -> Stop {
        Stop { code: error.exit_code(), message: error.to_string() }
    }
}

pub(crate) fn run(start: Start) -> Result<(), Stop> {
    // What it makes is its owner's alone: keys and values are nobody else's business.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let (out, errors) = (Sink::new(std::io::stdout()), Sink::new(std::io::stderr()));
    let levels = start.logging.begin(errors.clone());
    let threads = start.socket_threads.map_or_else(socket_threads, |threads| threads as usize);
    let runtimes = Runtimes::new(threads, "sockets")?;
    let tolerance = match start.text.tolerance_file.clone() {
        None => None,
        Some(path) => Some((tolerance::read(&path).map_err(Stop::usage)?, path)),
    };
    let how = How {
        until_eof: start.stop_on_stdin_eof,
        json: start.output.json,
        report_every: start.report_every,
        tolerance,
        out: out.clone(),
    };
    let slow_request = start.logging.slow_request();
    let config = Config { slow_request, log_levels: Some(levels), ..config(start)? };
    let ended = runtimes.block_on(serve(config, runtimes.others(), how));
    runtimes.shutdown_background();
    out.flush(FLUSH_MAX);
    errors.flush(FLUSH_MAX);
    ended
}

/// Half the processors, as the node's other threads want the rest.
fn socket_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, SOCKET_THREADS_MAX)
}

/// What is done with a node that runs.
struct How {
    until_eof: bool,
    json: bool,
    report_every: Option<Duration>,
    /// The number that is in the file now, and which file.
    tolerance: Option<(u32, PathBuf)>,
    /// For programs.
    out: Sink,
}

fn config(start: Start) -> Result<Config, Stop> {
    let tls = tls_files(&start);
    let (addr, stays) = (start.addr.as_deref().unwrap_or(ADDRESS_DEFAULT), start.addr.is_none());
    let data_dir = match start.data_dir {
        Some(directory) => directory,
        None => default_directory(start.id.as_deref().unwrap_or(addr)),
    };
    let membership = start.membership;
    membership.check(!start.peers.is_empty())?;
    Ok(Config {
        name: start.id,
        text: start.text.config()?,
        http: start.watched.http(),
        audit: start.audited.config()?,
        insecure: start.insecure,
        tls,
        advertise: start.advertise,
        // `--peers ""` is how scripts say that there are none.
        peers: start.peers.into_iter().filter(|peer| *peer != (None, String::new())).collect(),
        join: membership.join.into_iter().filter(|member| !member.is_empty()).collect(),
        invited: membership.invited,
        replace: membership.replace,
        zone: membership.zone.unwrap_or_default(),
        weight: membership.weight,
        replace_after: membership.replace_after,
        shards: start.shards,
        replicas: start.replicas,
        memtable_bytes: start.memtable_mb * MIB,
        held_reads_bytes: start.held_reads_mb * MIB,
        cache_bytes: start.cache_mb * MIB,
        log_bytes: start.log_mb * MIB,
        snapshot_bytes_per_s: start.snapshot_mb_per_s * MIB,
        stays,
        ..Config::new(addr, data_dir)
    })
}

/// The files of TLS, of which there are all or none.
fn tls_files(start: &Start) -> Option<NodeFiles> {
    let (cert, key, ca) = (start.tls_cert.clone()?, start.tls_key.clone()?, start.tls_ca.clone()?);
    Some(NodeFiles { cert, key, ca })
}

/// A node's own place under the common one.
fn default_directory(name: &str) -> PathBuf {
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    Path::new(DATA_DIR_DEFAULT).join(clean)
}

async fn serve(config: Config, others: Vec<Handle>, how: How) -> Result<(), Stop> {
    let How { until_eof, json, report_every, tolerance, out } = how;
    let mut signals = Signals::new()?;
    let reopens = if config.audit.is_some() { signals.take_hang_up() } else { None };
    let eof = stdin_eof(until_eof);
    tokio::pin!(eof);
    // A node that can't join yet waits.
    let mut running = tokio::select! {
        running = ringfort_server::start_on(config, others) => running?,
        _ = signals.next() => return Ok(()),
        () = &mut eof => return Ok(()),
    };
    if let Some((number, path)) = tolerance {
        let set = running.tolerance_setter();
        set(number);
        tokio::spawn(async move {
            let complain = |why: &str| tracing::warn!("{why}; the last good number stays in force");
            tolerance::follow(&path, number, set, complain).await;
        });
    }
    if let Some(mut asked) = reopens {
        let reopen = running.audit_reopener();
        tokio::spawn(async move {
            while asked.recv().await.is_some() {
                reopen();
            }
        });
    }
    let served = tokio::select! {
        summary = running.serving() => Some(summary?),
        _ = signals.next() => None,
        () = &mut eof => None,
    };
    if let Some(summary) = served {
        announce(&summary, json, &out);
        // Ends with this block.
        let mut reporting = JoinSet::new();
        if let Some(every) = report_every {
            reporting.spawn(report::print(every, running.observer(), out, json));
        }
        tokio::select! {
            error = running.failed() => return Err(error.into()),
            _ = signals.next() => {}
            () = &mut eof => {}
        }
    }
    tracing::warn!("stopping: what this node leads goes to others; asked again, it ends at once");
    tokio::select! {
        stopped = running.stop() => Ok(stopped?),
        // Whoever asks twice wants it now. That is safe: it is what a crash does.
        _ = signals.next() => Err(Stop::unavailable("ended at once, without handing leaderships over")),
    }
}

/// The one line that says it serves.
fn announce(summary: &Summary, json: bool, out: &Sink) {
    if json {
        let line = Object::new()
            .field("name", &summary.name)
            .field("address", &summary.address)
            .field("nodes", summary.nodes)
            .field("shards", summary.shards)
            .field("text", summary.text.map(|text| text.to_string()))
            .field("http", summary.http.map(|http| http.to_string()))
            .field("ready_ms", summary.took.as_millis() as u64);
        out.line(line.finish());
        return;
    }
    let text = summary.text.map(|text| format!(", text on {text}")).unwrap_or_default();
    let http = summary.http.map(|http| format!(", HTTP on {http}")).unwrap_or_default();
    out.line(format!(
        "{} serves on {}{text}{http}: {}, {}, ready in {}",
        summary.name,
        summary.address,
        show::count(summary.nodes as u64, "node", "nodes"),
        show::count(summary.shards.into(), "shard", "shards"),
        show::span(summary.took),
    ));
}

/// Resolves when stdin ends, if that is wanted; else never.
async fn stdin_eof(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (tell, told) = oneshot::channel();
    // A thread of its own, not one of the runtime's: it may well read until the process ends.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut nothing = [0; 64];
        while stdin.read(&mut nothing).is_ok_and(|count| count > 0) {}
        let _ = tell.send(());
    });
    let _ = told.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_with_and_without_names() {
        assert_eq!(peer("node2=10.0.0.2:50051"), Ok((Some("node2".into()), "10.0.0.2:50051".into())));
        assert_eq!(peer(" 10.0.0.2:50051"), Ok((None, "10.0.0.2:50051".into())));
        assert!(peer("=10.0.0.2:50051").is_err());
    }
}
