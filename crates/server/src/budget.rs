//! The memory that all lists of a node share.
//!
//! Each page of a list takes [`Room`]: the list's share of [`LISTS_BYTES`] as long as that lasts, else [`PAGE_BYTES_MIN`],
//! which is always there. So pages take `LISTS_BYTES` and as many of the smallest as there are lists and shards, whatever
//! readers do. Rows that are larger than a page take turns in [`LARGE_ROWS_BYTES`]. [`PAGES_UNDER_WAY_MAX`] requests for pages are
//! under way at a time: each takes some kB besides its page, and a thousand lists begin with one for each shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfort_types::limits::{
    KEY_BYTES_MAX, LARGE_ROWS_BYTES, LIST_PAGES_BYTES, LISTS_BYTES, PAGE_BYTES_MIN, SCAN_PAGE_BYTES,
    VALUE_BYTES_MAX,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a large row may take.
pub(crate) const LARGE_ROW_BYTES: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX;

const _: () = assert!(LARGE_ROWS_BYTES >= 2 * LARGE_ROW_BYTES);

/// Pages that are being asked for; enough for eight lists that read ahead.
const PAGES_UNDER_WAY_MAX: usize = 1_024;

/// To ask for one page.
pub(crate) type Turn = OwnedSemaphorePermit;

/// What all lists of a node share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Lists that are open.
    open: AtomicUsize,
    /// Bytes of pages that are taken.
    taken: AtomicUsize,
    /// Bytes for rows that are larger than their pages.
    large: Arc<Semaphore>,
    /// Requests that may begin now.
    turns: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            open: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            large: Arc::new(Semaphore::new(LARGE_ROWS_BYTES)),
            turns: Arc::new(Semaphore::new(PAGES_UNDER_WAY_MAX)),
        }
    }
}

impl Budget {
    /// One more list.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes that each list may hold, as many as there are now.
    pub(crate) fn share(&self) -> usize {
        (LISTS_BYTES / self.open.load(Ordering::Relaxed).max(1)).min(LIST_PAGES_BYTES)
    }

    /// Room for one of so many pages of a list: as much as is its share, and free.
    pub(crate) fn take(self: &Arc<Budget>, pages: usize) -> Room {
        let wanted = (self.share() / pages).clamp(PAGE_BYTES_MIN, SCAN_PAGE_BYTES);
        let taken = self.taken.fetch_add(wanted, Ordering::Relaxed);
        if taken + wanted <= LISTS_BYTES {
            return Room { budget: self.clone(), bytes: wanted };
        }
        self.taken.fetch_sub(wanted - PAGE_BYTES_MIN, Ordering::Relaxed);
        Room { budget: self.clone(), bytes: PAGE_BYTES_MIN }
    }

    /// A turn, once it is there.
    pub(crate) async fn turn(&self) -> Turn {
        self.turns.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A turn, if there is one now.
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        self.turns.clone().try_acquire_owned().ok()
    }

    /// Room for a row that is larger than a page, once there is.
    pub(crate) async fn large(&self, bytes: u32) -> OwnedSemaphorePermit {
        let permit = self.large.clone().acquire_many_owned(bytes).await;
        permit.expect("the semaphore is never closed")
    }
}

/// Bytes of the budget that a page has.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    pub(crate) bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_shrink_as_lists_are_opened_and_all_of_them_fit() {
        let budget = Arc::new(Budget::default());
        let (mut rooms, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..1_000 {
            budget.opened();
            let pages: Vec<_> = (0..128).map(|_| budget.take(128)).collect();
            bytes.push(pages.iter().map(|room| room.bytes).sum::<usize>());
            rooms.extend(pages);
        }
        assert!(bytes.is_sorted_by(|earlier, later| earlier >= later));
        assert_eq!((bytes[0], bytes[999]), (LIST_PAGES_BYTES, 128 * PAGE_BYTES_MIN));
        assert!(bytes.iter().sum::<usize>() <= LISTS_BYTES + 1_000 * 128 * PAGE_BYTES_MIN);
        drop(rooms);
        let turns: Vec<_> = std::iter::from_fn(|| budget.try_turn()).collect();
        assert_eq!(turns.len(), PAGES_UNDER_WAY_MAX);
        drop(turns);
        assert!(budget.try_turn().is_some());
        (0..999).for_each(|_| budget.closed());
        assert_eq!(budget.take(128).bytes, LIST_PAGES_BYTES / 128);
    }
}
