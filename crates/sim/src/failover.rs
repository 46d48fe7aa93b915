//! How long a shard takes no writes when its leader is killed.

use bytes::Bytes;
use ringfort_types::{Reply, Request, ShardId};

use crate::clients::Asker;
use crate::judges::HEALS;
use crate::world::World;
use crate::{Plan, Report};

/// Between two tries to write, in microseconds.
const TRY_US: u64 = 5_000;
/// From a kill to the next one, at least, in microseconds: the killed node is back and leads again.
const SETTLE_US: u64 = 8_000_000;

/// Kills the leader of shard 1 so many times in a cluster of three with otherwise nothing wrong. Returns, for each
/// kill, the milliseconds until a write to that shard is acknowledged again, asked of another node.
pub fn failovers(seed: u64, kills: usize) -> (Vec<u64>, Report) {
    let mut world = World::new(Plan::calm(seed, 3));
    let mut took_ms = Vec::new();
    world.begin();
    world.run_until(3_000_000);
    world.is_calm = true;
    for kill in 0..kills {
        let settled_us = world.now_us + SETTLE_US + world.random.below(1_000_000);
        world.run_until(settled_us);
        let Some(leader) = world.leader_of(ShardId(1)) else {
            world.find(HEALS, format_args!("nobody leads shard 1 before kill {kill}"));
            continue;
        };
        let began_us = world.now_us;
        world.restart_after(leader, false, 3_000_000);
        let other = (leader + 1) % 3;
        took_ms.push(world.writable_after(other, ShardId(1), kill).saturating_sub(began_us) / 1_000);
    }
    (took_ms, world.into_report())
}

impl World {
    fn leader_of(&mut self, shard: ShardId) -> Option<usize> {
        let id = self.ask(Asker::Judge, 0, Request::ClusterState, 1_000);
        self.run_while(1_000_000, |world| !world.clients.told.contains_key(&id));
        match self.clients.told.remove(&id)?? {
            Reply::Cluster(state) => {
                Some(state.shards.iter().find(|s| s.shard == shard)?.leader?.0 as usize - 1)
            }
            _ => None,
        }
    }

    /// Asks for one write after another, without waiting for the answers, until one is acknowledged. When.
    fn writable_after(&mut self, host: usize, shard: ShardId, kill: usize) -> u64 {
        let Some(keys) = self.key_of_each_shard() else { return u64::MAX };
        let key = keys.iter().find(|(other, _)| *other == shard).expect("there is such a shard").1.clone();
        // Answers to earlier tries don't count.
        self.clients.told.clear();
        for attempt in 0..2_000 {
            let value = Bytes::from(format!("kill {kill}, try {attempt}"));
            self.ask(Asker::Judge, host, Request::put(key.clone(), value), 3_000);
            let until_us = self.now_us + TRY_US;
            self.run_until(until_us);
            let told = std::mem::take(&mut self.clients.told);
            if told.values().any(|reply| matches!(reply, Some(Reply::Written(_)))) {
                return self.now_us;
            }
        }
        self.find(HEALS, format_args!("shard {shard} takes no writes within 10 s of kill {kill}"));
        u64::MAX
    }
}
