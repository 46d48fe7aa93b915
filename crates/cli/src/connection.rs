//! A client, and the runtime under it, for the length of one command.
//!
//! The command itself runs on the main thread, the connections on the runtime's own: a command that blocks, on a slow
//! reader of its output, say, does not keep the connections from being served.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use ringfort_client::{Client, Options};
use tokio::runtime::{Builder, Runtime};

use crate::args::Connect;
use crate::stop::Stop;

/// A runtime with so many threads.
pub(crate) fn runtime(threads: usize) -> Result<Runtime, Stop> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("ringfort-io")
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
