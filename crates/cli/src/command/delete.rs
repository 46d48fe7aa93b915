//! `ringfort delete KEY [--if-…]`

use std::ffi::OsString;

use clap::Args;
use ringfort_client::Decision;

use crate::condition::{self, IfThere};
use crate::connection::{Connect, argument, with_options};
use crate::json::Object;
use crate::out::Output;
use crate::stop::Stop;
use crate::writing::Writing;

/// Remove a key; prints OK whether or not it was there, unless told otherwise
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort delete name\n  ringfort delete name --json\n  \
    ringfort delete lock --if-revision 7\n\n\
    A condition that is not met is exit code 1, with what was found on stderr, and nothing is changed. JSON: as `put \
    --json` prints it.")]
pub(crate) struct Delete {
    /// 1 to 16384 bytes
    key: OsString,
    #[command(flatten)]
    if_there: IfThere,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(delete: &Delete) -> Result<(), Stop> {
    let mut options = delete.connect.options()?;
    delete.writing.apply(&mut options);
    with_options(options, async |client| {
        let key = argument(&delete.key);
        let decision = match delete.if_there.condition() {
            Some(condition) => client.delete_if(key.clone(), condition).await?,
            None => Decision::Done(client.delete(key.clone()).await?),
        };
        let object = delete.output.json.then(|| Object::new().bytes("key", &key));
        condition::answer(&decision, object, delete.writing)
    })
}
