//! The threads under a command, each with a runtime of its own, and what may block on them.
//!
//! A runtime with several threads runs next, on each of them, what was woken last: as soon as one call is answered its connection is
//! served, which writes that answer by a system call of its own. On a runtime with one thread a connection's turn comes after all that
//! was woken before it, and the answers of a turn go out together. So where one thread is not enough there are several such runtimes,
//! and each connection belongs to one of them.

use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::stop::Stop;

/// Threads for what may block: scans of tables, names to be resolved. What is more waits. Each keeps up to a MB of memory to
/// itself, so the library's 512 could take as much as all else in a node.
const BLOCKING_THREADS_MAX: usize = 64;

/// A runtime with a thread of its own. That ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    handle: Handle,
    /// Dropped with it.
    _open: oneshot::Sender<()>,
}

impl Beside {
    /// For connections of a command that may block.
    pub(crate) fn new() -> Result<Beside, Stop> {
        Beside::start("ringfort-io", BLOCKING_THREADS_MAX)
    }

    fn start(name: &str, blocking: usize) -> Result<Beside, Stop> {
        let runtime = build(name, blocking)?;
        let (handle, (open, closed)) = (runtime.handle().clone(), oneshot::channel());
        let run = move || {
            let _closed = runtime.block_on(closed);
            runtime.shutdown_background();
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| no_threads(&error))?;
        Ok(Beside { handle, _open: open })
    }

    /// Runs the command on this thread, and what it spawns on the runtime's.
    pub(crate) fn block_on<T>(&self, command: impl Future<Output = T>) -> T {
        self.handle.block_on(command)
    }
}

/// Runtimes with a thread each, for a command that never blocks: the first one's is the command's own. The others end when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Runtimes {
    first: Runtime,
    others: Vec<Beside>,
}

impl Runtimes {
    /// So many; the threads of the others have this name and a number. What blocks is the first one's business, since together they
    /// have as many threads for it as one alone: each other can do one such thing at a time.
    pub(crate) fn new(count: usize, name: &str) -> Result<Runtimes, Stop> {
        let first = build(name, BLOCKING_THREADS_MAX.saturating_sub(count - 1).max(1))?;
        let others = (2..=count).map(|number| Beside::start(&format!("{name}-{number}"), 1));
        Ok(Runtimes { first, others: others.collect::<Result<_, _>>()? })
    }

    /// All of them, the first one first.
    pub(crate) fn all(&self) -> Vec<Handle> {
        [self.first.handle().clone()].into_iter().chain(self.others()).collect()
    }

    /// All but the first one.
    pub(crate) fn others(&self) -> Vec<Handle> {
        self.others.iter().map(|other| other.handle.clone()).collect()
    }

    /// Runs the command, on the first one.
    pub(crate) fn block_on<T>(&self, command: impl Future<Output = T>) -> T {
        self.first.block_on(command)
    }

    /// Ends them, and waits for nothing that blocks.
    pub(crate) fn shutdown_background(self) {
        drop(self.others);
        self.first.shutdown_background();
    }
}

fn build(name: &str, blocking: usize) -> Result<Runtime, Stop> {
    let mut builder = Builder::new_current_thread();
    builder.thread_name(name).max_blocking_threads(blocking).enable_all();
    builder.build().map_err(|error| no_threads(&error))
}

fn no_threads(error: &std::io::Error) -> Stop {
    Stop::unavailable(format!("can't start threads: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread_name() -> Option<String> {
        thread::current().name().map(str::to_owned)
    }

    #[test]
    fn each_runtime_has_a_thread_and_the_first_ones_is_the_commands() {
        let runtimes = Runtimes::new(3, "test").unwrap();
        let here = runtimes.block_on(async { thread_name() });
        let mut names = Vec::new();
        for handle in runtimes.all() {
            names.push(runtimes.block_on(handle.spawn(async { thread_name() })).unwrap());
        }
        assert_eq!(names, [here, Some("test-2".into()), Some("test-3".into())]);
    }

    #[test]
    fn a_command_that_blocks_does_not_hold_up_what_it_has_spawned() {
        let beside = Beside::new().unwrap();
        beside.block_on(async {
            let (tell, told) = std::sync::mpsc::channel();
            tokio::spawn(async move { tell.send(thread_name()) });
            assert_eq!(told.recv().unwrap().as_deref(), Some("ringfort-io"));
        });
    }
}
