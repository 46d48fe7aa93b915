//! Which runtime a connection belongs to.
//!
//! Connections come in and greet on the node's first runtime. Then each is registered with the one that has the fewest, of all doors
//! together, and stays there with all the tasks that come of it: whoever serves it is on one thread, and what a turn of that thread has
//! for it goes out in one write.
//!
//! A door has a loop on each runtime, which takes the connections that are handed over there. When the node stops, the door closes and
//! the loops end: each once it has taken what was handed over, and has ended all that is under way in good order.

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};

use crate::doors::listener::{Belonging, Connection};

/// The runtimes of a node, as its doors see them; the first one is that of the doors themselves.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes(Arc<[Runtime]>);

#[derive(Debug)]
struct Runtime {
    handle: Handle,
    belonging: Belonging,
}

impl Runtime {
    /// How many connections belong to it.
    fn count(&self) -> usize {
        Arc::strong_count(&self.belonging) - 1
    }
}

/// The connections that a loop is to take, as they are handed over. As many as there are places for, at most.
pub(crate) type HandedOver = UnboundedReceiverStream<Connection>;

impl Runtimes {
    pub(crate) fn new(handles: impl IntoIterator<Item = Handle>) -> Runtimes {
        Runtimes(handles.into_iter().map(|handle| Runtime { handle, belonging: Arc::default() }).collect())
    }

    /// Their handles.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|runtime| &runtime.handle)
    }

    /// Serves a door's connections until the node stops, and ends what is under way then: `serve` makes the loop for one of them.
    pub(crate) async fn serve<L>(
        &self,
        mut incoming: impl Stream<Item = io::Result<Connection>> + Unpin,
        mut stopping: watch::Receiver<bool>,
        serve: impl Fn(HandedOver) -> L,
    ) where
        L: Future<Output = ()> + Send + 'static,
    {
        let mut loops = JoinSet::new();
        let start = |runtime: &Runtime| {
            let (hand_over, handed_over) = mpsc::unbounded_channel();
            loops.spawn_on(serve(handed_over.into()), &runtime.handle);
            hand_over
        };
        let ways: Vec<_> = self.0.iter().map(start).collect();
        let mut last = 0;
        loop {
            let arrived = tokio::select! {
                arrived = incoming.next() => arrived,
                _ = stopping.wait_for(|stopping| *stopping) => break,
            };
            let Some(Ok(connection)) = arrived else { continue };
            let counts: Vec<usize> = self.0.iter().map(Runtime::count).collect();
            last = fewest(&counts, last + 1);
            let Runtime { handle, belonging } = &self.0[last];
            match connection.belong(handle, belonging.clone()) {
                Ok(connection) => {
                    let _ended = ways[last].send(connection);
                }
                Err(error) => tracing::debug!("a connection is lost between threads: {error}"),
            }
        }
        drop((incoming, ways));
        while loops.join_next().await.is_some() {}
    }
}

/// Which has the fewest; of several, the next one from `from` on.
fn fewest(counts: &[usize], from: usize) -> usize {
    let order = (from..from + counts.len()).map(|at| at % counts.len());
    order.min_by_key(|at| counts[*at]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_fewest_gets_the_next_one_and_equals_take_turns() {
        assert_eq!([0, 1, 2, 3, 7].map(|from| fewest(&[0, 0, 0], from)), [0, 1, 2, 0, 1]);
        assert_eq!([0, 1, 2].map(|from| fewest(&[3, 2, 2], from)), [1, 1, 2]);
        assert_eq!(fewest(&[5], 1), 0);
    }
}
