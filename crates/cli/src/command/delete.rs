//! `ringfort delete KEY`

use std::ffi::OsString;

use clap::Args;

use crate::args::{Connect, Output};
use crate::connection::{argument, with_client};
use crate::json::Object;
use crate::out;
use crate::stop::Stop;

/// Remove a key; prints OK whether or not it was there
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort delete name\n  ringfort delete name --json\n\n\
    JSON: the receipt, as `put --json` prints it.")]
pub(crate) struct Delete {
    /// 1 to 16384 bytes
    key: OsString,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(delete: &Delete) -> Result<(), Stop> {
    with_client(&delete.connect, async |client| {
        let key = argument(&delete.key);
        let receipt = client.delete(key.clone()).await?;
        if delete.output.json {
            return out::line(Object::new().bytes("key", &key).receipt(&receipt).finish());
        }
        out::line("OK")
    })
}
