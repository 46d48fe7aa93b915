//! Which cluster to talk to; a client of it, and the runtime under that, for the length of one command.
//!
//! The command itself runs on the main thread, the connections on the runtime's own: a command that blocks, on a slow
//! reader of its output, say, does not keep the connections from being served.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Client, Options, parse_addresses};
use tokio::runtime::{Builder, Runtime};

use crate::stop::Stop;

/// Where a node listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:50051";

/// Which cluster to talk to.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// Addresses of some nodes, separated by commas; the others are learnt from them
    #[arg(long, alias = "endpoints", value_name = "HOST:PORT,…", default_value = ADDRESS_DEFAULT, value_parser = addresses)]
    addr: Addresses,
    /// How long to keep trying: 500ms, 3s, 1m
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = crate::duration::parse)]
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses(Vec<String>);

fn addresses(text: &str) -> Result<Addresses, String> {
    parse_addresses(text).map(Addresses).map_err(|failure| failure.to_string())
}

impl Connect {
    /// The client's settings.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.addr.0.clone());
        options.timeout = self.timeout;
        options
    }
}

/// Threads for what may block: scans of tables, names to be resolved. What is more waits. Each keeps up to a MB of memory to
/// itself, so the library's 512 could take as much as all else in a node.
const BLOCKING_THREADS_MAX: usize = 64;

/// A runtime with so many threads, besides that of the command, which may block.
pub(crate) fn runtime(threads: usize) -> Result<Runtime, Stop> {
    build(Builder::new_multi_thread(), threads, "ringfort-io")
}

/// A runtime with so many threads, for a command that never blocks: a single one is the command's own. With several, tokio runs
/// first what was woken last, so that each answer is written as soon as it is there, by a system call of its own; on one the answers
/// of a turn go out together.
pub(crate) fn runtime_of_tasks(threads: usize, name: &str) -> Result<Runtime, Stop> {
    let builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    build(builder, threads, name)
}

fn build(mut builder: Builder, threads: usize, name: &str) -> Result<Runtime, Stop> {
    builder
        .worker_threads(threads)
        .thread_name(name)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(|error| Stop::unavailable(format!("can't start threads: {error}")))
}

/// Connects, and runs a command.
pub(crate) fn with_client<T>(
    connect: &Connect,
    command: impl AsyncFnOnce(Client) -> Result<T, Stop>,
) -> Result<T, Stop> {
    with_options(connect.options(), command)
}

/// Connects with these settings, and runs a command.
pub(crate) fn with_options<T>(
    options: Options,
    command: impl AsyncFnOnce(Client) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let runtime = runtime(1)?;
    let done = runtime.block_on(async { command(Client::connect(options).await?).await });
    runtime.shutdown_background();
    done
}

/// An argument's bytes: keys and values need not be UTF-8.
pub(crate) fn argument(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
