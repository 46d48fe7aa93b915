//! What happened, line by line. Two runs of one seed are compared by its hash.

use std::fmt::{Arguments, Write};

use xxhash_rust::xxh3::Xxh3;

/// The lines so far: their hash, and their text if somebody wants to read it.
pub(crate) struct Trace {
    hash: Xxh3,
    line: String,
    text: Option<String>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("hash", &self.hash.digest()).finish_non_exhaustive()
    }
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Trace {
        Trace { hash: Xxh3::new(), line: String::new(), text: keep.then(String::new) }
    }

    pub(crate) fn line(&mut self, now_us: u64, what: Arguments<'_>) {
        let (ms, us) = (now_us / 1_000, now_us % 1_000);
        self.line.clear();
        writeln!(self.line, "{ms:>6}.{us:03} {what}").expect("a string takes everything");
        self.hash.update(self.line.as_bytes());
        if let Some(text) = &mut self.text {
            text.push_str(&self.line);
        }
    }

    /// Whether anybody will read the text.
    pub(crate) fn is_kept(&self) -> bool {
        self.text.is_some()
    }

    /// Something about the last line that only a reader needs: it follows from what the hash has covered already.
    pub(crate) fn remark(&mut self, what: Arguments<'_>) {
        if let Some(text) = &mut self.text {
            writeln!(text, "           | {what}").expect("a string takes everything");
        }
    }

    pub(crate) fn finish(self) -> (u64, String) {
        (self.hash.digest(), self.text.unwrap_or_default())
    }
}
