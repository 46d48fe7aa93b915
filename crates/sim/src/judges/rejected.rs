//! What is rejected has not happened, and will not (DESIGN §4; PITFALLS 18): a write whose every sender was told that it was
//! rejected has changed nothing. Of those with a place in a session this can be said from the log, which names them; those
//! without would show as values that nobody wrote (`linearizable`).

use std::collections::{BTreeMap, BTreeSet};

use ringfort_types::Stamp;

use super::{Broken, broken};

const NAME: &str = "what is rejected does not happen";

type Name = (u128, u64);

#[derive(Debug, Default)]
pub(crate) struct Rejected {
    /// How many who sent a write have not been told that it was rejected: they wait, or know better, or nobody knows.
    open: BTreeMap<Name, usize>,
    /// Those that have changed something.
    done: BTreeSet<Name>,
}

fn name(stamp: &Stamp) -> Name {
    (stamp.client, stamp.sequence)
}

impl Rejected {
    /// Somebody sends a write.
    pub(crate) fn sent(&mut self, stamp: &Stamp) {
        *self.open.entry(name(stamp)).or_default() += 1;
    }

    /// One of those who sent it is told that it was rejected.
    pub(crate) fn rejected(&mut self, stamp: &Stamp) -> Option<Broken> {
        let open = self.open.get_mut(&name(stamp))?;
        *open -= 1;
        self.judge(stamp)
    }

    /// It has changed something.
    pub(crate) fn done(&mut self, stamp: &Stamp) -> Option<Broken> {
        self.done.insert(name(stamp));
        self.judge(stamp)
    }

    fn judge(&self, stamp: &Stamp) -> Option<Broken> {
        let name = name(stamp);
        let is_broken = self.open.get(&name) == Some(&0) && self.done.contains(&name);
        is_broken.then(|| broken!(NAME, "{stamp:?} is rejected wherever it was sent, and has taken effect"))
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::HybridClock;

    use super::*;

    #[test]
    fn a_rejected_write_that_takes_effect_is_found() {
        let stamp = |sequence| Stamp { client: 1, sequence, prev: 0, floor: 0, opened: HybridClock(0) };
        let mut judge = Rejected::default();
        for sequence in 1..=3 {
            judge.sent(&stamp(sequence));
        }
        assert_eq!(judge.rejected(&stamp(1)), None);
        assert!(judge.done(&stamp(1)).is_some(), "afterwards");
        assert_eq!(judge.done(&stamp(2)), None, "its sender waits");
        assert!(judge.rejected(&stamp(2)).is_some(), "before");
        // Sent twice, and only one of them was told.
        judge.sent(&stamp(3));
        assert_eq!(judge.rejected(&stamp(3)), None);
        assert_eq!(judge.done(&stamp(3)), None);
    }
}
