//! Threads under guard: a node must not go on without one of its parts.

use std::thread::{self, JoinHandle};

use crate::StartError;

/// If what holds it panics, an invariant is broken, and the process ends.
pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Starts a thread with a name, under guard.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    let builder = thread::Builder::new().name(name.to_owned());
    let guarded = move || {
        let _guard = Guard;
        run()
    };
    builder.spawn(guarded).map_err(|source| StartError::System { action: "make a thread", source })
}
