//! What goes wrong, and how it ends.

use ringfort_node::Event;

use crate::host::{Trap, Work};
use crate::plan::Fault;
use crate::world::{Next, World};

/// A process that is asked to stop is gone after so long, in microseconds.
const STOP_US_MAX: u64 = 5_000_000;

/// The end of something that went wrong.
#[derive(Debug)]
pub(crate) enum Cure {
    /// These links may be made again.
    Unblock(Vec<(usize, usize)>),
    Quicken {
        from: usize,
        to: usize,
    },
    /// The pause with this number is over.
    Resume {
        host: usize,
        pause: u64,
    },
}

impl World {
    /// Something goes wrong, if the plan has anything.
    pub(crate) fn strike(&mut self) {
        if self.is_calm || self.plan.faults.is_empty() {
            return;
        }
        let gap_us = self.random.between(20_000, self.plan.fault_gap_ms * 1_000);
        self.schedule(gap_us, Next::Fault);
        let fault = self.random.pick(&self.plan.faults.clone());
        let host = self.random.below(self.hosts.len() as u64) as usize;
        let other =
            (host + 1 + self.random.below(self.hosts.len().max(2) as u64 - 1) as usize) % self.hosts.len();
        self.log(format_args!("fault: {fault:?}, n{} (n{})", host + 1, other + 1));
        let runs = self.hosts[host].process.is_some();
        match fault {
            Fault::Kill if runs => self.restart(host, false),
            Fault::PowerLoss if runs => self.restart(host, true),
            Fault::Blackout => {
                for host in 0..self.hosts.len() {
                    if self.hosts[host].process.is_some() {
                        self.restart(host, true);
                    }
                }
            }
            Fault::KillDuringWrite if runs => self.hosts[host].trap = Some(Trap::Kill),
            Fault::PowerLossDuringWrite if runs => self.hosts[host].trap = Some(Trap::PowerLoss),
            Fault::FailedSync if runs => self.hosts[host].trap = Some(Trap::FailedSync),
            Fault::Stop => {
                if let Some(process) = self.hosts[host].process.as_mut()
                    && !process.is_stopping
                {
                    process.is_stopping = true;
                    let (life, pauses) = (self.hosts[host].life, self.hosts[host].pauses);
                    self.schedule(STOP_US_MAX, Next::MustBeGone { host, life, pauses });
                    self.work(host, Work::Hear(Event::Stop));
                }
            }
            Fault::Isolate => {
                let others = (0..self.hosts.len()).filter(|other| *other != host);
                self.block(others.flat_map(|other| [(host, other), (other, host)]).collect());
            }
            Fault::OneWay if host != other => self.block(vec![(host, other)]),
            Fault::Cut if host != other => self.block(vec![(host, other), (other, host)]),
            Fault::BreakLink if host != other => self.break_link(host, other),
            Fault::SlowLink if host != other => {
                self.network.link(host, other).slow_us = self.random.between(10_000, 300_000);
                let after_us = self.random.between(100_000, 2_000_000);
                self.schedule(after_us, Next::Cure(Cure::Quicken { from: host, to: other }));
            }
            Fault::Pause if runs => {
                self.hosts[host].pauses += 1;
                let pause = self.hosts[host].pauses;
                self.hosts[host].paused = Some(pause);
                let after_us = self.random.between(10_000, 2_500_000);
                self.schedule(after_us, Next::Cure(Cure::Resume { host, pause }));
            }
            Fault::ClockJump => {
                let by_ms = self.hosts[host].clock.jump(&mut self.random);
                self.log(format_args!("n{}'s wall clock jumps by {by_ms} ms", host + 1));
            }
            _ => {}
        }
    }

    pub(crate) fn must_be_gone(&mut self, at: usize, life: u64, pauses: u64) {
        let host = &self.hosts[at];
        if host.life == life && host.pauses == pauses && host.paused.is_none() {
            self.find(format_args!("n{} was asked to stop, and still runs after 5 s", at + 1));
        }
    }

    fn block(&mut self, links: Vec<(usize, usize)>) {
        for &(from, to) in &links {
            self.network.link(from, to).blocked += 1;
            self.break_link(from, to);
        }
        let after_us = self.random.between(50_000, 4_000_000);
        self.schedule(after_us, Next::Cure(Cure::Unblock(links)));
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
            Cure::Quicken { from, to } => self.network.link(from, to).slow_us = 0,
            Cure::Resume { host, pause } => {
                if self.hosts[host].paused == Some(pause) {
                    self.resume(host);
                }
            }
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
        self.network.heal();
        for at in 0..self.hosts.len() {
            self.hosts[at].trap = None;
            if self.hosts[at].paused.is_some() {
                self.resume(at);
            }
            if self.hosts[at].process.is_none() {
                let life = self.hosts[at].life;
                self.schedule(1_000, Next::Start { host: at, life });
            }
        }
    }
}
