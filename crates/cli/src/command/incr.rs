//! `ringfort incr KEY [BY]`

use std::ffi::OsString;

use clap::Args;

use crate::connection::{Connect, argument, with_options};
use crate::json::Object;
use crate::out::{self, Output};
use crate::stop::{Stop, code_by_what_is_there};
use crate::writing::Writing;

/// Add to a number, and print the sum; a key that is not there counts as 0
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort incr visits\n  ringfort incr stock -5\n  ringfort incr visits --json\n\n\
    The value is a decimal number of at most 64 bits, as `put` can set it and `get` prints it. If it is no number, or the sum would be \
    beyond 64 bits, it stays as it is, with exit code 2. An increment is done once, however often it had to be \
    sent; if its outcome is unknown (exit code 3), it may have been done. JSON: key, value (the sum, a number) and the receipt, as `put --json` prints it."
)]
pub(crate) struct Incr {
    /// 1 to 16384 bytes
    key: OsString,
    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_hyphen_values = true)]
    by: i64,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(incr: &Incr) -> Result<(), Stop> {
    let mut options = incr.connect.options()?;
    incr.writing.apply(&mut options);
    with_options(options, async |client| {
        let key = argument(&incr.key);
        let counted = client.increment(key.clone(), incr.by).await.map_err(|failure| Stop {
            code: code_by_what_is_there(&failure),
            message: failure.to_string(),
        })?;
        let printed = out::line(if incr.output.json {
            Object::new().bytes("key", &key).counted(&counted).finish()
        } else {
            counted.value.to_string().into_bytes()
        });
        // Also if nobody has read what is printed.
        incr.writing.judge(&counted.receipt).and(printed)
    })
}
