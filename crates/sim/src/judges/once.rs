//! A write of a session takes effect once, however often it comes: whoever sends it again is told what came of it the
//! first time, with the same index and revision (DESIGN §10). Two effects would have two.

use std::collections::BTreeMap;

use ringfort_types::{Reply, Stamp};

use super::replay::bare;
use super::{Broken, broken};

const NAME: &str = "a write of a session takes effect once";

#[derive(Debug, Default)]
pub(crate) struct Once {
    told: BTreeMap<(u128, u64), Reply>,
}

impl Once {
    /// Somebody who sent a write with this stamp is told this; whether it is the first to be told what came of it.
    pub(crate) fn told(&mut self, stamp: &Stamp, reply: &Reply) -> Result<bool, Broken> {
        let reply = bare(reply);
        if matches!(reply, Reply::Failed(_)) {
            // Nothing came of it, or nobody knows.
            return Ok(false);
        }
        let Some(first) = self.told.get(&(stamp.client, stamp.sequence)) else {
            self.told.insert((stamp.client, stamp.sequence), reply);
            return Ok(true);
        };
        if *first == reply {
            return Ok(false);
        }
        Err(broken!(NAME, "{stamp:?} is answered {reply:?}, and was answered {first:?} before"))
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{HybridClock, Index, Receipt, Revision};

    use super::*;

    #[test]
    fn two_effects_are_found() {
        let mut judge = Once::default();
        let stamp = |sequence| Stamp { client: 1, sequence, prev: 0, floor: 0, opened: HybridClock(0) };
        let written = |revision, copies| {
            Reply::Written(Receipt { revision: Revision(revision), copies, ..Receipt::default() })
        };
        assert_eq!(judge.told(&stamp(1), &written(5, 2)), Ok(true));
        assert_eq!(judge.told(&stamp(1), &written(5, 3)), Ok(false));
        assert_eq!(judge.told(&stamp(2), &written(6, 3)), Ok(true));
        assert!(judge.told(&stamp(1), &written(7, 2)).is_err());
        let not_met = Reply::NotMet { part: 0, key: "k".into(), revision: None, at: Index(3) };
        assert!(judge.told(&stamp(2), &not_met).is_err());
    }
}
