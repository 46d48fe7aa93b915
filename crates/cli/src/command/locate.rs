//! `ringfort where KEY`

use std::ffi::OsString;

use clap::Args;

use crate::connection::{Connect, argument, with_client};
use crate::out::{self, Output};
use crate::stop::Stop;
use crate::whereabouts::Whereabouts;

/// Show where a key is: its slot, its shard, the nodes that have replicas of it, and which of them leads
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort where name\n  ringfort where '{user1}mail' --json\n\n\
    A key need not be there to have a place. The leader is unknown while nobody is known to lead: an election takes a second or \
    so. It asks one node, and is as fresh as what that node has heard.\n\n\
    JSON, one object: key, slot, shard, leader and leader_name (null if unknown), replicas (each node, name, state, damaged; the \
    preferred leader first).")]
pub(crate) struct Where {
    /// The key
    #[arg(value_name = "KEY")]
    key: OsString,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &Where) -> Result<(), Stop> {
    let key = argument(&asked.key);
    Whereabouts::validate(&key)?;
    let state = with_client(&asked.connect, async |client| Ok(client.cluster_state().await?))?;
    let found = Whereabouts::of(&state, &key)?;
    if asked.output.json { out::line(found.json()) } else { out::line(found.text()) }
}
