//! `ringfort get KEY…`

use std::ffi::OsString;
use std::io::Write;

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Client, Consistency};

use crate::connection::{Connect, argument, with_options};
use crate::escape::{escape_into, row_into};
use crate::json::Object;
use crate::out::{self, Out, Output};
use crate::reading::Reading;
use crate::stop::{Stop, code_by_what_is_there};

/// Print a key's value; if there is none, say so on stderr and exit with 1
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort get name\n  ringfort get photo --raw > photo.jpg\n  ringfort get name --json\n  \
    ringfort get name mail --consistency stale --reads-from replicas\n\n\
    With several keys, it prints key, tab, value, a line each in the order asked, as `list` does; those that are not there \
    are on stderr. Those of one shard are read at one moment. JSON, an object a key: key, found, value and revision (the \
    row's); with one key also shard_revision (the shard's own, at the moment of the read) and index (of the shard's log, at \
    that moment). Bytes that are not UTF-8 are in key_base64 and value_base64. A key that is not there is found: false, \
    with exit code 1."
)]
pub(crate) struct Get {
    /// 1 to 16384 bytes; several are read at once
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<OsString>,
    /// Print the value's bytes only, without a newline after them; for one key
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Short for --consistency stale
    #[arg(long, conflicts_with = "consistency")]
    stale: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(get: &Get) -> Result<(), Stop> {
    let consistency = if get.stale { Consistency::Stale } else { get.reading.consistency() };
    let keys: Vec<Bytes> = get.keys.iter().map(|key| argument(key)).collect();
    if get.raw && keys.len() > 1 {
        return Err(Stop::usage("--raw prints one value: name one key, or leave --raw out"));
    }
    let mut options = get.connect.options()?;
    get.reading.apply(&mut options);
    with_options(options, async |client| match &keys[..] {
        [key] => one(get, &client, key, consistency).await,
        _ => several(get, &client.with_consistency(consistency), &keys).await,
    })
}

async fn one(get: &Get, client: &Client, key: &Bytes, consistency: Consistency) -> Result<(), Stop> {
    let read = client.get_with(key.clone(), consistency).await?;
    // Here by a flag, JSON and raw exclude each other; a flag beats JSON from elsewhere.
    if get.output.json && !get.raw {
        out::line(Object::new().bytes("key", key).read(&read).finish())?;
        return if read.row.is_some() { Ok(()) } else { Err(Stop::not_found()) };
    }
    let Some(row) = read.row else {
        let _ = writeln!(std::io::stderr(), "(not found)");
        return Err(Stop::not_found());
    };
    let mut out = Out::new();
    out.write(&row.value)?;
    if get.raw { out.flush() } else { out.line("") }
}

async fn several(get: &Get, client: &Client, keys: &[Bytes]) -> Result<(), Stop> {
    let rows = client
        .get_many(keys.iter().cloned())
        .await
        .map_err(|failure| Stop { code: code_by_what_is_there(&failure), message: failure.to_string() })?;
    let mut out = Out::new();
    let mut line = Vec::new();
    for (key, row) in keys.iter().zip(&rows) {
        line.clear();
        match row {
            _ if get.output.json => {
                line = Object::new().bytes("key", key).row(row.as_ref()).finish();
                line.push(b'\n');
            }
            Some(row) => row_into(&mut line, key, Some(&row.value)),
            None => {
                escape_into(&mut line, key);
                line.extend_from_slice(b"\t(not found)\n");
                // In its place, where both go to one terminal.
                out.flush()?;
                let _ = std::io::stderr().write_all(&line);
                continue;
            }
        }
        out.write(&line)?;
    }
    out.flush()?;
    if rows.iter().all(Option::is_some) { Ok(()) } else { Err(Stop::not_found()) }
}
