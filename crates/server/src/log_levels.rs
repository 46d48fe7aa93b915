//! Which lines are logged, as it can be changed while the node runs. Who does the logging decides what a filter is.

use std::fmt;
use std::sync::Arc;

type Change = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// What changes which lines are logged.
#[derive(Clone)]
pub struct LogLevels(Arc<Change>);

impl LogLevels {
    /// By this: it is given a filter, or nothing to leave all as it is, and says which filter there was; or what is wrong with the new one.
    pub fn new(change: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static) -> LogLevels {
        LogLevels(Arc::new(change))
    }

    /// Lines that this filter lets through are logged from now on, if it is not empty. The one before it.
    pub(crate) fn change(&self, filter: &str) -> Result<String, String> {
        (self.0)(filter)
    }
}

impl fmt::Debug for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevels").finish_non_exhaustive()
    }
}

impl PartialEq for LogLevels {
    fn eq(&self, other: &LogLevels) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LogLevels {}
