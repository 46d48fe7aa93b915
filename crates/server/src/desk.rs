//! Where single calls get their answers: a desk for each runtime that connections belong to.
//!
//! A call's task sleeps until its answer comes, most often from another thread. To wake a task from there costs a system call, and the
//! runtime takes such tasks one at a time: after each of them it serves the connection, which writes the one answer by a system call of
//! its own. So answers are laid down at the desk of the runtime that asked, whose own task gives them out there, all that have come in
//! one go: it alone is woken from elsewhere, and the connection is served after all calls of the turn.
//!
//! Its task also keeps a timer that soon ends, always. A runtime wakes itself, by another system call, whenever a timer is set that ends
//! before all those that it knew when it last slept, as the time limit of each call does where there are only pings to come.
//!
//! Invariant: nothing stays at a desk that nobody serves.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::delivery::Delivery;

/// How soon the timer ends: before most calls' time is over, and seldom enough to cost nothing.
const TIMER: Duration = Duration::from_millis(100);

/// An answer, and whoever waits for it.
type Answered = (oneshot::Sender<Delivery>, Delivery);

/// The desk of one runtime.
#[derive(Debug)]
pub(crate) struct Desk {
    runtime: Id,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answered: Vec<Answered>,
    /// Set while its task sleeps.
    waker: Option<Waker>,
    /// Whether it has a task.
    is_open: bool,
}

impl Desk {
    pub(crate) fn new(runtime: &Handle) -> Desk {
        Desk { runtime: runtime.id(), state: Mutex::default() }
    }

    /// Whether it is the desk of this runtime.
    pub(crate) fn is_at(&self, runtime: Option<Id>) -> bool {
        runtime == Some(self.runtime)
    }

    /// Has an answer given out; who is returned is to be woken for it, after further ones.
    pub(crate) fn lay_down(&self, caller: oneshot::Sender<Delivery>, delivery: Delivery) -> Option<Waker> {
        let mut state = self.lock();
        if state.is_open {
            state.answered.push((caller, delivery));
            return state.waker.take();
        }
        drop(state);
        let _gone = caller.send(delivery);
        None
    }

    /// Gives out answers, on its runtime, for as long as it is polled.
    pub(crate) async fn serve(self: Arc<Desk>) {
        let open = Open::new(&self);
        let mut answered = Vec::new();
        let mut timer = interval(TIMER);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|cx| -> Poll<()> {
            while timer.poll_tick(cx).is_ready() {}
            loop {
                let mut state = open.0.lock();
                if state.answered.is_empty() {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut state.answered, &mut answered);
                drop(state);
                give_out(&mut answered);
            }
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn give_out(answered: &mut Vec<Answered>) {
    for (caller, delivery) in answered.drain(..) {
        let _gone = caller.send(delivery);
    }
}

/// A desk while it has a task.
struct Open<'a>(&'a Desk);

impl Open<'_> {
    fn new(desk: &Desk) -> Open<'_> {
        desk.lock().is_open = true;
        Open(desk)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut left = {
            let mut state = self.0.lock();
            state.is_open = false;
            std::mem::take(&mut state.answered)
        };
        give_out(&mut left);
    }
}

/// The runtime that this is on; none on a thread of another kind.
pub(crate) fn here() -> Option<Id> {
    Handle::try_current().ok().map(|runtime| runtime.id())
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Receipt, Reply};

    use super::*;

    fn written() -> Delivery {
        Delivery::reply(Reply::Written(Receipt::default()))
    }

    #[tokio::test]
    async fn answers_are_given_out_together_and_none_is_left_behind() {
        let desk = Arc::new(Desk::new(&Handle::current()));
        let (caller, mut answer) = oneshot::channel();
        assert!(desk.lay_down(caller, written()).is_none(), "nobody has to be woken");
        assert!(answer.try_recv().is_ok(), "nobody serves, so it is given out at once");

        let serving = tokio::spawn(desk.clone().serve());
        tokio::task::yield_now().await;
        let ((first, mut first_answer), (second, mut second_answer)) =
            (oneshot::channel(), oneshot::channel());
        let waker = desk.lay_down(first, written()).expect("its task sleeps");
        assert!(desk.lay_down(second, written()).is_none(), "once is enough");
        assert!(first_answer.try_recv().is_err(), "that is its task's business");
        waker.wake();
        tokio::task::yield_now().await;
        assert!(first_answer.try_recv().is_ok() && second_answer.try_recv().is_ok());

        let (caller, answer) = oneshot::channel();
        assert!(desk.lay_down(caller, written()).is_some());
        serving.abort();
        assert!(answer.await.is_ok(), "what was there when its task ended");
    }
}
