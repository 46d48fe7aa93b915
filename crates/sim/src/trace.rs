//! What happened, line by line. Two runs of one seed are compared by it.

use std::fmt::{Arguments, Write};

/// The lines so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    text: String,
}

impl Trace {
    pub(crate) fn line(&mut self, now_us: u64, what: Arguments<'_>) {
        let (ms, us) = (now_us / 1_000, now_us % 1_000);
        writeln!(self.text, "{ms:>6}.{us:03} {what}").expect("a string takes everything");
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
