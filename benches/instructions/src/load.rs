//! What is asked for: 16 B keys out of 100,000, values of 100 B, by a few clients whose writes have their places in sessions.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{Call, Consistency, HybridClock, Request, ShardId, Stamp};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 100;
const NOISE_BYTES: usize = 64 * 1024;
const CLIENTS: u64 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Put,
    Get,
}

#[derive(Debug)]
pub(crate) struct Load {
    workload: Workload,
    asked: u64,
    state: u64,
    /// The last write of each client to each shard.
    sessions: BTreeMap<(u64, ShardId), u64>,
    /// Values are parts of it.
    noise: Vec<u8>,
}

impl Load {
    pub(crate) fn new(workload: Workload) -> Load {
        let mut load = Load { workload, asked: 0, state: 7, sessions: BTreeMap::new(), noise: Vec::new() };
        load.noise = std::iter::repeat_with(|| load.roll() as u8).take(NOISE_BYTES).collect();
        load
    }

    /// The next key.
    pub(crate) fn key(&mut self) -> Bytes {
        Bytes::from(format!("key-{:012}", self.roll() % KEYS))
    }

    /// The next call, for this key, which is of this shard.
    pub(crate) fn call(&mut self, key: Bytes, shard: ShardId) -> Call {
        self.asked += 1;
        if self.workload == Workload::Get {
            return Request::Get { key, consistency: Consistency::Linearizable }.into();
        }
        let (client, sequence) = (self.asked % CLIENTS + 1, self.asked);
        let prev = self.sessions.insert((client, shard), sequence).unwrap_or(0);
        // What is in flight is not known to be done.
        let stamp = Stamp { client: client.into(), sequence, prev, floor: 0, opened: HybridClock(1) };
        let from = self.roll() as usize % (NOISE_BYTES - VALUE_BYTES);
        let value = self.noise[from..from + VALUE_BYTES].to_vec();
        Call { stamp: Some(stamp), ..Request::put(key, value).into() }
    }

    /// `SplitMix64`: even enough, and the same in every run.
    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
