//! Entries that have ended lately: a message about one of them is one that the
//! kernel repeats, because another listener had asked for it.

use std::collections::VecDeque;

use hashbrown::HashSet;

/// Entries that are remembered.
const ENDED: usize = 1 << 16;

/// The entries, by address.
#[derive(Default)]
pub(super) struct Ended {
    entries: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Ended {
    /// This one has ended.
    pub(super) fn insert(&mut self, entry: u64) {
        if self.entries.insert(entry) {
            self.order.push_back(entry);
        }
        if self.order.len() > ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// Its memory is that of another flow now.
    pub(super) fn remove(&mut self, entry: u64) {
        self.entries.remove(&entry);
    }

    /// Whether it has ended.
    pub(super) fn contains(&self, entry: u64) -> bool {
        self.entries.contains(&entry)
    }
}
