//! The end of a run: everything has healed, so everything must work, and nothing may be missing.

use bytes::Bytes;
use ringfort_types::{Consistency, Reply, Request, ShardId, slot_of};

use crate::clients::Asker;
use crate::host::{Fate, Host};
use crate::judges::{BOUNDED, HEALS, OLD_IS_REFUSED, linearizable, lost_writes};
use crate::world::World;

/// From the healing until every shard takes writes, at most, in microseconds (PITFALLS 13).
const HEALED_US_MAX: u64 = 10_000_000;
/// Until a question of the judge is answered.
const TIMEOUT_MS: u32 = 3_000;
/// How often replicas are compared that were not level the time before.
const COMPARISONS: u64 = 3;
/// Between two tries, in microseconds.
const AGAIN_US: u64 = 10_000;
/// How long a node has nothing to do before it is looked at whether it is at rest, in microseconds: what was asked elsewhere,
/// too, and has its answer, waits here until its time is over.
const REST_US: u64 = 3_500_000;

/// Until a damaged replica is made anew, in microseconds: it is asked for, the old one demoted and removed, the new one given a table.
const WHOLE_US_MAX: u64 = 20_000_000;
/// Until a cluster that changes its shape has the one that it should have, in microseconds.
const SHAPED_US_MAX: u64 = 60_000_000;
/// Until a node that is no member any more, and is started again, has heard so, in microseconds.
const REFUSED_US_MAX: u64 = 5_000_000;

/// A question of the judge, and the first node to be asked.
pub(crate) type Question = (usize, Request);

impl World {
    /// Looks at everything.
    pub(crate) fn reach_a_verdict(&mut self) {
        let began_us = self.now_us;
        if !self.run_while(HEALED_US_MAX, |world| !world.all_serve()) {
            return self.find(HEALS, format_args!("not all nodes serve within 10 s"));
        }
        self.run_while(HEALED_US_MAX, |world| world.clients.wait());
        self.give_up_pending();
        let newest = self.judges.layouts.newest();
        let go_by_it = |world: &World| {
            let mut processes = world.hosts.iter().filter_map(|host| host.process.as_ref());
            processes.all(|process| process.node.epoch() >= newest)
        };
        if !self.changes_shape && !self.run_while(HEALED_US_MAX, |world| !go_by_it(world)) {
            return self.find(HEALS, format_args!("not all nodes go by the layout of epoch {newest}"));
        }
        let Some(keys) = self.key_of_each_shard() else {
            return self.find(HEALS, format_args!("nodes that serve have no layout"));
        };
        let puts = self.write_to_all(&keys, began_us);
        self.healed_ms = (self.now_us - began_us) / 1_000;
        if self.changes_shape {
            self.come_to_rest();
        }
        let is_let_in = |host: &usize| self.hosts[*host].is_older && self.hosts[*host].fate == Fate::Here;
        if let Some(host) = (0..self.hosts.len()).find(is_let_in) {
            self.find(OLD_IS_REFUSED, format_args!("n{} goes on", host + 1));
        }
        self.examine(&puts);
        self.compare_replicas(&keys);
        self.wait_for_whole_groups();
        self.read_everything();
        let broken = lost_writes::find(&self.history);
        self.find_all(broken);
        let broken = self.judges.versions.find();
        self.find_all(broken);
        if let Err(verdict) = linearizable::check(&self.history) {
            self.find("histories are linearizable", format_args!("{verdict}"));
        }
        let rest_us = (self.now_us + REST_US).max(self.plan.length_ms * 1_000);
        self.run_until(rest_us);
        // Somebody may be about to take a lead back.
        let is_busy = |host: &Host| {
            let loads = host.process.as_ref().map(|process| process.node.loads());
            loads.into_iter().flatten().any(|load| load.now > 0)
        };
        self.run_while(REST_US, |world| world.hosts.iter().any(is_busy));
        self.look_for_leftovers();
    }

    /// Whether all members run and serve.
    fn all_serve(&self) -> bool {
        self.members().into_iter().all(|host| self.hosts.get(host).is_some_and(Host::is_serving))
    }

    /// The cluster gets the shape that it should have; and who is no member any more is refused.
    fn come_to_rest(&mut self) {
        if !self.run_while(SHAPED_US_MAX, |world| world.not_in_shape().is_some()) {
            let what = self.not_in_shape().unwrap_or_default();
            return self.find(HEALS, format_args!("the cluster does not come to rest: {what}"));
        }
        self.log(format_args!("the cluster has come to rest"));
        let gone: Vec<usize> = (0..self.hosts.len()).filter(|host| self.is_gone(*host)).collect();
        self.tell_where_others_are(&gone);
        for host in gone {
            self.start(host);
        }
        if !self.run_while(REFUSED_US_MAX, |world| world.not_in_shape().is_some()) {
            let what = self.not_in_shape().unwrap_or_default();
            self.find(HEALS, format_args!("after removed nodes were started again: {what}"));
        }
    }

    /// Asks all of this at once, and again, of one node after the other, what is answered by a failure. The
    /// answers; `None` where there is none in time.
    pub(crate) fn insist(&mut self, questions: &[Question], until_us: u64) -> Vec<Option<Reply>> {
        let mut answers = vec![None; questions.len()];
        let mut attempt = 0;
        let mut members = self.members();
        members.retain(|host| *host < self.hosts.len());
        while self.now_us < until_us && answers.contains(&None) {
            let mut asked = Vec::new();
            for (place, (host, request)) in questions.iter().enumerate() {
                if answers[place].is_none() {
                    // Nobody else could say anything.
                    let first = members.iter().position(|member| member == host).unwrap_or(*host);
                    let host = members[(first + attempt) % members.len()];
                    asked.push((place, self.ask(Asker::Judge, host, request.clone(), TIMEOUT_MS)));
                }
            }
            let left_us = until_us - self.now_us;
            self.run_while(left_us, |world| asked.iter().any(|(_, id)| !world.clients.told.contains_key(id)));
            for (place, id) in asked {
                if let Some(Some(reply)) = self.clients.told.remove(&id)
                    && !matches!(reply, Reply::Failed(_))
                {
                    answers[place] = Some(reply);
                }
            }
            attempt += 1;
            if answers.contains(&None) {
                let pause_us = self.now_us + AGAIN_US;
                self.run_until(pause_us);
            }
        }
        answers
    }

    /// A key that no client uses, for each shard.
    pub(crate) fn key_of_each_shard(&self) -> Option<Vec<(ShardId, Bytes)>> {
        let layout = self.layout.as_ref()?;
        let key_of = |shard| {
            let mut keys = (0..).map(|number| Bytes::from(format!("probe{number}")));
            keys.find(|key| layout.shard_of_slot(slot_of(key)) == shard).expect("keys reach every slot")
        };
        Some((1..=self.plan.shards).map(|number| (ShardId(number), key_of(ShardId(number)))).collect())
    }

    /// Every shard has a leader that takes a write.
    fn write_to_all(&mut self, keys: &[(ShardId, Bytes)], began_us: u64) -> Vec<Question> {
        let put = |(shard, key): &(ShardId, Bytes)| (0, Request::put(key.clone(), format!("after {shard}")));
        let questions: Vec<Question> = keys.iter().map(put).collect();
        let answers = self.insist(&questions, began_us + HEALED_US_MAX);
        for ((shard, _), answer) in keys.iter().zip(answers) {
            if answer.is_none() {
                self.find(HEALS, format_args!("shard {shard} takes no write within 10 s"));
            }
        }
        questions
    }

    /// All replicas whose tables are whole come level: they reach the same index, and have the same rows there. One that was just given a
    /// table beyond that index can't tell; it is asked about a later one.
    fn compare_replicas(&mut self, keys: &[(ShardId, Bytes)]) {
        let mut shards: Vec<ShardId> = keys.iter().map(|(shard, _)| *shard).collect();
        let mut behind = Vec::new();
        for _ in 0..COMPARISONS {
            behind = self.compare(&shards, self.now_us + HEALED_US_MAX / COMPARISONS);
            shards.retain(|shard| behind.iter().any(|(other, _, _)| other == shard));
        }
        for (shard, host, what) in behind {
            self.find(HEALS, format_args!("n{} does not bring shard {shard} to {what}", host + 1));
        }
    }

    /// Compares these shards' replicas at an index of now: those that don't answer in time.
    fn compare(&mut self, shards: &[ShardId], until_us: u64) -> Vec<(ShardId, usize, String)> {
        let mut behind = Vec::new();
        let marks: Vec<Question> =
            shards.iter().map(|shard| (0, Request::Digest { shard: *shard })).collect();
        let marks = self.insist(&marks, until_us);
        let mut questions = Vec::new();
        for (shard, mark) in shards.iter().zip(marks) {
            let Some(Reply::Written(receipt)) = mark else {
                behind.push((*shard, 0, format!("a mark: {mark:?}")));
                continue;
            };
            let is_whole = |host: &usize| !self.hosts[*host].tables.is_damaged(*shard);
            for host in self.hosts_of(*shard).into_iter().filter(is_whole) {
                let node = crate::network::node(host);
                questions.push((host, Request::DigestAt { node, shard: *shard, index: receipt.index }));
            }
        }
        let answers = self.insist(&questions, until_us);
        for ((host, request), answer) in questions.into_iter().zip(answers) {
            let Request::DigestAt { shard, index, .. } = request else { continue };
            let Some(Reply::Digest { hash, rows, .. }) = answer else {
                behind.push((shard, host, index.to_string()));
                continue;
            };
            let broken = self.judges.digests.taken(host, shard, index, (hash, rows));
            self.find_all(broken.into_iter().collect());
        }
        behind
    }

    /// Whatever replica is known to be damaged is made anew, and votes again.
    fn wait_for_whole_groups(&mut self) {
        let shards: Vec<ShardId> = self.shards().collect();
        let is_whole = |world: &World, shard: &ShardId| {
            let is_known = |host: &Host| {
                let met = host.process.iter().flat_map(|process| &process.met);
                host.tables.is_damaged(*shard) && met.into_iter().any(|(met, _)| met == shard)
            };
            world.is_settled(*shard) && !world.hosts.iter().any(is_known)
        };
        self.run_while(WHOLE_US_MAX, |world| !shards.iter().all(|shard| is_whole(world, shard)));
        let left: Vec<&ShardId> = shards.iter().filter(|shard| !is_whole(self, shard)).collect();
        for shard in left {
            self.find(HEALS, format_args!("the group of shard {shard} is not whole again"));
        }
    }

    /// Every key, through every node.
    fn read_everything(&mut self) {
        let consistency = Consistency::Linearizable;
        let keys = self.clients.keys.all();
        let members = self.members();
        let get = |key: &Bytes| Request::Get { key: key.clone(), consistency };
        let questions: Vec<Question> =
            keys.iter().flat_map(|key| members.iter().map(move |host| (*host, get(key)))).collect();
        let answers = self.insist(&questions, self.now_us + HEALED_US_MAX);
        for ((host, request), answer) in questions.iter().zip(answers) {
            if answer.is_none() {
                let what =
                    format_args!("no answer to {} through n{}", crate::requests::show(request), host + 1);
                self.find(HEALS, what);
            }
        }
    }

    /// Nobody asks for anything any more, so nothing may be waiting.
    fn look_for_leftovers(&mut self) {
        for at in self.members() {
            let Some(process) = self.hosts[at].process.as_ref() else {
                self.find(HEALS, format_args!("n{} does not run at the end", at + 1));
                continue;
            };
            for load in process.node.loads().into_iter().filter(|load| load.now > 0) {
                self.find(
                    BOUNDED,
                    format_args!("n{} is at rest, and has {} {}", at + 1, load.now, load.what),
                );
            }
        }
    }
}
