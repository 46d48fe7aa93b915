//! What goes wrong, and how it ends.

use ringfort_node::Event;
use ringfort_types::limits::TICK_MS;

use crate::host::{Fate, Trap, Work};
use crate::judges::{ENDS_WHEN_ASKED, WIPED_IS_REFUSED};
use crate::plan::{Fault, Strike};
use crate::random::Random;
use crate::world::{Next, World};

/// A process that has heard that it is to stop is gone after so many of its ticks: 3,550 ms by its node, and the little that its end takes
/// when it is slow.
const STOP_TICKS_MAX: u64 = 3_800 / TICK_MS;

/// Writes and reads by passers-by while a leader is deposed.
const POKES: u32 = 30;

/// The end of something that went wrong.
#[derive(Debug)]
pub(crate) enum Cure {
    /// These links may be made again.
    Unblock(Vec<(usize, usize)>),
    /// A node that was cut off can speak again, but hears little.
    Relent { host: usize, other: usize, for_us: u64, hears_percent: u64 },
    /// All links of a node behave again.
    MendAll { host: usize },
    /// This link behaves again.
    Mend { from: usize, to: usize },
    /// The pause with this number is over.
    Resume { host: usize, pause: u64 },
    /// It works at its own speed again.
    Quicken { host: usize },
    /// There is room on its disk again.
    MakeRoom { host: usize },
    /// It gets its own directory back.
    RightDisk { host: usize },
}

impl World {
    /// Something goes wrong.
    pub(crate) fn strike(&mut self, strike: Strike) {
        if self.is_calm {
            return;
        }
        let Strike { number, fault, for_ms, luck, .. } = strike;
        let (host, other) = self.aim(&strike);
        self.log(format_args!("fault {number}: {fault:?}, n{} (n{}), {for_ms} ms", host + 1, other + 1));
        let runs = self.hosts[host].process.is_some();
        let for_us = for_ms * 1_000;
        let mut random = Random::new(luck);
        match fault {
            Fault::Kill if runs => self.restart_after(host, false, for_us),
            Fault::PowerLoss if runs => self.restart_after(host, true, for_us),
            Fault::Blackout => {
                for host in 0..self.hosts.len() {
                    if self.hosts[host].process.is_some() {
                        let after_us = for_us + random.below(200_000);
                        self.restart_after(host, true, after_us);
                    }
                }
            }
            Fault::KillDuringWrite if runs => self.hosts[host].trap = Some((Trap::Kill, for_us)),
            Fault::PowerLossDuringWrite if runs => self.hosts[host].trap = Some((Trap::PowerLoss, for_us)),
            Fault::FailedSync if runs => self.hosts[host].trap = Some((Trap::FailedSync, for_us)),
            Fault::DiskFull => {
                self.hosts[host].fill_up();
                self.schedule(for_us, Next::Cure(Cure::MakeRoom { host }));
            }
            Fault::DiskSlow => self.hosts[host].slow_until_us = self.now_us + for_us,
            Fault::DiskHangs => self.hosts[host].hangs_until_us = self.now_us + for_us,
            Fault::Rot if runs => self.rot(host, &mut random, for_us),
            Fault::LostEnd if runs => self.lose_end(host, &mut random, for_us),
            Fault::DamagedTable if runs => self.damage_table(host, &mut random),
            Fault::WrongDisk if runs => self.mount_wrong_disk(host, for_us),
            Fault::Stop => self.ask_to_stop(host),
            Fault::Isolate => {
                let others = (0..self.hosts.len()).filter(|other| *other != host);
                self.block(others.flat_map(|other| [(host, other), (other, host)]).collect(), for_us);
            }
            Fault::OneWay if host != other => self.block(vec![(host, other)], for_us),
            Fault::Cut if host != other => self.block(vec![(host, other), (other, host)], for_us),
            Fault::Depose if host != other => {
                self.lose_frames_of(host, 100, 100);
                let election_us = random.between(500_000, 800_000);
                let (hears_percent, for_us) = (random.between(5, 50), for_us.max(400_000));
                self.schedule(election_us, Next::Cure(Cure::Relent { host, other, for_us, hears_percent }));
                let keys = self.keys_led_by(host);
                self.schedule(election_us, Next::Poke { host, keys, left: POKES });
            }
            Fault::Doze | Fault::Abdicate | Fault::Blink if runs && host != other => {
                self.ambush(fault, host, other, for_us, &mut random);
            }
            Fault::BreakLink if host != other => self.break_link(host, other),
            Fault::SlowLink | Fault::LoseFrames | Fault::ReorderFrames | Fault::RepeatFrames
                if host != other =>
            {
                let link = self.network.link(host, other);
                match fault {
                    Fault::SlowLink => link.slow_us = random.between(10_000, 300_000),
                    Fault::LoseFrames => link.loses_percent = random.between(5, 70),
                    Fault::RepeatFrames => link.repeats_percent = random.between(10, 80),
                    _ => link.jitter_us = random.between(5_000, 400_000),
                }
                self.schedule(for_us, Next::Cure(Cure::Mend { from: host, to: other }));
            }
            Fault::Pause if runs => {
                self.pause(host, for_us);
            }
            Fault::SlowProcess => {
                self.hosts[host].slowness = random.between(3, 60);
                self.schedule(for_us, Next::Cure(Cure::Quicken { host }));
            }
            Fault::ClockJump => {
                let by_ms = self.hosts[host].clock.jump(&mut random);
                self.log(format_args!("n{}'s wall clock jumps by {by_ms} ms", host + 1));
            }
            _ if fault.changes_shape() => self.reshape(fault, (host, other), for_us, luck),
            _ => {}
        }
    }

    /// Whom a strike hits: in a cluster that has grown, also those that have joined, and nobody who is lost.
    fn aim(&self, strike: &Strike) -> (usize, usize) {
        if self.hosts.len() == self.plan.nodes && !strike.fault.changes_shape() {
            return (strike.host, strike.other);
        }
        let mut random = Random::new(strike.luck ^ 0x61_696d);
        let here: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host].fate == Fate::Here).collect();
        if here.is_empty() {
            return (strike.host, strike.other);
        }
        let host = random.below(here.len() as u64) as usize;
        let other = host + 1 + random.below((here.len() as u64).max(2) - 1) as usize;
        (here[host], here[other % here.len()])
    }

    pub(crate) fn pause(&mut self, host: usize, for_us: u64) {
        self.hosts[host].pauses += 1;
        let pause = self.hosts[host].pauses;
        self.hosts[host].paused = Some(pause);
        self.schedule(for_us, Next::Cure(Cure::Resume { host, pause }));
    }

    /// So many of a hundred frames from this node get lost, and so many to it.
    pub(crate) fn lose_frames_of(&mut self, host: usize, from_percent: u64, to_percent: u64) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.network.link(host, other).loses_percent = from_percent;
            self.network.link(other, host).loses_percent = to_percent;
        }
    }

    pub(crate) fn ask_to_stop(&mut self, host: usize) {
        if let Some(process) = self.hosts[host].process.as_mut()
            && !process.is_stopping
        {
            process.is_stopping = true;
            self.work(host, Work::Hear(Event::Stop));
        }
    }

    /// A process has ticked. If it is to stop it has not much longer, whatever the others, the network and its disk do.
    ///
    /// What counts is its own time, from when it hears of it. Before, the judge counted five seconds of the world's from when it was asked, and
    /// excused only a pause that began later: who was asked while it stood still had that much less time.
    pub(crate) fn count_down(&mut self, at: usize) {
        let Some(process) = self.hosts[at].process.as_mut() else { return };
        let Some(ticks) = process.stopping_ticks.as_mut() else { return };
        *ticks += 1;
        if *ticks == STOP_TICKS_MAX {
            self.find(ENDS_WHEN_ASKED, format_args!("n{} was asked to stop, and still runs", at + 1));
        }
    }

    /// It is started with an empty directory, as when its volume was not mounted.
    fn mount_wrong_disk(&mut self, host: usize, for_us: u64) {
        let born = self.is_born(host);
        // Were all directories empty, they would be a new cluster.
        let others_know =
            (0..self.plan.nodes).any(|other| other != host && self.hosts[other].shelf.is_none());
        // One that has joined would be refused when it asks to.
        if host >= self.plan.nodes
            || !born
            || self.hosts.iter().any(|host| host.moves > 0)
            || !others_know
            || self.hosts[host].shelf.is_some()
            || self.hosts[host].rot.is_some()
        {
            return;
        }
        self.end(host, false);
        self.hosts[host].shelve();
        let life = self.hosts[host].life;
        self.schedule(10_000, Next::Start { host, life });
        self.schedule(for_us + 1_500_000, Next::Cure(Cure::RightDisk { host }));
    }

    fn remount(&mut self, host: usize) {
        if self.hosts[host].shelf.is_none() {
            return;
        }
        if self.hosts[host].is_serving() {
            self.find(WIPED_IS_REFUSED, format_args!("n{} serves with an empty directory", host + 1));
        }
        self.end(host, false);
        self.hosts[host].unshelve();
        self.log(format_args!("n{} has its own directory again", host + 1));
        let life = self.hosts[host].life;
        self.schedule(10_000, Next::Start { host, life });
    }

    pub(crate) fn block(&mut self, links: Vec<(usize, usize)>, for_us: u64) {
        for &(from, to) in &links {
            self.network.link(from, to).blocked += 1;
            self.break_link(from, to);
        }
        self.schedule(for_us, Next::Cure(Cure::Unblock(links)));
    }

    pub(crate) fn cure(&mut self, cure: Cure) {
        match cure {
            // After the great healing there is nothing left to unblock.
            Cure::Unblock(links) => {
                for (from, to) in links {
                    let link = self.network.link(from, to);
                    link.blocked = link.blocked.saturating_sub(1);
                }
            }
            // After the great healing there is nothing to relent about.
            Cure::Relent { .. } if self.is_calm => {}
            Cure::Relent { host, other, for_us, hears_percent } => {
                self.log(format_args!("n{} can speak again, and hears little", host + 1));
                self.lose_frames_of(host, 0, 100 - hears_percent);
                self.network.link(other, host).loses_percent = 100;
                self.schedule(for_us, Next::Cure(Cure::MendAll { host }));
            }
            Cure::MendAll { host } => self.lose_frames_of(host, 0, 0),
            Cure::Mend { from, to } => self.network.link(from, to).mend(),
            Cure::Resume { host, pause } => {
                if self.hosts[host].paused == Some(pause) {
                    self.resume(host);
                }
            }
            Cure::Quicken { host } => self.hosts[host].slowness = 1,
            Cure::MakeRoom { host } => self.hosts[host].make_room(),
            Cure::RightDisk { host } => self.remount(host),
        }
    }

    fn resume(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.paused = None;
        let life = host.life;
        self.log(format_args!("n{} goes on", at + 1));
        // What was queued is handled first, in order.
        for work in std::mem::take(&mut self.hosts[at].stalled) {
            if self.hosts[at].life == life {
                self.work(at, work);
            }
        }
    }

    /// From now on everything works.
    pub(crate) fn heal(&mut self) {
        self.log(format_args!("everything heals"));
        self.is_calm = true;
        // Nobody waits any more for the moment when it hurts most.
        (self.sundered, self.retiring, self.antedating) = (None, None, None);
        self.network.heal();
        // Whoever was removed, and has not heard so, is told where it would.
        let gone: Vec<usize> = (0..self.hosts.len()).filter(|host| !self.is_member(*host)).collect();
        self.tell_where_others_are(&gone);
        for at in 0..self.hosts.len() {
            self.hosts[at].trap = None;
            self.hosts[at].slowness = 1;
            self.hosts[at].hangs_until_us = 0;
            self.hosts[at].slow_until_us = 0;
            self.hosts[at].make_room();
            self.remount(at);
            self.go_back(at);
            if self.hosts[at].paused.is_some() {
                self.resume(at);
            }
            if self.hosts[at].process.is_none() && self.hosts[at].fate == Fate::Here {
                let life = self.hosts[at].life;
                self.schedule(1_000, Next::Start { host: at, life });
            }
        }
    }
}
