//! Members that are at another address than the layout says: how they are found, and how the layout comes to say so.
//!
//! A node knows its own address from its flags. If the layout has another one, the node says where it is in a [`Hello`] each second, to
//! all whom it can reach. Whoever hears that connects to it there, and asks the meta group for a layout that has the new address
//! ([`LayoutChange::Move`]). Nobody needs to know in advance that a node moves, so all of them can move at once, as long as each can
//! reach one other that can reach the rest.
//!
//! The layout that a node goes by may be older than the one that the others go by: it was elsewhere meanwhile, and never heard that they
//! had it there. So it can't tell by its layout alone whether it is looked for where it is. Whoever finds it reports to it. To those
//! whom it reaches and who do not report it says where it is, too.
//!
//! Invariants:
//! - an address is taken from the process alone that speaks for its member: with that member's incarnation, and as the one whose replicas
//!   are listened to (`marks`). So the second of two processes on copies of one directory moves nothing. (Where it is itself each process
//!   knows, and looks for the others accordingly; nobody else goes by that);
//! - two members never have one address in a layout. Those that change places move together;
//! - a member is looked for wherever it says that it is, also where another one is as far as the layout knows: that one may be gone for
//!   good, and only a majority can change the layout;
//! - no safety depends on an address: a connection that leads to somebody else is closed by whoever is there.

use std::collections::BTreeMap;

use ringfort_ring::{Layout, Member};
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Hello, LayoutChange, NodeId, PeerMessage, Refusal, RefusalKind, check_address};

use crate::Effect;
use crate::leave::Phase;
use crate::node::Node;

/// A member that has moved says so every second. What it has not said for so long is not passed on any more.
const SAID_US: u64 = 2_500_000;
/// Ticks between two lines about an address that another member has.
const TOLD_TICKS: u64 = 5_000 / TICK_MS;
/// After so long a member is refused that says it is where another one is, which may have moved itself.
const REFUSED_US: u64 = 3_000_000;

/// Where a member says that it is.
#[derive(Debug)]
struct Said {
    address: String,
    since_us: u64,
    last_us: u64,
    /// When it was last heard of it that it knows a later layout than this node does, in which it may be there.
    ahead_us: u64,
}

/// Where members say that they are, other than where the layout has them.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    said: BTreeMap<NodeId, Said>,
}

impl Moving {
    /// A member's address, if it is not where the layout has it.
    pub(crate) fn address(&self, node: NodeId) -> Option<&str> {
        self.said.get(&node).map(|said| &*said.address)
    }

    /// A member is there, and the layout may have it elsewhere.
    fn hear(&mut self, node: NodeId, address: &str, now_us: u64, layout: &Layout) {
        if let Some(said) = self.said.get_mut(&node).filter(|said| {
            said.address == address && said.is_fresh(now_us) || planted::is(Bug::OlderMoveWins)
        }) {
            said.last_us = now_us;
            return;
        }
        let said = Said { address: address.to_owned(), since_us: now_us, last_us: now_us, ahead_us: 0 };
        self.said.insert(node, said);
        self.follow(layout);
    }

    /// A member knows a later layout than this node does.
    pub(crate) fn hear_ahead(&mut self, node: NodeId, now_us: u64) {
        if let Some(said) = self.said.get_mut(&node) {
            said.ahead_us = now_us;
        }
    }

    /// Forgets whoever is where the layout has it, and whoever is no member.
    fn follow(&mut self, layout: &Layout) {
        let is_elsewhere =
            |node, said: &Said| layout.member(node).is_some_and(|member| member.address != said.address);
        self.said.retain(|node, said| is_elsewhere(*node, said) || planted::is(Bug::OlderMoveWins));
    }

    /// Whether a member can be where it says: nobody else has the address. Of two that change places each takes what the other one says
    /// together with where it is itself: nobody else may know yet that it is not there any more.
    fn can_be_there(&self, node: NodeId, layout: &Layout, (id, here): (NodeId, &str)) -> bool {
        let said = self.said.iter().map(|(node, said)| (*node, said.address.clone()));
        let said = said.chain([(id, here.to_owned())]).collect();
        layout.moves(&said).iter().any(|(moved, _)| *moved == node)
    }

    /// What was said of late.
    fn fresh(&self, now_us: u64) -> BTreeMap<NodeId, String> {
        let fresh = self.said.iter().filter(|(_, said)| said.is_fresh(now_us));
        fresh.map(|(node, said)| (*node, said.address.clone())).collect()
    }
}

impl Said {
    fn is_fresh(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.last_us) <= SAID_US
    }
}

/// What is to be said of a layout that follows another one.
pub(crate) fn moved_between(before: &Layout, now: &Layout) -> Vec<String> {
    let moved = now.members.iter().filter_map(|member| {
        let was = &before.member(member.id)?.address;
        (*was != member.address)
            .then(|| format!("{} is at {} now, and was at {was}", member.name, member.address))
    });
    moved.collect()
}

impl Node {
    /// Where members say that they are, other than where the layout has them: they are to be connected with there.
    pub fn moved(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.moving.said.iter().map(|(node, said)| (*node, &*said.address))
    }

    /// Where the layout has this node, if that is not where it is.
    pub(crate) fn address_before(&self) -> Option<&str> {
        let member = self.layout.as_ref()?.member(self.id)?;
        (member.address != self.birth.address()).then_some(&*member.address)
    }

    /// As this node starts.
    pub(crate) fn tell_of_move(&mut self) {
        let Some(before) = self.address_before() else { return };
        let others = self.layout.as_ref().is_some_and(|layout| layout.members.len() > 1);
        let told = if others { ": the other nodes are told" } else { "" };
        let line = format!(
            "the address of {} was {before}, and is {} now{told}",
            self.called(self.id),
            self.birth.address()
        );
        self.out.last.push(Effect::Notice(line));
    }

    /// A member says where it is, and is the one to say so. False if it can't be there: then it is refused.
    pub(crate) fn hear_address(&mut self, link: u64, from: NodeId, hello: &Hello) -> bool {
        let Some(layout) = self.layout.as_ref().filter(|_| check_address(&hello.address).is_ok()) else {
            return true;
        };
        self.moving.hear(from, &hello.address, self.now.monotonic_us, layout);
        let Some(reason) = self.why_not_there(from, &hello.address) else { return true };
        let notice = format!("refused {}: {reason}", self.called(from));
        self.out.last.push(Effect::Notice(notice));
        let refusal = Refusal { kind: RefusalKind::SecondProcess, reason };
        self.out.first.push(Effect::Refuse { link, with: refusal.into() });
        false
    }

    /// The layout is another one.
    pub(crate) fn follow_addresses(&mut self) {
        if let Some(layout) = &self.layout {
            self.moving.follow(layout);
        }
    }

    /// Each second: this node says where it is, as long as it reports: to all if the layout has it elsewhere, and else to those who are
    /// silent, since they may not find it. And it asks for a layout that has those where they are who have said so, unless it is about
    /// to end.
    pub(crate) fn see_to_moves(&mut self) {
        let Some(layout) = self.layout.clone() else { return };
        self.forget_what_is_not_said_again();
        let is_elsewhere = self.address_before().is_some();
        for node in self.peers.all_up() {
            if is_elsewhere || self.peers.is_silent(node, self.now.monotonic_us) {
                let hello = self.birth.hello();
                self.send(node, PeerMessage::Hello(hello));
            }
        }
        if self.phase != Phase::Running {
            return;
        }
        let mut said = self.moving.fresh(self.now.monotonic_us);
        if is_elsewhere {
            // What it is asked as the leader of the meta group it may ask itself: it is listened to.
            if self.leads_cluster() {
                said.insert(self.id, self.birth.address().to_owned());
            }
            self.tell_whose_address_it_is(&layout);
        }
        let moves = layout.moves(&said);
        if !moves.is_empty() {
            self.ask_for(LayoutChange::Move(moves));
        }
    }

    /// Whoever reports, knows no later layout, and does not say any more that it is elsewhere, is where the layout has it: that it was
    /// elsewhere came late.
    fn forget_what_is_not_said_again(&mut self) {
        let now_us = self.now.monotonic_us;
        let peers = &self.peers;
        self.moving.said.retain(|node, said| {
            let is_ahead = now_us.saturating_sub(said.ahead_us) <= SAID_US;
            said.is_fresh(now_us)
                || is_ahead
                || !peers.is_lively(*node, now_us)
                || planted::is(Bug::OlderMoveWins)
        });
    }

    /// This node can't have an address that another member has. Whoever hears of both refuses it; until then that member may have moved.
    fn tell_whose_address_it_is(&mut self, layout: &Layout) {
        let address = self.birth.address();
        let holds = |member: &&Member| member.id != self.id && member.address == address;
        let Some(holder) = layout.members.iter().find(holds) else { return };
        if self.ticks.is_multiple_of(TOLD_TICKS) && !self.moving.said.contains_key(&holder.id) {
            let line = format!(
                "{address} is the address of {0}, as far as the cluster knows: start {0} where it is now; or, if it is gone for good, remove \
                 it: ringfort cluster remove {0}",
                holder.name
            );
            self.out.last.push(Effect::Notice(line));
        }
    }

    /// Why a member can't be where it says, if it has said so for a while: another one has the address, and is there, since whoever has
    /// moved says so before it reports.
    fn why_not_there(&self, from: NodeId, address: &str) -> Option<String> {
        let now_us = self.now.monotonic_us;
        let since_us = self.moving.said.get(&from)?.since_us;
        let layout = self.layout.as_ref()?;
        let own = (self.id, self.birth.address());
        if now_us < since_us + REFUSED_US || self.moving.can_be_there(from, layout, own) {
            return None;
        }
        let holds = |member: &&Member| member.id != from && member.address == address;
        let holder = layout.members.iter().find(holds)?;
        let is_there = if holder.id == self.id {
            // It may be about to change places with it, and the layout can't be changed just now.
            self.address_before().is_none()
        } else {
            self.peers.is_heard(holder.id)
                && self.peers.is_lively(holder.id, now_us)
                && !self.moving.said.contains_key(&holder.id)
        };
        is_there.then(|| {
            format!(
                "{address} is the address of {}, which is there: start this node with another --addr or --advertise",
                holder.name
            )
        })
    }
}
