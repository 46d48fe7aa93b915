//! Which cluster a client is about.
//!
//! The first node that says how its cluster looks decides. From then on no other cluster is asked, whatever addresses lead to: a member whose
//! data directory was lost may have been started as a cluster of its own, and would answer that there is no such key.
//! A node says which cluster it belongs to with its first answer on each connection.

use std::sync::atomic::{AtomicU64, Ordering};

/// The cluster's number, once it is known; a number of 0 says nothing.
#[derive(Debug, Default)]
pub(crate) struct Which(AtomicU64);

impl Which {
    /// A node belongs to this one: that is the client's, if none is yet.
    pub(crate) fn settle(&self, told: u64) {
        if told != 0 {
            let _known = self.0.compare_exchange(0, told, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether a node that belongs to this one is not to be asked, and why not.
    pub(crate) fn refusal(&self, told: u64) -> Option<String> {
        let known = self.0.load(Ordering::Relaxed);
        (known != 0 && told != 0 && told != known).then(|| {
            format!(
                "it belongs to cluster {told:016x}, and this client to {known:016x}: the address is another cluster's, or the node was \
                 started with another data directory than before"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cluster_that_is_told_is_the_only_one() {
        let which = Which::default();
        assert_eq!(which.refusal(7), None);
        which.settle(0);
        assert_eq!(which.refusal(7), None);
        which.settle(7);
        which.settle(8);
        assert_eq!((which.refusal(7), which.refusal(0)), (None, None));
        let why = which.refusal(8).expect("it is another one");
        assert!(
            why.starts_with("it belongs to cluster 0000000000000008, and this client to 0000000000000007")
        );
    }
}
