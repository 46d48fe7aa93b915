//! Leader completeness: an entry that is committed in a given term is in the logs of the leaders of all later terms
//! (Raft, figure 3 and 5.4.3).

use std::collections::BTreeSet;

use ringfort_types::{ShardId, Term};

use super::committed::CommittedLog;
use super::logs::ReplicaLog;
use super::{Broken, broken};

const NAME: &str = "leader completeness";

#[derive(Debug, Default)]
pub(crate) struct LeaderCompleteness {
    looked_at: BTreeSet<(ShardId, Term)>,
}

impl LeaderCompleteness {
    /// A replica is heard of as a leader for the first time in this term.
    pub(crate) fn leads(
        &mut self,
        host: usize,
        shard: ShardId,
        term: Term,
        replica: &ReplicaLog,
        committed: Option<&CommittedLog>,
    ) -> Option<Broken> {
        if !self.looked_at.insert((shard, term)) {
            return None;
        }
        let committed = committed?;
        let through = committed.through_before(term);
        let index = committed.terms.first_difference(&replica.written, through)?;
        let (node, was) = (host + 1, committed.terms.at(index));
        let has = replica.written.at(index);
        Some(broken!(
            NAME,
            "n{node} leads shard {shard} in term {term} with an entry of term {has} at {index}, where one of term {was} was \
             committed in an earlier term (0: none)"
        ))
    }
}
