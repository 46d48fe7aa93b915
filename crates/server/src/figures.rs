//! The core's numbers, for whoever asks.
//!
//! They are made when they are wanted, in a turn of the core, which looks at nothing but a flag in all other turns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ringfort_node::Figures;
use tokio::sync::oneshot;

/// Most who may ask at a time.
const ASKING_MAX: usize = 64;

/// What the core knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreFigures {
    /// Its node's.
    pub(crate) node: Figures,
    /// What waits for each of the core's helpers.
    pub(crate) helpers: Vec<(&'static str, usize)>,
    /// Bytes in sealed memtables that are not on disk yet.
    pub(crate) sealed_bytes: u64,
    /// Reads of blocks of tables: out of the cache, and from the disk.
    pub(crate) blocks: ringfort_storage::Blocks,
}

/// Those who ask for it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    is_any: AtomicBool,
    asking: Mutex<Vec<oneshot::Sender<CoreFigures>>>,
}

impl Asked {
    /// Asks. The sender is gone if too many do.
    pub(crate) fn ask(&self) -> oneshot::Receiver<CoreFigures> {
        let (asking, answer) = oneshot::channel();
        let mut all = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < ASKING_MAX {
            all.push(asking);
            self.is_any.store(true, Ordering::Release);
        }
        answer
    }

    /// Answers all who have asked, if anybody has.
    pub(crate) fn answer(&self, figures: impl FnOnce() -> CoreFigures) {
        if !self.is_any.load(Ordering::Relaxed) || !self.is_any.swap(false, Ordering::Acquire) {
            return;
        }
        let asking = std::mem::take(&mut *self.asking.lock().unwrap_or_else(PoisonError::into_inner));
        let figures = figures();
        for one in asking {
            let _gone = one.send(figures.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_made_only_if_somebody_asks_and_once_for_all_who_do() {
        let asked = Asked::default();
        asked.answer(|| unreachable!("nobody has asked"));
        let mut answers = [asked.ask(), asked.ask()];
        let mut made = 0;
        asked.answer(|| {
            made += 1;
            CoreFigures { sealed_bytes: 7, ..CoreFigures::default() }
        });
        assert_eq!(made, 1);
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_ok_and(|got| got.sealed_bytes == 7)));
        asked.answer(|| unreachable!("nobody has asked again"));
    }
}
