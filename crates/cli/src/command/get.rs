//! `ringfort get KEY`

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use ringfort_types::Consistency;

use crate::args::{Connect, Output};
use crate::connection::{argument, with_client};
use crate::json::Object;
use crate::out::{self, Out};
use crate::stop::Stop;

/// Print a key's value; if there is none, say so on stderr and exit with 1
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort get name\n  ringfort get photo --raw > photo.jpg\n  ringfort get name --json\n\n\
    JSON: key, found, value and revision (the row's), shard_revision (the shard's own, at the moment of the read) and \
    index (of the shard's log, at that moment). Bytes that are not UTF-8 are in key_base64 and value_base64. A key that \
    is not there is found: false, with exit code 1."
)]
pub(crate) struct Get {
    /// 1 to 16384 bytes
    key: OsString,
    /// Print the value's bytes only, without a newline after them
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Take what the asked node has, which may be old, instead of the latest
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(get: &Get) -> Result<(), Stop> {
    let consistency = if get.stale { Consistency::Stale } else { Consistency::Linearizable };
    with_client(&get.connect, async |client| {
        let key = argument(&get.key);
        let read = client.get_with(key.clone(), consistency).await?;
        // Here by a flag, JSON and raw exclude each other; a flag beats JSON from elsewhere.
        if get.output.json && !get.raw {
            out::line(Object::new().bytes("key", &key).read(&read).finish())?;
            return if read.row.is_some() { Ok(()) } else { Err(Stop::not_found()) };
        }
        let Some(row) = read.row else {
            let _ = writeln!(std::io::stderr(), "(not found)");
            return Err(Stop::not_found());
        };
        let mut out = Out::new();
        out.write(&row.value)?;
        if get.raw { out.flush() } else { out.line("") }
    })
}
