//! The keys that have most events, in a table with bounds: the Space-Saving
//! algorithm (Metwally, Agrawal, El Abbadi 2005), with what is counted told
//! honestly.
//!
//! When the table is full the lightest row gives way to a new key: what it had
//! goes to the others, so that rows and others together are always all there
//! was. The new row begins at nothing, but *weighs* what its forerunner weighed,
//! since its key may have been among the others as often. So a row has at least
//! what it shows and at most its weight; and of N events no key with more than
//! N / rows of them is missing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;

use hashbrown::HashMap;

use super::counts::Counts;

/// A key and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<K> {
    /// The key.
    pub(super) key: K,
    /// Since it has its row.
    pub(super) total: Counts,
    /// Of it, what was there when the last interval ended.
    before: Counts,
    /// Events that it may have had before it got its row.
    pub(super) unseen: u64,
}

impl<K> Row<K> {
    fn weight(&self) -> u64 {
        self.unseen + self.total.events()
    }

    /// What came in this interval.
    pub(super) fn recent(&self) -> Counts {
        self.total - self.before
    }
}

/// The table. It allocates nothing once it is made.
#[derive(Debug)]
pub(super) struct Heavy<K> {
    rows: Vec<Row<K>>,
    places: HashMap<K, u32>,
    /// The lightest row first, by weights as they were when they were last
    /// looked at: none is too high.
    lightest: BinaryHeap<Reverse<(u64, u32)>>,
    most: usize,
    /// What rows had that gave way.
    others: Row<()>,
}

impl<K: Copy + Eq + Hash> Heavy<K> {
    /// A table of so many rows at most.
    pub(super) fn new(most: usize) -> Self {
        Self {
            rows: Vec::with_capacity(most),
            // Twice as large as need be: then gaps are closed in place.
            places: HashMap::with_capacity(2 * most),
            lightest: BinaryHeap::with_capacity(most),
            most,
            others: Row { key: (), total: Counts::default(), before: Counts::default(), unseen: 0 },
        }
    }

    /// Adds to a key; tells whether it is a new row.
    pub(super) fn add(&mut self, key: K, counts: Counts) -> bool {
        if let Some(place) = self.places.get(&key) {
            self.rows[*place as usize].total += counts;
            return false;
        }
        let row = Row { key, total: counts, before: Counts::default(), unseen: 0 };
        let place = if self.rows.len() < self.most {
            let place = self.rows.len() as u32;
            self.rows.push(row);
            self.lightest.push(Reverse((row.weight(), place)));
            place
        } else {
            self.replace_lightest(row)
        };
        self.places.insert(key, place);
        true
    }

    /// Puts a row in the place of the lightest one.
    fn replace_lightest(&mut self, mut row: Row<K>) -> u32 {
        loop {
            let Some(mut top) = self.lightest.peek_mut() else { return 0 };
            let Reverse((weight, place)) = *top;
            let old = &mut self.rows[place as usize];
            if old.weight() > weight {
                // It has become heavier since; the next one may be lighter.
                *top = Reverse((old.weight(), place));
                continue;
            }
            row.unseen = old.weight();
            *top = Reverse((row.weight(), place));
            self.others.total += old.total;
            self.others.before += old.before;
            self.places.remove(&old.key);
            *old = row;
            return place;
        }
    }

    /// All rows, in no order.
    pub(super) fn rows(&self) -> &[Row<K>] {
        &self.rows
    }

    /// What rows had that gave way: in all, and in this interval.
    pub(super) fn others(&self) -> (Counts, Counts) {
        (self.others.total, self.others.recent())
    }

    /// An interval ends.
    pub(super) fn next_interval(&mut self) {
        for row in &mut self.rows {
            row.before = row.total;
        }
        self.others.before = self.others.total;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.places.clear();
        self.lightest.clear();
        (self.others.total, self.others.before) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ONE: Counts = Counts { new: 1, update: 0, destroy: 0, packets: 3, bytes: 100 };

    fn find(table: &Heavy<u32>, key: u32) -> Option<Row<u32>> {
        table.rows().iter().find(|row| row.key == key).copied()
    }

    #[test]
    fn nothing_is_inexact_while_there_is_room() {
        let mut table = Heavy::new(2);
        assert!(table.add(1, ONE) && table.add(2, ONE) && !table.add(1, ONE));
        let row = find(&table, 1).unwrap();
        assert_eq!((row.total, row.unseen), (ONE + ONE, 0));
        assert_eq!(table.others(), Default::default());
    }

    #[test]
    fn the_lightest_gives_way_and_stays_counted() {
        let mut table = Heavy::new(2);
        for key in [1, 1, 1, 2, 2] {
            table.add(key, ONE);
        }
        assert!(table.add(3, ONE));
        let row = find(&table, 3).unwrap();
        assert_eq!((row.total, row.unseen), (ONE, 2), "it may have been among the others");
        assert_eq!((find(&table, 2), table.others().0), (None, ONE + ONE));
        // Now 1 and 3 weigh the same, and a third event makes 3 the heavier.
        table.add(3, ONE);
        table.add(4, ONE);
        assert!(find(&table, 1).is_none() && find(&table, 3).is_some());
    }

    #[test]
    fn an_interval_tells_what_is_new() {
        let mut table = Heavy::new(1);
        table.add(1, ONE);
        table.next_interval();
        assert_eq!(find(&table, 1).unwrap().recent(), Counts::default());
        table.add(1, ONE);
        assert_eq!(find(&table, 1).unwrap().recent(), ONE);
        // What it had before this interval is no news of the others.
        table.add(2, ONE);
        assert_eq!(table.others(), (ONE + ONE, ONE));
        table.clear();
        assert!(table.rows().is_empty() && table.add(2, ONE));
    }

    proptest! {
        /// Against a table without bounds.
        #[test]
        fn no_heavy_key_is_missed_and_nothing_is_miscounted(
            keys in prop::collection::vec((0_u32..40).prop_map(|n| n * n / 40), 0..600),
            most in 1_usize..12,
        ) {
            let (mut table, mut truth) = (Heavy::new(most), BTreeMap::<u32, u64>::new());
            for key in &keys {
                table.add(*key, ONE);
                *truth.entry(*key).or_default() += 1;
            }
            let all = table.rows().iter().fold(table.others().0, |sum, row| sum + row.total);
            prop_assert_eq!(all.events(), keys.len() as u64);
            prop_assert!(table.rows().len() <= most);
            for row in table.rows() {
                let true_events = truth[&row.key];
                prop_assert!(row.total.events() <= true_events && true_events <= row.weight());
            }
            for (key, events) in truth {
                let heavy = events * most as u64 > keys.len() as u64;
                prop_assert!(!heavy || find(&table, key).is_some(), "{} has {}", key, events);
            }
        }

        #[test]
        fn nothing_is_allocated_once_it_is_full(keys in prop::collection::vec(0_u32..10_000, 5000)) {
            let mut table = Heavy::new(64);
            let capacity = (table.rows.capacity(), table.places.allocation_size());
            for key in keys {
                table.add(key, ONE);
            }
            let now = (table.rows.capacity(), table.places.allocation_size());
            prop_assert_eq!((now, table.lightest.len()), (capacity, 64));
        }
    }
}
