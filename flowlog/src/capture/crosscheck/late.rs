//! Words that may still come when an event has been let go without them: they
//! are no new events. What can no longer come is forgotten, because each source
//! tells in the kernel's order.

use hashbrown::HashMap;

use super::queue::Key;

/// Words that are remembered at most, in each of two generations.
const MOST: usize = 1 << 18;

/// Words of one source that may come late.
#[derive(Debug, Default)]
pub(super) struct Late {
    older: Generation,
    newer: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    words: HashMap<Key, u32>,
    /// When the last of these events happened, nanoseconds of `CLOCK_BOOTTIME`.
    until: u64,
}

impl Late {
    /// The word of an event that happened at `at`, or before, may still come.
    pub(super) fn expect(&mut self, key: Key, at: u64) {
        if !self.is_full() {
            *self.newer.words.entry(key).or_default() += 1;
            self.newer.until = self.newer.until.max(at);
        }
    }

    /// Whether this is such a word, which has then come.
    pub(super) fn take(&mut self, key: &Key) -> bool {
        self.older.take(key) || self.newer.take(key)
    }

    /// No more can be remembered: no word that comes is known to be new.
    pub(super) fn is_full(&self) -> bool {
        self.newer.words.len() >= MOST
    }

    /// The source has told all that happened until `seen`.
    pub(super) fn forget(&mut self, seen: u64) {
        while !self.is_empty() && self.older.until < seen {
            self.older = std::mem::take(&mut self.newer);
        }
    }

    fn is_empty(&self) -> bool {
        self.older.words.is_empty() && self.newer.words.is_empty()
    }
}

impl Generation {
    fn take(&mut self, key: &Key) -> bool {
        // Nearly always; nothing has to be hashed then.
        if self.words.is_empty() {
            return false;
        }
        let Some(count) = self.words.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.words.remove(key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Tuple;
    use crate::stats::CheckKind;

    fn key(port: u16) -> Key {
        Key::of_flow(CheckKind::New, Tuple { src_l4: port, ..Tuple::default() }, 0)
    }

    #[test]
    fn each_word_is_taken_once() {
        let mut late = Late::default();
        late.expect(key(1), 10);
        late.expect(key(1), 11);
        assert!(late.take(&key(1)) && late.take(&key(1)) && !late.take(&key(1)));
        assert!(!late.take(&key(2)));
    }

    #[test]
    fn what_cannot_come_any_more_is_forgotten() {
        let mut late = Late::default();
        late.expect(key(1), 10);
        late.forget(5);
        late.expect(key(2), 20);
        late.forget(15);
        assert!(late.take(&key(2)));
        late.expect(key(3), 20);
        late.forget(21);
        assert!(!late.take(&key(3)) && late.is_empty());
    }
}
