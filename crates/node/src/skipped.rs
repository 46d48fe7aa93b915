//! Messages of kinds that this version does not know: they are left alone (`ringfort-types`, `message`), counted, and told of.

use ringfort_types::{NodeId, Unknown};

use crate::Effect;
use crate::node::Node;

/// That another node says what is not known here is told once so often.
const TOLD_EVERY_US: u64 = 60_000_000;

/// Messages of one node whose kind is not known here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skipped {
    count: u64,
    told_us: Option<u64>,
}

impl Skipped {
    /// One more. How many there are, if that is to be told now.
    fn add(&mut self, now_us: u64) -> Option<u64> {
        self.count += 1;
        let is_due = self.told_us.is_none_or(|told_us| now_us - told_us >= TOLD_EVERY_US);
        is_due.then(|| {
            self.told_us = Some(now_us);
            self.count
        })
    }
}

impl Node {
    pub(crate) fn handle_unknown(&mut self, from: NodeId, Unknown { kind, .. }: &Unknown) {
        let now_us = self.now.monotonic_us;
        if let Some(count) = self.peers.skipped(from).and_then(|skipped| skipped.add(now_us)) {
            self.out.last.push(Effect::Notice(format!(
                "{} sends messages of a kind ({kind}) that this version of Ringfort does not know, and runs a later one, it seems: \
                 they are left alone ({count} so far)",
                self.called(from)
            )));
        }
    }
}
