//! One fault at a time in a cluster that is well: what others must take over, they have taken over soon.
//!
//! While everything goes wrong at once, nobody can say how soon is soon. So this comes after the healing.

use bytes::Bytes;
use ringfort_types::{Configuration, Consistency, Request, ShardId};

use crate::clients::Asker;
use crate::data::HUNG_US;
use crate::fragile::Damage;
use crate::judges::{HANDS_OVER, HEALS};
use crate::verdict::Question;
use crate::world::World;

/// After so long a node whose disk hangs, and knows it, leads nothing any more, in microseconds.
const LEADS_NOTHING_US: u64 = 1_500_000;
/// After so long a shard whose leader's table is damaged has another leader, in microseconds: before any of the others
/// would stand for election by itself.
const HANDED_OVER_US: u64 = 350_000;
/// After so long a node whose disk goes on has said all that waited for it, and follows again: what it says may be of an election that it
/// stood for before it knew that its disk hangs, in microseconds.
const FOLLOWS_US: u64 = 2_000_000;
/// For an answer of the cluster, in microseconds.
const ANSWERED_US: u64 = 5_000_000;

impl World {
    pub(crate) fn examine(&mut self, questions: &[Question]) {
        // Of fewer nodes there is none that could take over, or too few to elect it.
        if self.plan.examines && self.members().len() >= 3 {
            self.examine_hung_disk(questions);
            self.examine_damaged_leader(questions);
        }
    }

    /// A disk hangs: its node hands over all that it leads.
    fn examine_hung_disk(&mut self, questions: &[Question]) {
        let host = self.random.pick(&self.members());
        self.log(format_args!("exam: the disk of n{} hangs", host + 1));
        self.hosts[host].hangs_until_us = u64::MAX;
        self.insist(questions, self.now_us + ANSWERED_US);
        let is_hung =
            |world: &World| world.hosts[host].process.as_ref().is_some_and(|process| process.is_hung);
        if self.run_while(2 * HUNG_US, |world| !is_hung(world)) {
            self.run_until(self.now_us + LEADS_NOTHING_US);
            let shards = questions.iter().filter_map(|(_, question)| self.shard_of(question));
            // With a damaged replica, or one that is made anew, there may be too few that can vote.
            let led =
                shards.filter(|shard| self.is_whole(*shard) && self.judges.leader(*shard) == Some(host));
            let led: Vec<ShardId> = led.collect();
            if !led.is_empty() {
                let what = format_args!("the disk of n{} hangs, and it still leads {led:?}", host + 1);
                self.find(HANDS_OVER, what);
            }
        }
        self.hosts[host].hangs_until_us = 0;
        if !self.run_while(HUNG_US, is_hung) {
            self.find(HEALS, format_args!("n{} does not notice that its disk goes on", host + 1));
        }
        self.run_until(self.now_us + FOLLOWS_US);
    }

    /// The table of a shard is damaged where it is led: its leader hands over, and all that was there is there.
    fn examine_damaged_leader(&mut self, questions: &[Question]) {
        let Some((shard, host, key)) = self.whole_leader(questions) else { return };
        self.log(format_args!("exam: n{} leads shard {shard}, whose table is damaged", host + 1));
        self.spoil(host, shard, Damage { percent: 100, luck: 0 });
        let read = Request::Get { key, consistency: Consistency::Linearizable };
        let asked = self.ask(Asker::Judge, host, read, 3_000);
        let knows = |world: &World| {
            let process = world.hosts[host].process.as_ref();
            process.is_some_and(|process| process.met.iter().any(|(met, _)| *met == shard))
        };
        // Or it has handed over just before that, and another one has read.
        let is_met = self.run_while(ANSWERED_US, |world| !knows(world));
        if is_met && !self.run_while(HANDED_OVER_US, |world| world.judges.leader(shard) == Some(host)) {
            let what = format_args!(
                "n{} leads shard {shard}, its table is damaged, and nobody takes over",
                host + 1
            );
            self.find(HANDS_OVER, what);
        }
        self.run_while(ANSWERED_US, |world| !world.clients.told.contains_key(&asked));
        self.clients.told.remove(&asked);
    }

    /// A shard that is led where tables may be damaged and its own is not; and a key of it.
    fn whole_leader(&mut self, questions: &[Question]) -> Option<(ShardId, usize, Bytes)> {
        let members = self.members();
        let host = self.damaged_host.unwrap_or_else(|| self.random.pick(&members));
        questions.iter().find_map(|(_, question)| {
            let (shard, key) = (self.shard_of(question)?, question.keys().next()?);
            let is_led = self.judges.leader(shard) == Some(host);
            (is_led && self.is_whole(shard)).then(|| (shard, host, key.clone()))
        })
    }

    /// Whether no replica's table is damaged, all of them vote, and they can do without one.
    fn is_whole(&self, shard: ShardId) -> bool {
        self.hosts_of(shard).len() >= 3
            && self.is_settled(shard)
            && !self.hosts.iter().any(|host| host.tables.is_damaged(shard))
    }

    /// Whether every replica of this shard that runs takes all of them for voters.
    pub(crate) fn is_settled(&self, shard: ShardId) -> bool {
        let is_settled = |configuration: &Configuration| self.is_as_wanted(shard, configuration);
        // Whoever is no member any more, and finds nobody who could say so, knows of no later configuration.
        let members = self.members().into_iter().filter_map(|host| self.hosts.get(host));
        let processes = members.filter_map(|host| host.process.as_ref());
        processes.filter_map(|process| process.node.configuration(shard)).all(is_settled)
    }
}
