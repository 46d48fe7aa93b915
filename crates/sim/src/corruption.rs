//! Stored bytes that change or go: in a log, which must be noticed at the next start, and in a table, which is noticed by who
//! reads it.

use ringfort_node::Event;
use ringfort_types::ShardId;

use crate::fragile::Damage;
use crate::host::Rot;
use crate::judges::NODE_GOES_ON;
use crate::random::Random;
use crate::world::{Next, World};

/// Where a node's log is, and how a batch begins in it (`docs/formats/log.md`).
const LOG_DIR: &str = "lane-0/log";
const FRAME: &[u8] = b"RFBF";
/// Most batches that a log loses at its end.
const LOST_MAX: u64 = 4;
/// Shares of a table's rows that can't be read any more.
const DAMAGED_PERCENTS: [u64; 3] = [10, 40, 100];
/// Writes and reads by passers-by, so that damage is met soon.
const POKES: u32 = 5;

impl World {
    /// A byte of the log changes, in a batch that is not the last.
    pub(crate) fn rot(&mut self, host: usize, random: &mut Random, for_us: u64) {
        if !self.has_its_own_log(host) {
            return;
        }
        let files = self.segments(host);
        let Some((path, begins)) = pick(&files, random) else { return };
        // The last two batches may be overwritten, or never have been synced.
        if begins.len() < 4 {
            return;
        }
        let offset = random.below(begins[begins.len() - 3] as u64);
        let mask = random.between(1, 255) as u8;
        self.end(host, false);
        self.log(format_args!("n{}: byte {offset} of {path} rots", host + 1));
        self.change_log(host, Rot { path: path.clone(), changes: vec![(offset, mask)] }, for_us);
    }

    /// A process ends in good order, and the end of its log is lost.
    pub(crate) fn lose_end(&mut self, host: usize, random: &mut Random, for_us: u64) {
        // Without room, how far the log goes is not recorded.
        let takes_nothing = self.hosts[host].lacks_room || self.now_us < self.hosts[host].hangs_until_us;
        if !self.has_its_own_log(host) || takes_nothing {
            return;
        }
        let process = self.hosts[host].process.as_mut().expect("only of those that run");
        let is_closed = process.log.as_mut().is_some_and(|log| log.close().is_ok());
        self.end(host, false);
        let files = self.segments(host);
        let last = files.last().filter(|(_, begins)| is_closed && !begins.is_empty());
        let Some((path, begins)) = last else { return self.restart_after(host, false, for_us) };
        let count = random.between(1, LOST_MAX.min(begins.len() as u64)) as usize;
        let from = begins[begins.len() - count];
        let bytes = self.hosts[host].disk.disk.bytes(path).unwrap_or_default();
        let kept = (from..bytes.len()).filter(|at| bytes[*at] != 0);
        let changes = kept.map(|at| (at as u64, bytes[at])).collect();
        self.log(format_args!("n{}: the last {count} batches of {path} are lost", host + 1));
        self.change_log(host, Rot { path: path.clone(), changes }, for_us);
    }

    fn has_its_own_log(&self, host: usize) -> bool {
        self.hosts[host].shelf.is_none() && self.hosts[host].rot.is_none()
    }

    /// The log's segments in their order, each with where its batches begin.
    fn segments(&self, host: usize) -> Vec<(String, Vec<usize>)> {
        let disk = &self.hosts[host].disk.disk;
        let mut names = ringfort_storage::Disk::list(disk, LOG_DIR).unwrap_or_default();
        names.sort_unstable();
        let begins = |path: &str| {
            let bytes = disk.bytes(path).unwrap_or_default();
            (0..bytes.len().saturating_sub(3)).filter(|at| bytes[*at..].starts_with(FRAME)).collect()
        };
        let paths = names.iter().map(|name| format!("{LOG_DIR}/{name}"));
        paths
            .map(|path| (path.clone(), begins(&path)))
            .filter(|(_, begins): &(_, Vec<_>)| !begins.is_empty())
            .collect()
    }

    fn change_log(&mut self, host: usize, rot: Rot, for_us: u64) {
        let host_now = &mut self.hosts[host];
        rot.turn_over(&host_now.disk.disk);
        host_now.rot = Some(rot);
        let life = host_now.life;
        self.schedule(for_us, Next::Start { host, life });
    }

    /// A part of a table can't be read from now on. It happens to one host of a run, so that of each shard all other
    /// copies are whole; half the time to a shard that it leads.
    pub(crate) fn damage_table(&mut self, host: usize, random: &mut Random) {
        let is_another = self.damaged_host.is_some_and(|damaged| damaged != host);
        if self.hosts.len() < 3 || is_another || self.hosts[host].shelf.is_some() {
            return;
        }
        let mut keys = self.keys_led_by(host);
        if keys.is_empty() || random.chance(50) {
            keys = self.clients.keys.settable().cloned().collect();
            keys.retain(|key| {
                self.shard_of_key(key).is_some_and(|shard| self.hosts_of(shard).contains(&host))
            });
        }
        let Some(key) = (!keys.is_empty()).then(|| keys[random.below(keys.len() as u64) as usize].clone())
        else {
            return;
        };
        let shard = self.shard_of_key(&key).expect("looked at above");
        if self.changes_shape && !self.can_lose(host, Some(shard)) {
            return;
        }
        let damage = Damage { percent: random.pick(&DAMAGED_PERCENTS), luck: random.next() };
        self.spoil(host, shard, damage);
        self.poke(host, vec![key], POKES);
    }

    pub(crate) fn spoil(&mut self, host: usize, shard: ShardId, damage: Damage) {
        self.log(format_args!("n{}: {} % of shard {shard} can't be read any more", host + 1, damage.percent));
        self.damaged_host = Some(host);
        self.hosts[host].tables.damage(shard, damage);
    }

    /// A process meets damage, and tells its node once; entries can still be applied, or not.
    pub(crate) fn meet_damage(&mut self, at: usize, shard: ShardId, reason: String, is_readable: bool) {
        if !self.hosts[at].tables.is_damaged(shard) {
            self.find(NODE_GOES_ON, format_args!("n{}: shard {shard} is damaged: {reason}", at + 1));
        }
        let process = self.hosts[at].process.as_mut().expect("only processes meet damage");
        if !is_readable {
            process.lost.insert(shard);
        }
        if process.met.insert((shard, is_readable)) {
            process.newly_damaged.push(shard);
            self.log(format_args!("n{} meets damage in shard {shard}: {reason}", at + 1));
            self.hear(at, Event::Damaged { shard, reason, is_readable });
        }
    }
}

fn pick<'a, T>(from: &'a [T], random: &mut Random) -> Option<&'a T> {
    (!from.is_empty()).then(|| &from[random.below(from.len() as u64) as usize])
}
