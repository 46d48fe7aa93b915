//! `ringfort list`

use std::ffi::OsString;

use clap::Args;

use crate::connection::{Connect, argument, with_client};
use crate::format::Format;
use crate::listing::{Listing, Resume};
use crate::out::{Out, Output};
use crate::stop::Stop;

/// Print rows, one a line, in key order: key, tab, value
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort list --prefix user: --limit 10\n  ringfort list --keys-only | wc -l\n  \
    ringfort list --json\n\n\
    Tabs, newlines, carriage returns and backslashes in keys and values are printed as \\t, \\n, \\r and \\\\. \
    JSON: key, value and revision, or key_base64 and value_base64 if they are not UTF-8; `import --format jsonl` reads it."
)]
pub(crate) struct List {
    /// Only keys that begin with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    from: OsString,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Leave the values (and the tab) out
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    resume: Resume,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(list: &List) -> Result<(), Stop> {
    if list.limit == Some(0) {
        return Ok(());
    }
    let wanted = ringfort_client::List {
        prefix: argument(&list.prefix),
        from: argument(&list.from),
        limit: list.limit.unwrap_or(0),
        keys_only: list.keys_only,
    };
    with_client(&list.connect, async |client| {
        let mut listing = Listing::new(&client, wanted, list.resume).await?;
        let mut out = Out::new();
        let format = Format::of_output(list.output.json);
        let mut line = Vec::new();
        let ended = loop {
            match listing.next().await {
                Ok(Some((key, row))) => {
                    line.clear();
                    format.row_into(&mut line, &key, &row, list.keys_only);
                    out.write(&line)?;
                }
                Ok(None) => break Ok(()),
                Err(stop) => break Err(stop),
            }
        };
        out.flush()?;
        ended
    })
}
