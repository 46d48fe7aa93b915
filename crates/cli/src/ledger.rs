//! What has come of each line of an import: enough to account for all of them, in memory that does not grow with
//! their number.
//!
//! Rows are acknowledged out of order. The ledger keeps one bit for each line from the first one that is not
//! acknowledged on; that line is where a later import has to begin.

use std::collections::VecDeque;
use std::fmt::Write;

/// Most lines between the first one that is not acknowledged and the last one taken. A row that hangs holds the import
/// up here, rather than growing the ledger.
const LINES_OPEN_MAX: usize = 1 << 20;

/// The account.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// All lines up to this one are acknowledged (or were skipped): a later import can skip them.
    settled: u64,
    /// Whether the lines after it are.
    open: VecDeque<bool>,
    /// Rows acknowledged.
    pub(crate) acknowledged: u64,
    /// Their bytes, keys and values.
    pub(crate) bytes: u64,
    /// Rows that may or may not have been written.
    pub(crate) unknown: u64,
    /// Rows that were tried and surely not written.
    pub(crate) refused: u64,
}

impl Ledger {
    /// After so many skipped lines.
    pub(crate) fn new(skipped: u64) -> Ledger {
        Ledger { settled: skipped, open: VecDeque::new(), acknowledged: 0, bytes: 0, unknown: 0, refused: 0 }
    }

    /// Whether another line may be taken now.
    pub(crate) fn has_room(&self) -> bool {
        self.open.len() < LINES_OPEN_MAX
    }

    /// The next line is being sent.
    pub(crate) fn take(&mut self, line: u64) {
        self.open.push_back(false);
        debug_assert_eq!(self.last(), line, "lines are taken in order");
    }

    /// This line's row is written.
    pub(crate) fn acknowledge(&mut self, line: u64, bytes: u64) {
        self.acknowledged += 1;
        self.bytes += bytes;
        self.open[(line - self.settled - 1) as usize] = true;
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.settled += 1;
        }
    }

    /// The last line taken.
    pub(crate) fn last(&self) -> u64 {
        self.settled + self.open.len() as u64
    }

    /// The account in words.
    pub(crate) fn account(&self) -> String {
        let rows = |count: u64| crate::show::count(count, "row", "rows");
        let mut account = format!("acknowledged {}", rows(self.acknowledged));
        if self.unknown > 0 {
            let _ = write!(account, ", outcome unknown {}", rows(self.unknown));
        }
        if self.refused > 0 {
            let _ = write!(account, ", not written {}", rows(self.refused));
        }
        let _ = write!(account, ", nothing sent from line {} on", self.last() + 1);
        if self.settled > 0 {
            let _ = write!(account, "; go on with --skip {}", self.settled);
            if self.acknowledged > 0 && self.last() > self.settled {
                account.push_str(" (rows sent again do no harm)");
            }
        }
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resumes_at_the_first_line_that_is_not_acknowledged() {
        let mut ledger = Ledger::new(10);
        for line in 11..=14 {
            ledger.take(line);
        }
        ledger.acknowledge(12, 5);
        ledger.acknowledge(14, 5);
        assert_eq!((ledger.settled, ledger.last()), (10, 14));
        ledger.acknowledge(11, 5);
        assert_eq!((ledger.settled, ledger.last(), ledger.bytes), (12, 14, 15));
        ledger.unknown = 1;
        assert_eq!(
            ledger.account(),
            "acknowledged 3 rows, outcome unknown 1 row, nothing sent from line 15 on; go on with --skip 12 \
             (rows sent again do no harm)"
        );
        ledger.acknowledge(13, 5);
        assert_eq!((ledger.settled, ledger.last()), (14, 14));
    }

    #[test]
    fn a_hanging_row_bounds_the_ledger() {
        let mut ledger = Ledger::new(0);
        for line in 1..=LINES_OPEN_MAX as u64 {
            assert!(ledger.has_room());
            ledger.take(line);
        }
        ledger.acknowledge(2, 1);
        assert!(!ledger.has_room());
        ledger.acknowledge(1, 1);
        assert!(ledger.has_room());
    }
}
