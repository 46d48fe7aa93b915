//! `ringfort put KEY VALUE [--if-…]`

use std::ffi::OsString;
use std::io::Read;

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Condition, Decision};
use ringfort_types::limits::VALUE_BYTES_MAX;

use crate::condition::{self, IfThere};
use crate::connection::{Connect, argument, with_options};
use crate::json::Object;
use crate::out::Output;
use crate::stop::Stop;
use crate::writing::Writing;

/// Set a key to a value; prints OK when a majority of replicas have it on disk
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort put name Ada\n  ringfort put photo - < photo.jpg\n  ringfort put name Ada --json\n  \
    ringfort put lock me --if-absent\n  ringfort put name Grace --if-value Ada\n  \
    ringfort put name Ada --copies 3 --timeout 10s\n\n\
    A condition that is not met is exit code 1, with what was found on stderr, and nothing is changed. JSON: key, done \
    (true) and the receipt: revision (of its shard, made by this write), shard, term and index (of its log), and copies \
    (replicas that were known to have it on disk). Condition not met: key, done (false), revision (the key's; null if it \
    is not there) and index. Bytes that are not UTF-8 are in key_base64."
)]
pub(crate) struct Put {
    /// 1 to 16384 bytes
    key: OsString,
    /// At most 8 MiB; `-` reads it from stdin, to the end
    #[arg(allow_hyphen_values = true)]
    value: OsString,
    /// Only if the key is not there
    #[arg(long, conflicts_with = "if_there")]
    if_absent: bool,
    #[command(flatten)]
    if_there: IfThere,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(put: &Put) -> Result<(), Stop> {
    let key = argument(&put.key);
    let value = if put.value == "-" { read_stdin()? } else { argument(&put.value) };
    let condition = put.if_absent.then_some(Condition::Absent).or_else(|| put.if_there.condition());
    let mut options = put.connect.options()?;
    put.writing.apply(&mut options);
    with_options(options, async |client| {
        let decision = match condition {
            Some(condition) => client.put_if(key.clone(), value, condition).await?,
            None => Decision::Done(client.put(key.clone(), value).await?),
        };
        condition::answer(&decision, put.output.json.then(|| Object::new().bytes("key", &key)), put.writing)
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
