//! The end of a run: everything has healed, so everything must work, and nothing may be missing.

use bytes::Bytes;
use ringfort_types::{Consistency, NodeId, Reply, Request, ShardId, slot_of};

use crate::clients::Asker;
use crate::history::{Action, Operation};
use crate::linearizable;
use crate::world::World;

/// From the healing until every shard takes writes, at most, in microseconds (PITFALLS 13).
const HEALED_US_MAX: u64 = 10_000_000;
const TIMEOUT_MS: u32 = 3_000;

impl World {
    /// Looks at everything.
    pub(crate) fn judge(&mut self) {
        let began_us = self.now_us;
        if !self.run_while(HEALED_US_MAX, |world| !world.hosts.iter().all(crate::host::Host::is_serving)) {
            return self.find(format_args!("not all nodes serve within 10 s of the healing"));
        }
        self.run_while(HEALED_US_MAX, |world| world.clients.wait());
        let Some(keys) = self.key_of_each_shard() else {
            return self.find(format_args!("a node that serves has no layout"));
        };
        for (shard, key) in &keys {
            let request = Request::Put { key: key.clone(), value: Bytes::from(format!("after {shard}")) };
            let left_us = (began_us + HEALED_US_MAX).saturating_sub(self.now_us);
            if self.insist(0, &request, left_us).is_none() {
                self.find(format_args!("shard {shard} takes no write within 10 s of the healing"));
            }
        }
        self.healed_ms = (self.now_us - began_us) / 1_000;
        self.read_everything();
        self.compare_replicas(&keys);
        for lost in lost_writes(&self.history) {
            self.find(format_args!("{lost}"));
        }
        if let Err(verdict) = linearizable::check(&self.history) {
            self.find(format_args!("{verdict}"));
        }
    }

    /// Asks again, of one node after the other, until there is an answer that is no failure.
    fn insist(&mut self, first: usize, request: &Request, most_us: u64) -> Option<Reply> {
        let until_us = self.now_us + most_us;
        let mut host = first;
        while self.now_us < until_us {
            let id = self.ask(Asker::Judge, host, request.clone(), TIMEOUT_MS);
            self.run_while(most_us, |world| !world.clients.told.contains_key(&id));
            match self.clients.told.remove(&id) {
                Some(Some(Reply::Failed(_)) | None) | None => {}
                Some(Some(reply)) => return Some(reply),
            }
            host = (host + 1) % self.hosts.len();
            let pause_us = self.now_us + 10_000;
            self.run_until(pause_us);
        }
        None
    }

    /// A key that no client uses, for each shard.
    pub(crate) fn key_of_each_shard(&self) -> Option<Vec<(ShardId, Bytes)>> {
        let layout = self.hosts.iter().find_map(|host| host.process.as_ref()?.node.layout())?;
        let key_of = |shard| {
            let mut keys = (0..).map(|number| Bytes::from(format!("probe{number}")));
            keys.find(|key| layout.shard_of_slot(slot_of(key)) == shard).expect("keys reach every slot")
        };
        Some((1..=self.plan.shards).map(|number| (ShardId(number), key_of(ShardId(number)))).collect())
    }

    fn replicas_of(&self, shard: ShardId) -> Vec<NodeId> {
        let layout = self.hosts.iter().find_map(|host| host.process.as_ref()?.node.layout());
        let shard = layout.and_then(|layout| layout.shard(shard)).expect("a born cluster has this shard");
        shard.replicas.iter().map(|replica| replica.node).collect()
    }

    /// Every key, through every node.
    fn read_everything(&mut self) {
        for key in self.clients.keys.clone() {
            for host in 0..self.hosts.len() {
                let request = Request::Get { key: key.clone(), consistency: Consistency::Linearizable };
                if self.insist(host, &request, HEALED_US_MAX).is_none() {
                    self.find(format_args!("{key:?} can't be read through n{}", host + 1));
                }
            }
        }
    }

    /// All replicas of a shard have the same rows at the same index.
    fn compare_replicas(&mut self, keys: &[(ShardId, Bytes)]) {
        for &(shard, _) in keys {
            let mark = self.insist(0, &Request::Digest { shard }, HEALED_US_MAX);
            let Some(Reply::Written(receipt)) = mark else {
                self.find(format_args!("shard {shard} takes no digest mark: {mark:?}"));
                continue;
            };
            let mut digests = Vec::new();
            for node in self.replicas_of(shard) {
                let host = node.0 as usize - 1;
                let request = Request::DigestAt { node, shard, index: receipt.index };
                digests.push(self.insist(host, &request, HEALED_US_MAX));
            }
            if digests[0].is_none() || digests.iter().any(|digest| *digest != digests[0]) {
                self.find(format_args!("replicas of shard {shard} differ at {}: {digests:?}", receipt.index));
            }
        }
    }
}

/// Acknowledged writes whose effect is gone: a last read sees an older write, or one that never was. This
/// follows from linearizability too; it is checked by itself because it is the promise that matters most, and is
/// said in words that help.
fn lost_writes(history: &[Operation]) -> Vec<String> {
    let mut lost = Vec::new();
    let is_last = |read: &Operation| read.client == u64::MAX;
    for read in history.iter().filter(|read| is_last(read)) {
        let Action::Get(seen) = &read.action else { continue };
        let writes = history.iter().filter(|write| {
            let is_write = !matches!(write.action, Action::Get(_));
            is_write && write.key == read.key && write.invoked_us < read.invoked_us
        });
        let made = |write: &&Operation| match (&write.action, seen) {
            (Action::Put(value), Some(seen)) => value == seen,
            (Action::Delete, None) => true,
            _ => false,
        };
        let sources: Vec<&Operation> = writes.clone().filter(made).collect();
        // Absence is also how it all began.
        let untouched = seen.is_none() && writes.clone().all(|write| write.returned_us.is_none());
        let overwritten = |source: &Operation| {
            writes.clone().any(|write| write.returned_us.is_some() && source.precedes(write))
        };
        if !untouched && sources.iter().all(|source| overwritten(source)) {
            lost.push(format!("a write to {:?} is lost: {seen:?} is read at the end", read.key));
        }
    }
    lost
}
