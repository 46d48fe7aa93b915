//! How many files and sockets the process may have open.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let told = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        let allowed = limit.maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
        assert!(limit.current.is_none_or(|current| current >= allowed && current == told as u64));
    }
}
