//! Whoever goes by one epoch goes by one layout, and no process goes back to an earlier one: epochs are given by the meta group's
//! log and by nothing else. The level in force never falls from one epoch to the next, and no two members have one address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfort_ring::Layout;
use ringfort_types::Epoch;

use super::{Broken, broken};

pub(crate) const NAME: &str = "one layout an epoch, and epochs rise";

const LEVELS: &str = "levels rise";

const ADDRESSES: &str = "no two members have one address";

#[derive(Debug, Default)]
pub(crate) struct Layouts {
    by_epoch: BTreeMap<Epoch, Arc<Layout>>,
    /// What each host's process went by last.
    latest: BTreeMap<usize, Epoch>,
}

impl Layouts {
    /// A host's process goes by this layout.
    pub(crate) fn goes_by(&mut self, host: usize, layout: &Arc<Layout>) -> Option<Broken> {
        let before = self.latest.insert(host, layout.epoch);
        if before == Some(layout.epoch) {
            return None;
        }
        if let Some(before) = before.filter(|before| *before > layout.epoch) {
            return Some(broken!(NAME, "n{} goes back from epoch {before} to {}", host + 1, layout.epoch));
        }
        let earlier = self.by_epoch.range(..layout.epoch).next_back();
        let later = self.by_epoch.range(layout.epoch..).next();
        if earlier.is_some_and(|(_, earlier)| earlier.level > layout.level)
            || later.is_some_and(|(_, later)| later.level < layout.level)
        {
            return Some(broken!(
                LEVELS,
                "level {} is in force in epoch {}, out of order",
                layout.level,
                layout.epoch
            ));
        }
        let addresses: BTreeSet<&str> = layout.members.iter().map(|member| &*member.address).collect();
        if addresses.len() < layout.members.len() {
            return Some(broken!(ADDRESSES, "in epoch {} there are {addresses:?} only", layout.epoch));
        }
        let known = self.by_epoch.entry(layout.epoch).or_insert_with(|| Arc::clone(layout));
        (known != layout)
            .then(|| broken!(NAME, "n{} goes by another layout of epoch {}", host + 1, layout.epoch))
    }

    /// A host's process has ended. The next one may begin with what was kept.
    pub(crate) fn ended(&mut self, host: usize) {
        self.latest.remove(&host);
    }

    /// The latest epoch that any process has gone by.
    pub(crate) fn newest(&self) -> Epoch {
        self.by_epoch.keys().next_back().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use ringfort_ring::Member;
    use ringfort_types::{Incarnation, LayoutChange, LeaderPreference, Level, NodeId, Standing};

    use super::*;

    #[test]
    fn another_layout_of_an_epoch_and_an_earlier_one_are_found() {
        let member = Member {
            standing: Standing::Active,
            max: Level::MIN,
            id: NodeId(1),
            name: "node1".into(),
            address: "n1".into(),
            incarnation: Incarnation(1),
            weight: 1,
            zone: String::new(),
        };
        let first = Arc::new(Layout::first(vec![member], 1, 1, 1).expect("it is one"));
        let change = LayoutChange::Prefer(LeaderPreference::HighestId);
        let second = Arc::new(first.after(&change).expect("it changes"));
        let mut other = Layout::clone(&first);
        other.epoch = second.epoch;
        let other = Arc::new(other);

        let mut layouts = Layouts::default();
        for (host, layout) in [(0, &first), (0, &second), (1, &first), (1, &second), (1, &second)] {
            assert_eq!(layouts.goes_by(host, layout), None);
        }
        assert!(layouts.goes_by(2, &other).is_some());
        assert!(layouts.goes_by(1, &first).is_some());
        let mut shared = Layout::clone(&second);
        shared.epoch = Epoch(3);
        let twin = Member { id: NodeId(2), ..shared.members[0].clone() };
        shared.members.push(twin);
        assert!(layouts.goes_by(3, &Arc::new(shared)).is_some_and(|broken| broken.invariant == ADDRESSES));
        let mut higher = Layout::clone(&second);
        (higher.epoch, higher.level) = (Epoch(9), Level(2));
        assert_eq!(layouts.goes_by(1, &Arc::new(higher.clone())), None);
        (higher.epoch, higher.level) = (Epoch(10), Level(1));
        assert!(layouts.goes_by(1, &Arc::new(higher)).is_some_and(|broken| broken.invariant == LEVELS));
        layouts.ended(0);
        assert_eq!(layouts.goes_by(0, &first), None);
        assert_eq!(layouts.newest(), Epoch(9));
    }
}
