//! `ringfort delete KEY`

use std::ffi::OsString;

use clap::Args;

use crate::args::Connect;
use crate::connection::{argument, with_client};
use crate::out;
use crate::stop::Stop;

/// Remove a key; prints OK whether or not it was there
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ringfort delete name")]
pub(crate) struct Delete {
    /// 1 to 16384 bytes
    key: OsString,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

pub(crate) fn run(delete: &Delete) -> Result<(), Stop> {
    with_client(&delete.connect, async |client| {
        client.delete(argument(&delete.key)).await?;
        out::line("OK")
    })
}
