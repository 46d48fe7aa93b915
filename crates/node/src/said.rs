//! Lines about things that go on: each is said once, and again only after a while.

use std::collections::BTreeMap;

use ringfort_types::limits::TICK_MS;

/// After so many ticks the same is said again.
const SAID_TICKS: u64 = 10_000 / TICK_MS;
/// Most lines within that time.
const SAID_MAX: usize = 16;

/// What was said of things that go on, and when: the same is not said again at once.
#[derive(Debug, Default)]
pub(crate) struct Said(BTreeMap<String, u64>);

impl Said {
    /// Whether this is to be said at this tick.
    pub(crate) fn is_news(&mut self, line: &str, tick: u64) -> bool {
        self.0.retain(|_, at| tick - *at < SAID_TICKS);
        let is_news = !self.0.contains_key(line) && self.0.len() < SAID_MAX;
        if is_news {
            self.0.insert(line.to_owned(), tick);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_again_after_a_while_and_not_too_much_at_once() {
        let mut said = Said::default();
        assert!(said.is_news("one", 5) && !said.is_news("one", 6) && said.is_news("two", 6));
        assert!(said.is_news("one", 5 + SAID_TICKS) && !said.is_news("two", 5 + SAID_TICKS));
        assert_eq!((0..100).filter(|n| said.is_news(&n.to_string(), 6 + SAID_TICKS)).count(), SAID_MAX - 1);
    }
}
