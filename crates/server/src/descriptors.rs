//! How many files and sockets the process may have open.

use ringfort_types::limits::{HTTP_CONNECTIONS_MAX, NODE_CONNECTIONS_MAX, PEER_PLACES};
use rustix::process::{Resource, getrlimit, setrlimit};

/// More is of no use.
const ENOUGH: u64 = 1 << 20;

/// Raises the limit as far as the system allows without privileges, and says what it is now. Many systems start programs with
/// 1,024, for the sake of old ones that use `select`.
pub(crate) fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if limit.current.is_some_and(|current| current < raised) {
        let before = limit.current.replace(raised);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the limit on open files can't be raised to {raised}: {error}");
            limit.current = before;
        }
    }
    limit.current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}

/// What the node's own parts need besides tables' files: its log, sockets, runtimes, files that are being written, and
/// those who watch it.
const OWN: usize = 96 + HTTP_CONNECTIONS_MAX;
/// Fewer connections than this are no use to anybody.
const CONNECTIONS_MIN: usize = 32;
/// Tables may keep one in so many open.
const TABLES_SHARE: usize = 4;

/// How many each part may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Files of tables.
    pub(crate) tables: usize,
    /// Clients' connections.
    pub(crate) connections: usize,
}

impl Shares {
    /// Of so many, with so many other nodes. First those without which nothing is kept, and clients get what is left; an error says how
    /// many it takes at least.
    pub(crate) fn of(limit: usize, peers: usize, tables_max: usize) -> Result<Shares, usize> {
        let tables = tables_max.min(limit / TABLES_SHARE);
        // A connection to each, one from each, and places for those that come when all others are taken.
        let own = OWN + 2 * peers + PEER_PLACES;
        match limit.saturating_sub(tables + own) {
            connections @ CONNECTIONS_MIN.. => {
                Ok(Shares { tables, connections: connections.min(NODE_CONNECTIONS_MAX) })
            }
            _ => Err((own + CONNECTIONS_MIN - 1) * TABLES_SHARE / (TABLES_SHARE - 1) + 1),
        }
    }

    /// Whether connections are fewer than they could be.
    pub(crate) fn is_short(self) -> bool {
        self.connections < NODE_CONNECTIONS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_files_come_first_and_what_is_too_few_is_refused() {
        let shares = |tables, connections| Ok(Shares { tables, connections });
        assert_eq!(Shares::of(1 << 20, 2, 1024), shares(1024, NODE_CONNECTIONS_MAX));
        assert_eq!(Shares::of(512, 2, 1024), shares(128, 512 - 128 - OWN - 4 - PEER_PLACES));
        for peers in [0, 2, 63] {
            let least = Shares::of(0, peers, 1024).unwrap_err();
            assert!(Shares::of(least, peers, 1024).is_ok() && Shares::of(least - 1, peers, 1024).is_err());
        }
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let told = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        let allowed = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
        assert!(limit.current.is_none_or(|current| current >= allowed && current == told as u64));
    }
}
