//! How a node becomes a member of a cluster, and when it is taken for one that is gone: flags of `start`.

use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::stop::Stop;

/// Flags of a node that joins.
#[derive(Args, Debug)]
pub(crate) struct Membership {
    /// A new cluster of this node alone; others can join it. The same as no --peers
    #[arg(long, conflicts_with_all = ["peers", "join"])]
    pub(crate) bootstrap: bool,
    /// Join a cluster that is there: its nodes, or some of them. Once it has joined, it needs none of these flags to come back
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "peers")]
    pub(crate) join: Vec<String>,
    /// Wait until a member of a cluster invites this node: other systems' clients have a call Join for that. Once it has joined, this does nothing
    #[arg(long, conflicts_with_all = ["peers", "join", "bootstrap", "replace"])]
    pub(crate) invited: bool,
    /// Take the place of the node with this --id, whose disk is lost for good, and get all that it had from the others
    #[arg(long, requires = "join")]
    pub(crate) replace: bool,
    /// Where it is, for a node that joins: the copies of a key are spread over zones. Once it has joined, this does nothing
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// How much it takes compared to others, for a node that joins: 1 to 100. Once it has joined, this does nothing
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) weight: u32,
    /// How long a node is away until its copies are made anew on others, if there are enough
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    pub(crate) replace_after: Duration,
}

impl Membership {
    /// Refuses what contradicts itself, wherever it is said.
    pub(crate) fn check(&self, has_peers: bool) -> Result<(), Stop> {
        if self.bootstrap && (has_peers || !self.join.is_empty()) {
            return Err(Stop::usage(
                "--bootstrap makes a cluster of this node alone: leave out --peers and --join",
            ));
        }
        if self.invited && (self.bootstrap || has_peers || !self.join.is_empty() || self.replace) {
            return Err(Stop::usage(
                "--invited waits until a member of a cluster invites this node: leave out --bootstrap, --peers, --join and --replace",
            ));
        }
        Ok(())
    }
}
