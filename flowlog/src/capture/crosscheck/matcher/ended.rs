//! Entries that have ended lately: a message about one of them is one that the
//! kernel repeats, because another listener had asked for it.

use std::collections::VecDeque;

use hashbrown::HashMap;

/// Ends that are remembered.
const ENDED: usize = 1 << 16;

/// The entries, by address. An address is used again, so each end has a number
/// of its own: when an end is forgotten, a later one of the same address is not.
#[derive(Default)]
pub(super) struct Ended {
    /// The number of each entry's last end.
    entries: HashMap<u64, u64>,
    /// All ends that are remembered, those included whose address has been used
    /// again: number and entry, the oldest first.
    order: VecDeque<(u64, u64)>,
    next: u64,
}

impl Ended {
    /// This one has ended.
    pub(super) fn insert(&mut self, entry: u64) {
        let number = self.next;
        self.next += 1;
        self.entries.insert(entry, number);
        self.order.push_back((number, entry));
        if self.order.len() > ENDED
            && let Some((oldest, entry)) = self.order.pop_front()
            && self.entries.get(&entry) == Some(&oldest)
        {
            self.entries.remove(&entry);
        }
    }

    /// Its memory is that of another flow now.
    pub(super) fn remove(&mut self, entry: u64) {
        self.entries.remove(&entry);
    }

    /// Whether it has ended.
    pub(super) fn contains(&self, entry: u64) -> bool {
        self.entries.contains_key(&entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends of other entries.
    fn others(ended: &mut Ended, count: usize) {
        (1..=count as u64).for_each(|other| ended.insert(other << 32));
    }

    #[test]
    fn the_oldest_end_is_forgotten() {
        let mut ended = Ended::default();
        ended.insert(7);
        others(&mut ended, ENDED - 1);
        assert!(ended.contains(7));
        ended.insert(8);
        assert!(!ended.contains(7) && ended.contains(8));
        assert_eq!((ended.entries.len(), ended.order.len()), (ENDED, ENDED));
    }

    #[test]
    fn an_address_that_is_used_again_is_not_forgotten_with_its_first_end() {
        let mut ended = Ended::default();
        ended.insert(7);
        ended.remove(7);
        assert!(!ended.contains(7));
        others(&mut ended, ENDED - 2);
        ended.insert(7);
        // The first end is dropped, not the second.
        ended.insert(8);
        assert!(ended.contains(7) && ended.contains(8));
        assert_eq!(ended.order.len(), ENDED);
    }

    #[test]
    fn an_end_that_is_repeated_is_as_young_as_its_last() {
        let mut ended = Ended::default();
        ended.insert(7);
        ended.insert(7);
        others(&mut ended, ENDED - 1);
        assert!(ended.contains(7));
        ended.insert(8);
        assert!(!ended.contains(7));
    }
}
