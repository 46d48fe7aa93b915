//! Being asked to end: Ctrl+C, SIGTERM, a terminal that goes away.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::stop::Stop;

/// From when it is made, the signals no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Where it does not mean something else.
    hang_up: Option<Signal>,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// Somebody pressed Ctrl+C: what runs now should end.
    Interrupt,
    /// The process should end.
    End,
}

impl Signals {
    pub(crate) fn new() -> Result<Signals, Stop> {
        let listen = |kind| {
            signal(kind).map_err(|error| Stop::unavailable(format!("can't wait for signals: {error}")))
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: Some(listen(SignalKind::hangup())?),
        })
    }

    /// From now on it is the caller's, and asks nobody to end.
    pub(crate) fn take_hang_up(&mut self) -> Option<Signal> {
        self.hang_up.take()
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::Interrupt,
            _ = self.terminate.recv() => StopSignal::End,
            () = received(self.hang_up.as_mut()) => StopSignal::End,
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

impl StopSignal {
    /// How a command ends that was asked to.
    pub(crate) fn stop(self) -> Stop {
        match self {
            StopSignal::Interrupt => Stop::unavailable("interrupted"),
            StopSignal::End => Stop::silent(3),
        }
    }
}
