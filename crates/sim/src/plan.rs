//! What a run is to be like. Drawn from its seed, so that seeds differ in kind and not only in luck.

use crate::random::Random;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process ends between two writes; what it had written stays in the system's cache.
    Kill,
    /// As `Kill`, but after a write to the log and before its sync.
    KillDuringWrite,
    /// The power goes between two writes.
    PowerLoss,
    /// The power goes after a write to the log and before its sync: any of its sectors may be there.
    PowerLossDuringWrite,
    /// All nodes lose their power at once.
    Blackout,
    /// A sync fails, and with it the process.
    FailedSync,
    /// A node is asked to stop, and started again.
    Stop,
    /// A node is cut off from all others.
    Isolate,
    /// One node can't send to another, but hears it.
    OneWay,
    /// Two nodes can't hear each other.
    Cut,
    /// A connection breaks, with whatever is under way, and is made again.
    BreakLink,
    /// A connection gets slow.
    SlowLink,
    /// A process stands still.
    Pause,
    /// A wall clock jumps, up to ten minutes either way.
    ClockJump,
}

const ALL: [Fault; 14] = [
    Fault::Kill,
    Fault::KillDuringWrite,
    Fault::PowerLoss,
    Fault::PowerLossDuringWrite,
    Fault::Blackout,
    Fault::FailedSync,
    Fault::Stop,
    Fault::Isolate,
    Fault::OneWay,
    Fault::Cut,
    Fault::BreakLink,
    Fault::SlowLink,
    Fault::Pause,
    Fault::ClockJump,
];

/// A bug put into the driver on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Syncs of the log report success without any effect.
    SkipSync,
    /// Gets are read one entry too early.
    StaleRead,
    /// A process that starts has forgotten whom it voted for.
    ForgetVote,
    /// One node applies some entries as if they held no commands.
    LoseRows,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything, also the rest of this plan if it was made from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many shards.
    pub shards: u32,
    /// How many clients, each with one request at a time.
    pub clients: usize,
    /// How many keys they fight about.
    pub keys: usize,
    /// When things begin to go wrong, in milliseconds: during the birth, or after it.
    pub first_fault_ms: u64,
    /// When they end, in milliseconds.
    pub chaos_ms: u64,
    /// What may go wrong.
    pub faults: Vec<Fault>,
    /// Longest time between two faults, in milliseconds.
    pub fault_gap_ms: u64,
    /// Longest time that a sync takes, in microseconds.
    pub sync_us_max: u64,
    /// Longest time that a message takes, in microseconds.
    pub message_us_max: u64,
    /// What is wrong on purpose.
    pub plant: Option<Plant>,
}

impl Plan {
    /// The plan of a seed.
    pub fn from_seed(seed: u64) -> Plan {
        // Not the generator of the run itself: plans may grow without changing what follows.
        let mut random = Random::new(seed ^ 0x706c_616e);
        let nodes = random.pick(&[3, 3, 3, 3, 3, 1, 2, 4, 5]);
        let percent = random.pick(&[20, 50, 80]);
        Plan {
            seed,
            nodes,
            shards: random.between(1, 5) as u32,
            clients: random.between(2, 12) as usize,
            keys: random.between(2, 8) as usize,
            first_fault_ms: random.pick(&[100, 2_500, 2_500, 2_500]),
            chaos_ms: random.between(6_000, 20_000),
            faults: ALL.into_iter().filter(|_| random.chance(percent)).collect(),
            fault_gap_ms: random.pick(&[500, 1_500, 3_000]),
            sync_us_max: random.pick(&[500, 3_000, 40_000]),
            message_us_max: random.pick(&[300, 2_000, 20_000]),
            plant: None,
        }
    }

    /// A plan under which nothing goes wrong.
    pub fn calm(seed: u64, nodes: usize) -> Plan {
        Plan { nodes, faults: Vec::new(), chaos_ms: 3_000, ..Plan::from_seed(seed) }
    }
}
