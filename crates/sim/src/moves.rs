//! Members that come back at another address: one, two that change places, or all at once. Or one where nobody finds it, and back.
//!
//! Whoever moves is started again, or was down anyway. It is told, as by `--join`, where those are now that have moved before: a node that
//! was away for long may remember none of the places where the others are. So of any two the one that moved last can find the other.
//! All others look for a member where their layout has it, or where it has said that it is.

use ringfort_node::is_member;
use ringfort_storage::DataDir;

use crate::ambushes::Step;
use crate::host::Fate;
use crate::network::node;
use crate::plan::Fault;
use crate::random::Random;
use crate::world::{Next, World};

/// So many of a hundred that move alone go on to yet another address soon.
const AGAIN_PERCENT: u64 = 40;
/// How soon, in microseconds: the layout may not know of the first one yet.
const AGAIN_US: (u64, u64) = (100_000, 2_500_000);
/// So many of a hundred of the others go where nobody finds them, and back after that.
const ASTRAY_PERCENT: u64 = 50;
/// How soon, in microseconds after they have started there: the others have them there by then, as a rule.
const ASTRAY_US: (u64, u64) = (1_000_000, 6_000_000);
/// All that move at once are started again one after the other, within so long, in microseconds.
const ALL_US: u64 = 500_000;

impl World {
    /// Members move.
    pub(crate) fn relocate(
        &mut self,
        fault: Fault,
        (host, other): (usize, usize),
        for_us: u64,
        random: &mut Random,
    ) {
        match fault {
            Fault::Swap => {
                let may_swap = |at| self.may_move(at) && self.is_known_to_be_there(at);
                if host != other && may_swap(host) && may_swap(other) {
                    let (here, there) = (self.hosts[host].address.clone(), self.hosts[other].address.clone());
                    self.move_to(host, there, for_us);
                    self.move_to(other, here, for_us + random.below(ALL_US));
                    self.tell_where_others_are(&[host, other]);
                }
            }
            Fault::MoveAll => {
                let all: Vec<usize> = (0..self.hosts.len()).filter(|host| self.may_move(*host)).collect();
                for host in &all {
                    let address = self.fresh_address(*host);
                    self.move_to(*host, address, for_us + random.below(ALL_US));
                }
                self.tell_where_others_are(&all);
            }
            _ => {
                if random.chance(AGAIN_PERCENT) {
                    let after_us = for_us + random.between(AGAIN_US.0, AGAIN_US.1);
                    let for_us = random.below(for_us + 1);
                    self.schedule(after_us, Next::Step(Box::new(Step::Move { host, for_us })));
                } else if random.chance(ASTRAY_PERCENT) && self.may_move(host) {
                    self.hosts[host].strayed_from = Some(self.hosts[host].address.clone());
                    let after_us = for_us + random.between(ASTRAY_US.0, ASTRAY_US.1);
                    let address = self.fresh_address(host);
                    self.move_to(host, address, for_us);
                    self.tell_where_others_are(&[host]);
                    self.schedule(after_us, Next::Step(Box::new(Step::GoBack { host })));
                    return;
                }
                self.move_alone(host, for_us);
            }
        }
    }

    /// A member goes to an address where nobody has been.
    pub(crate) fn move_alone(&mut self, host: usize, for_us: u64) {
        if self.may_move(host) {
            let address = self.fresh_address(host);
            self.move_to(host, address, for_us);
            self.tell_where_others_are(&[host]);
        }
    }

    /// A member that nobody finds where it is goes back to where it was: it has heard nothing since.
    pub(crate) fn go_back(&mut self, host: usize) {
        if let Some(address) = self.hosts[host].strayed_from.take() {
            self.move_to(host, address, 0);
            self.tell_where_others_are(&[host]);
        }
    }

    /// Whether a host is a member's that can come back elsewhere: before the birth of its cluster it could not.
    fn may_move(&self, at: usize) -> bool {
        let host = &self.hosts[at];
        let is_in_place =
            host.shelf.is_none() && host.rot.is_none() && !host.is_older && host.strayed_from.is_none();
        let stored = || DataDir::look(&host.disk).ok().flatten();
        host.fate == Fate::Here
            && is_in_place
            && self.members().contains(&at)
            && stored().is_some_and(|stored| stored.birth.as_ref().is_some_and(is_member))
    }

    /// Whether the layout has a member where it is. Whoever changes places again before that may wait for somebody who is not there.
    fn is_known_to_be_there(&self, host: usize) -> bool {
        let member = self.layout.as_ref().and_then(|layout| layout.member(node(host)));
        member.is_some_and(|member| member.address == self.hosts[host].address)
    }

    fn fresh_address(&self, host: usize) -> String {
        format!("10.0.{}.{}:50051", self.hosts[host].moves + 1, host + 1)
    }

    fn move_to(&mut self, host: usize, address: String, for_us: u64) {
        self.log(format_args!("n{} goes to {address}", host + 1));
        self.hosts[host].address = address;
        self.hosts[host].moves += 1;
        if self.hosts[host].process.is_some() {
            self.restart_after(host, false, for_us);
        }
    }

    /// These are told, by their flags, where all others are that have ever moved, also if they are back where they were born: the layout of
    /// who is told may have them elsewhere.
    pub(crate) fn tell_where_others_are(&mut self, who: &[usize]) {
        let moved = self.hosts.iter().filter(|host| host.moves > 0);
        let moved: Vec<String> = moved.map(|host| host.address.clone()).collect();
        for host in who {
            self.hosts[*host].told.clone_from(&moved);
        }
    }

    /// Whether a process looks for another host where that is.
    pub(crate) fn finds(&self, from: usize, to: usize) -> bool {
        let (host, address) = (&self.hosts[from], &self.hosts[to].address);
        let Some(process) = host.process.as_ref().filter(|_| self.hosts[to].strayed_from.is_none()) else {
            return false;
        };
        let Some(layout) = process.node.layout() else { return *address == self.hosts[to].first_address };
        let is_in_layout = layout.member(node(to)).is_some_and(|member| member.address == *address);
        let is_said = process.node.moved().any(|said| said == (node(to), &**address));
        is_in_layout || is_said || host.told.contains(address)
    }

    /// Once all is at rest: what somebody has wrong about where a member is.
    pub(crate) fn not_where_it_is(&self) -> Option<String> {
        let layout = self.layout.as_ref()?;
        layout.members.iter().find_map(|member| {
            let host = self.hosts.get(crate::network::host_of(member.id))?;
            let (n, is, has) = (member.id, &host.address, &member.address);
            if is != has {
                return Some(format!("n{n} is at {is}, and the layout has it at {has}"));
            }
            let moved: Vec<_> = host.process.as_ref()?.node.moved().collect();
            (!moved.is_empty()).then(|| format!("n{n} has others elsewhere than the layout: {moved:?}"))
        })
    }
}
