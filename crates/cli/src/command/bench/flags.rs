//! What can be said: how much of what, and how it travels.

use clap::{Args, ValueEnum};
use ringfort_types::limits::VALUE_BYTES_MAX;

use crate::connection::Connect;
use crate::out::Output;
use crate::reading::Reading;

/// Each client has connections of its own to all nodes.
const CLIENTS_MAX: u32 = 256;
const IN_FLIGHT_MAX: u32 = 64 * 1024;

/// Measure puts and gets per second, and how long they take
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  ringfort bench --workload put --in-flight 256\n  \
    ringfort bench --workload get --transport unary --clients 8 --in-flight 64 --seconds 30\n  \
    ringfort bench --workload get --consistency stale --reads-from replicas\n  \
    ringfort bench --workload put --clients 1 --in-flight 1 --json\n\n\
    Keys are 16 bytes, key- and a number below --keys, chosen evenly; gets and conditions find all of them, since they are \
    loaded first (not with --skip-load). They stay in the cluster, unless --clean deletes them at the end: either way use a \
    cluster that has no such keys of somebody else's. The report names --consistency and --reads-from (of gets) and \
    --at-most-once (of puts), if they are not the defaults, and how many gets found nothing, if any did.")]
pub(crate) struct Bench {
    /// What to do
    #[arg(long, value_enum, default_value_t = Workload::Put)]
    pub(super) workload: Workload,
    /// How requests travel: many on one stream a node, or a gRPC call each
    #[arg(long, value_enum, default_value_t = Travel::Session)]
    pub(super) transport: Travel,
    /// Don't number writes: one that may have been done is not sent again, and counts as an error
    #[arg(long)]
    pub(super) at_most_once: bool,
    /// Independent clients, each with its own connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub(super) clients: u32,
    /// Requests in flight, over all clients; one for each client at least
    #[arg(long, value_name = "M", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    pub(super) in_flight: u32,
    /// How many different keys
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(super) keys: u64,
    /// Bytes in a value
    #[arg(long, value_name = "B", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=VALUE_BYTES_MAX as i64))]
    pub(super) value_size: u32,
    /// How long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
    /// Don't load the keys before reading: an earlier run has
    #[arg(long)]
    pub(super) skip_load: bool,
    /// Delete the keys at the end, all that are numbered below --keys
    #[arg(long)]
    pub(super) clean: bool,
    /// Threads for the load, to each of which some of the clients belong; servers may share the machine
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: u32,
    #[command(flatten)]
    pub(super) reading: Reading,
    #[command(flatten)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Only puts
    Put,
    /// Puts under a condition that holds
    PutIf,
    /// Only gets
    Get,
    /// Half of puts, half of gets
    Mixed,
}

impl Workload {
    /// Whether some of it are gets.
    pub(super) fn reads(self) -> bool {
        matches!(self, Workload::Get | Workload::Mixed)
    }

    /// Whether some of it are puts.
    pub(super) fn writes(self) -> bool {
        self != Workload::Get
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Travel {
    Session,
    Unary,
}

/// What a choice is called on the command line.
pub(super) fn name(choice: &impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
