//! `ringfort put KEY VALUE`

use std::ffi::OsString;
use std::io::Read;

use bytes::Bytes;
use clap::Args;
use ringfort_types::limits::VALUE_BYTES_MAX;

use crate::args::{Connect, Output};
use crate::connection::{argument, with_client};
use crate::json::Object;
use crate::out;
use crate::stop::Stop;

/// Set a key to a value; prints OK when a majority of replicas have it on disk
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort put name Ada\n  ringfort put photo - < photo.jpg\n  ringfort put name Ada --json\n\n\
    JSON: the receipt: key, revision (of its shard, made by this write), shard, term and index (of its log), and copies \
    (replicas that were known to have it on disk). Bytes that are not UTF-8 are in key_base64."
)]
pub(crate) struct Put {
    /// 1 to 16384 bytes
    key: OsString,
    /// At most 8 MiB; `-` reads it from stdin, to the end
    #[arg(allow_hyphen_values = true)]
    value: OsString,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(put: &Put) -> Result<(), Stop> {
    let key = argument(&put.key);
    let value = if put.value == "-" { read_stdin()? } else { argument(&put.value) };
    with_client(&put.connect, async |client| {
        let receipt = client.put(key.clone(), value).await?;
        if put.output.json {
            return out::line(Object::new().bytes("key", &key).receipt(&receipt).finish());
        }
        out::line("OK")
    })
}

/// All of stdin, or one byte more than a value may have.
fn read_stdin() -> Result<Bytes, Stop> {
    let mut value = Vec::new();
    std::io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Stop::usage(format!("can't read the value from stdin: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Stop::usage(format!("value of more than {VALUE_BYTES_MAX} bytes, which is the limit")));
    }
    Ok(value.into())
}
