//! Program order: what one connection asks for takes effect in the order in which it asks.
//!
//! Calls that are under way together have no order of their own: a read may take its index before an earlier write is
//! committed, and of two writes the first may be on its way to a leader that is gone while the second goes straight to
//! its successor. Whoever promises that `SET k 1`, `SET k 2`, `GET k` in one packet answers 2 therefore holds a call back
//! while an earlier call of the same connection is unanswered, touches the same slot, and either of the two writes. Calls
//! about other slots go on meanwhile.
//!
//! ```text
//!   asked     SET a   SET b   GET a   GET a   SET a   SCAN    GET b
//!   may go    now     now     after   after   after   after   after
//!                             SET a   SET a   both    all     SCAN
//!                                             GETs
//! ```
//!
//! It is a table of locks in which everybody stands in line. Each slot has a *line*: the calls that share it or the one that
//! has it alone, and behind them those that wait. A call joins the lines of all its slots when it comes, takes those that it
//! can have, and may go once it has them all; so nobody overtakes, and since each waits only for earlier ones, there is no
//! deadlock. One more line stands for all slots at once: what touches all of them (a scan) takes that alone, and
//! everything else shares it.
//!
//! Bounds: as many calls as its owner has unanswered (a connection has [`CONNECTION_REQUESTS_MAX`], for which see
//! `ringfort_types::limits`), with [`CALL_SLOTS_MAX`] slots each. A line is there only while a call touches it. A call costs
//! a step for each of its slots, and a look-up in a tree of the lines.
//!
//! Deliberately absent: the calls themselves, which stay with their owner; time; and a promise about calls that fail. A write
//! whose outcome is unknown may take effect after later ones. A stale read waits for the writes before it like any other,
//! and then sees what its replica has.
//!
//! [`CONNECTION_REQUESTS_MAX`]: ringfort_types::limits::CONNECTION_REQUESTS_MAX

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringfort_types::planted::{self, Bug};
use ringfort_types::{Request, Slot, slot_of};

/// Most slots that a call has lines of; one that touches more counts as one that touches all.
pub const CALL_SLOTS_MAX: usize = 64;

/// What a call touches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Touched {
    Nothing,
    One(Slot),
    /// No slot twice.
    Several(Vec<Slot>),
    All,
}

/// A call that is not answered yet.
#[derive(Debug)]
struct Unanswered {
    touched: Touched,
    writes: bool,
    /// In how many of its lines others are before it.
    blocked_in: u32,
}

/// Who has a slot now, and who waits for it.
#[derive(Debug, Default)]
struct Line {
    /// So many share it...
    sharing: u32,
    /// ...or one has it alone.
    alone: bool,
    /// In order of their coming: who waits, and whether for it alone. The first of them can't have it yet.
    waiting: VecDeque<(u32, bool)>,
}

/// Holds back the calls of one connection that may not overtake others.
///
/// Calls are named by their *place*: a number of the owner's, not in use for another unanswered call, and small, since
/// there is a table of them.
#[derive(Debug, Default)]
pub struct ProgramOrder {
    /// By place.
    calls: Vec<Option<Unanswered>>,
    unanswered: usize,
    held: usize,
    lines: BTreeMap<Slot, Line>,
    /// Of all slots at once.
    every: Line,
}

impl ProgramOrder {
    /// Nothing under way.
    pub fn new() -> ProgramOrder {
        ProgramOrder::default()
    }

    /// A call comes, later than all before it. Whether it may go now; if not, [`ProgramOrder::done`] says when.
    ///
    /// # Panics
    /// If the place is in use.
    pub fn may_go(&mut self, place: u32, request: &Request) -> bool {
        let at = place as usize;
        if at >= self.calls.len() {
            self.calls.resize_with(at + 1, || None);
        }
        assert!(self.calls[at].is_none(), "place {place} of a connection is in use twice");
        let (touched, writes) = (touched(request), request.is_write());
        let blocked_in = self.join(place, &touched, writes);
        self.unanswered += 1;
        self.held += usize::from(blocked_in > 0);
        self.calls[at] = Some(Unanswered { touched, writes, blocked_in });
        blocked_in == 0
    }

    /// A call is answered, or given up while it is held back. Adds those to `go` that may go now.
    ///
    /// # Panics
    /// If there is no such call.
    pub fn done(&mut self, place: u32, go: &mut Vec<u32>) {
        let call = self.calls.get_mut(place as usize).and_then(Option::take);
        let Some(Unanswered { touched, writes, blocked_in }) = call else {
            panic!("no call of the connection has place {place}")
        };
        self.unanswered -= 1;
        self.held -= usize::from(blocked_in > 0);

        let mut granted = Vec::new();
        if touched != Touched::Nothing {
            self.every.leave(place, touched == Touched::All, blocked_in > 0, &mut granted);
        }
        for slot in touched.slots() {
            let line = self.lines.get_mut(slot).expect("a call stands in the lines of its slots");
            line.leave(place, writes, blocked_in > 0, &mut granted);
            if line.is_empty() {
                self.lines.remove(slot);
            }
        }
        for place in granted {
            let call = self.calls[place as usize].as_mut().expect("who waits is not answered");
            call.blocked_in -= 1;
            if call.blocked_in == 0 {
                self.held -= 1;
                go.push(place);
            }
        }
    }

    /// Whether this call is held back.
    pub fn is_held(&self, place: u32) -> bool {
        let call = self.calls.get(place as usize).and_then(Option::as_ref);
        call.is_some_and(|call| call.blocked_in > 0)
    }

    /// How many calls are held back.
    pub fn held(&self) -> usize {
        self.held
    }

    /// How many calls are not answered, those that are held back among them.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Puts a call into its lines. In how many of them it has to wait.
    fn join(&mut self, place: u32, touched: &Touched, writes: bool) -> u32 {
        if *touched == Touched::Nothing {
            return 0;
        }
        let mut blocked_in = u32::from(!self.every.join(place, *touched == Touched::All));
        for slot in touched.slots() {
            let line = self.lines.entry(*slot).or_default();
            blocked_in += u32::from(!line.join(place, writes));
        }
        blocked_in
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        !self.alone && self.sharing == 0 && self.waiting.is_empty()
    }

    /// Takes it, if that can be.
    fn take(&mut self, alone: bool) -> bool {
        if self.alone || alone && self.sharing > 0 {
            return false;
        }
        if alone {
            self.alone = true;
        } else {
            self.sharing += 1;
        }
        true
    }

    /// Somebody comes. Whether they have it at once.
    fn join(&mut self, place: u32, alone: bool) -> bool {
        if self.waiting.is_empty() && self.take(alone) {
            return true;
        }
        self.waiting.push_back((place, alone));
        false
    }

    /// Somebody goes: who had it, or who waited for it if that can be. Names those who have it now.
    fn leave(&mut self, place: u32, alone: bool, may_wait: bool, granted: &mut Vec<u32>) {
        let waited = if may_wait { self.waiting.iter().position(|(waits, _)| *waits == place) } else { None };
        if let Some(at) = waited {
            self.waiting.remove(at);
        } else if alone {
            self.alone = false;
        } else {
            self.sharing -= 1;
        }
        while let Some(&(first, alone)) = self.waiting.front()
            && self.take(alone)
        {
            self.waiting.pop_front();
            granted.push(first);
        }
    }
}

impl Touched {
    /// Those that it has lines of.
    fn slots(&self) -> &[Slot] {
        match self {
            Touched::One(slot) => std::slice::from_ref(slot),
            Touched::Several(slots) => slots,
            Touched::Nothing | Touched::All => &[],
        }
    }
}

fn touched(request: &Request) -> Touched {
    if planted::is(Bug::ProgramOrderIgnored) {
        return Touched::Nothing;
    }
    match request {
        // What these tell is of no key.
        Request::ClusterState
        | Request::Users
        | Request::OpenSession { .. }
        | Request::ChangeLayout(_)
        | Request::Transfer { .. } => {
            return Touched::Nothing;
        }
        Request::Scan(_) | Request::Digest { .. } | Request::DigestAt { .. } => return Touched::All,
        Request::Get { .. } | Request::GetMany { .. } | Request::Write { .. } => {}
    }
    let mut keys = request.keys();
    let Some(first) = keys.next() else { return Touched::Nothing };
    let first = slot_of(first);
    let mut others = keys.map(|key| slot_of(key)).filter(|slot| *slot != first).peekable();
    if others.peek().is_none() {
        return Touched::One(first);
    }
    let mut slots = BTreeSet::from([first]);
    for slot in others {
        slots.insert(slot);
        if slots.len() > CALL_SLOTS_MAX {
            return Touched::All;
        }
    }
    Touched::Several(slots.into_iter().collect())
}
