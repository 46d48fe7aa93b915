//! `ringfort start`: runs one node in this process.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ringfort_server::{Config, StartError, Summary};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::connection::ADDRESS_DEFAULT;
use crate::json::Object;
use crate::out::{self, Output};
use crate::show;
use crate::signals::Signals;
use crate::stop::Stop;

/// Threads for sockets: half the processors, as the node's other threads want the rest. With one, the node's core
/// runs there too, which on two processors is faster than two threads that wake each other.
const SOCKET_THREADS_MAX: usize = 4;
/// Where data goes if nobody says otherwise: a directory of the node's own in this one.
const DATA_DIR_DEFAULT: &str = "ringfort-data";
const MIB: u64 = 1024 * 1024;

/// Run a node, until Ctrl+C or SIGTERM
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort start                                a cluster of one\n  \
    ringfort start --id node1 --addr 10.0.0.1:50051 --data-dir /var/lib/ringfort \\\n      \
    --peers node2=10.0.0.2:50051,node3=10.0.0.3:50051\n\n\
    A new cluster is born when all of its nodes have met: start each of them with the others as --peers. Names \
    in --peers may be left out. After that, each node needs its --data-dir and the same flags to come back.\n\n\
    When it serves, it prints one line; JSON: name, address, nodes, shards, ready_ms.")]
pub(crate) struct Start {
    /// This node's name: letters, digits, `-`, `_` and `.` [default: made from the address]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Where to listen
    // By another id than the client commands' `--addr`, of which it is none.
    #[arg(id = "listen", long = "addr", value_name = "HOST:PORT", default_value = ADDRESS_DEFAULT)]
    addr: String,
    /// Where the other nodes and the clients find it, if that is not --addr
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where to keep data [default: ringfort-data/NAME, or ringfort-data/HOST-PORT without a name]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The other nodes of a new cluster, separated by commas; none for a cluster of one
    #[arg(long, value_name = "[NAME=]HOST:PORT,…", value_delimiter = ',', value_parser = peer)]
    peers: Vec<(Option<String>, String)>,
    /// Copies of each key, for a new cluster; with fewer nodes, fewer
    #[arg(long, value_name = "N", default_value_t = 3)]
    replicas: u32,
    /// Shards of a new cluster; can't be changed later
    #[arg(long, value_name = "N", default_value_t = 64)]
    shards: u32,
    /// Rows kept in memory before they are written to tables, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memtable_mb: u64,
    /// Cache of table blocks, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    cache_mb: u64,
    /// Log kept for nodes that come back, in MiB; it takes up to half as much again on disk
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    log_mb: u64,
    /// Most that is sent to nodes that need whole tables, in MiB a second
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    snapshot_mb_per_s: u64,
    /// What to tell on stderr
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = ["error", "warn", "info", "debug", "trace"])]
    log_level: String,
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
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&start.log_level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(1, SOCKET_THREADS_MAX))
        .thread_name("sockets")
        .enable_all()
        .build()
        .map_err(|error| Stop::unavailable(format!("can't start threads: {error}")))?;
    let (until_eof, json) = (start.stop_on_stdin_eof, start.output.json);
    let config = config(start);
    let ended = runtime.block_on(serve(config, until_eof, json));
    runtime.shutdown_background();
    ended
}

fn config(start: Start) -> Config {
    let data_dir = match start.data_dir {
        Some(directory) => directory,
        None => default_directory(start.id.as_deref().unwrap_or(&start.addr)),
    };
    Config {
        name: start.id,
        advertise: start.advertise,
        // `--peers ""` is how scripts say that there are none.
        peers: start.peers.into_iter().filter(|peer| *peer != (None, String::new())).collect(),
        shards: start.shards,
        replicas: start.replicas,
        memtable_bytes: start.memtable_mb * MIB,
        cache_bytes: start.cache_mb * MIB,
        log_bytes: start.log_mb * MIB,
        snapshot_bytes_per_s: start.snapshot_mb_per_s * MIB,
        ..Config::new(start.addr, data_dir)
    }
}

/// A node's own place under the common one.
fn default_directory(name: &str) -> PathBuf {
    let clean: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    Path::new(DATA_DIR_DEFAULT).join(clean)
}

async fn serve(config: Config, until_eof: bool, json: bool) -> Result<(), Stop> {
    let mut signals = Signals::new()?;
    let eof = stdin_eof(until_eof);
    tokio::pin!(eof);
    let mut running = ringfort_server::start(config).await?;
    if let Some(mut notices) = running.notices() {
        tokio::spawn(async move {
            while let Some(line) = notices.recv().await {
                let _ = writeln!(std::io::stderr(), "ringfort: {line}");
            }
        });
    }
    let served = tokio::select! {
        summary = running.serving() => Some(summary?),
        _ = signals.next() => None,
        () = &mut eof => None,
    };
    if let Some(summary) = served {
        announce(&summary, json);
        tokio::select! {
            error = running.failed() => return Err(error.into()),
            _ = signals.next() => {}
            () = &mut eof => {}
        }
    }
    tokio::select! {
        stopped = running.stop() => Ok(stopped?),
        // Whoever asks twice wants it now. That is safe: it is what a crash does.
        _ = signals.next() => Err(Stop::unavailable("ended at once, without handing leaderships over")),
    }
}

/// The one line that says it serves. That nobody reads it is no reason not to.
fn announce(summary: &Summary, json: bool) {
    if json {
        let line = Object::new()
            .field("name", &summary.name)
            .field("address", &summary.address)
            .field("nodes", summary.nodes)
            .field("shards", summary.shards)
            .field("ready_ms", summary.took.as_millis() as u64);
        let _ = out::line(line.finish());
        return;
    }
    let _ = out::line(format!(
        "{} serves on {}: {}, {}, ready in {}",
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
