//! `ringfort get KEY`

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use ringfort_types::Consistency;

use crate::args::Connect;
use crate::connection::{argument, with_client};
use crate::out::Out;
use crate::stop::Stop;

/// Print a key's value; if there is none, say so on stderr and exit with 1
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort get name\n  ringfort get photo --raw > photo.jpg")]
pub(crate) struct Get {
    /// 1 to 16384 bytes
    key: OsString,
    /// Print the value's bytes only, without a newline after them
    #[arg(long)]
    raw: bool,
    /// Take what the asked node has, which may be old, instead of the latest
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

pub(crate) fn run(get: &Get) -> Result<(), Stop> {
    let consistency = if get.stale { Consistency::Stale } else { Consistency::Linearizable };
    with_client(&get.connect, async |client| {
        let Some(row) = client.get_with(argument(&get.key), consistency).await?.row else {
            let _ = writeln!(std::io::stderr(), "(not found)");
            return Err(Stop::not_found());
        };
        let mut out = Out::new();
        out.write(&row.value)?;
        if get.raw { out.flush() } else { out.line("") }
    })
}
