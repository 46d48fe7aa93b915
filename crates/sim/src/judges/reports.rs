//! Nodes tell each other what has changed since the last report that arrived. What is put together of it must be a report that its
//! node has told, whatever was lost, late or repeated on the way.

use std::collections::BTreeMap;

use ringfort_node::Heard;
use ringfort_types::{NodeId, NodeReport};

use super::{Broken, broken};

const NAME: &str = "what is known of a node is what it has reported";

#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// By process and number.
    told: BTreeMap<(u64, u64), NodeReport>,
    /// By host and node: the report that was last looked at.
    heard: BTreeMap<(usize, NodeId), (u64, u64)>,
}

impl Reports {
    /// A process reports.
    pub(crate) fn told(&mut self, process: u64, report: &NodeReport) {
        if report.number > 0 {
            self.told.entry((process, report.number)).or_insert_with(|| report.clone());
        }
    }

    /// This is what a host's process knows of another node.
    pub(crate) fn heard(&mut self, host: usize, of: NodeId, heard: &Heard) -> Option<Broken> {
        let it = (heard.process, heard.number);
        if self.heard.insert((host, of), it) == Some(it) {
            return None;
        }
        let told = self.told.get(&it).map(|told| Heard::whole(heard.process, told.clone()));
        // Of several reports in one turn only the last one is seen here.
        let is_followed = || self.told.range(it..=(heard.process, u64::MAX)).next().is_some();
        if told.is_none() && is_followed() {
            return None;
        }
        (told.as_ref() != Some(heard))
            .then(|| broken!(NAME, "n{} has {heard:?} of n{of}, which has told {told:?}", host + 1))
    }

    /// A host's process has ended.
    pub(crate) fn ended(&mut self, host: usize) {
        self.heard.retain(|(of, _), _| *of != host);
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{DiskState, ReplicaReport, ShardId};

    use super::*;

    #[test]
    fn what_was_never_told_is_found() {
        let replica = ReplicaReport { shard: ShardId(1), ..ReplicaReport::default() };
        let first = NodeReport { number: 1, replicas: vec![replica], ..NodeReport::default() };
        let second = NodeReport { number: 2, disk: DiskState::Full, ..NodeReport::default() };
        let mut reports = Reports::default();
        reports.told(7, &first);
        reports.told(7, &second);
        assert_eq!(reports.heard(0, NodeId(2), &Heard::whole(7, first.clone())), None);
        assert_eq!(reports.heard(0, NodeId(2), &Heard::whole(7, second.clone())), None);
        let mixed = NodeReport { replicas: first.replicas, ..second.clone() };
        assert!(reports.heard(1, NodeId(2), &Heard::whole(7, mixed)).is_some());
        assert!(reports.heard(2, NodeId(2), &Heard::whole(8, second.clone())).is_some());
        // One in between may have been told in the same turn as the next.
        let third = NodeReport { number: 4, ..second };
        let between = NodeReport { number: 3, ..third.clone() };
        assert!(reports.heard(3, NodeId(2), &Heard::whole(7, between.clone())).is_some());
        reports.told(7, &third);
        assert_eq!(reports.heard(4, NodeId(2), &Heard::whole(7, between)), None);
    }
}
