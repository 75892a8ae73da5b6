//! Which rows a commit may have written. At the exit of the daemon each row counts either as
//! written or as lost, or as unsure where neither is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the writer's thread and the engine's agree on. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The first rows that wait, which may be written: they are being committed, or their
    /// commit failed without an answer that it was undone.
    in_doubt: u64,
    /// All rows that wait are counted: nothing is committed any more.
    given_up: bool,
}

impl Commits {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values are whole, whatever became of the other thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first rows that wait, which may be written already.
    pub(super) fn in_doubt(&self) -> u64 {
        self.lock().in_doubt
    }

    /// The first `rows` are about to be committed. Returns how many were in doubt before;
    /// absent: they were given up, and may not be committed.
    pub(super) fn begin(&self, rows: u64) -> Option<u64> {
        let mut state = self.lock();
        let before = state.in_doubt;
        state.in_doubt = before.max(rows);
        (!state.given_up).then_some(before)
    }

    /// The commit wrote nothing: as many are in doubt as before it.
    pub(super) fn undone(&self, before: u64) {
        self.lock().in_doubt = before;
    }

    /// The commit wrote its rows, which `count` counts, unless they were given up meanwhile.
    /// Returns whether it did.
    pub(super) fn done(&self, rows: u64, count: impl FnOnce()) -> bool {
        let mut state = self.lock();
        if state.given_up {
            return false;
        }
        state.in_doubt = state.in_doubt.saturating_sub(rows);
        count();
        true
    }

    /// Gives up all that waits, which `count` counts; its argument is how many of the first of
    /// them may be written.
    pub(crate) fn give_up(&self, count: impl FnOnce(u64)) {
        let mut state = self.lock();
        state.given_up = true;
        count(state.in_doubt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_or_counted() {
        // Before the commit: it does not take place.
        let commits = Commits::default();
        commits.give_up(|in_doubt| assert_eq!(in_doubt, 0));
        assert_eq!(commits.begin(5), None);

        // During it: whether it takes place is not known.
        let commits = Commits::default();
        assert_eq!(commits.begin(5), Some(0));
        commits.give_up(|in_doubt| assert_eq!(in_doubt, 5));
        assert!(!commits.done(5, || panic!("counted twice")));

        // Behind it: they are written.
        let commits = Commits::default();
        assert_eq!(commits.begin(5), Some(0));
        let mut counted = 0;
        assert!(commits.done(5, || counted += 5));
        commits.give_up(|in_doubt| assert_eq!((in_doubt, counted), (0, 5)));
    }

    #[test]
    fn a_commit_without_an_answer_leaves_its_rows_in_doubt() {
        let commits = Commits::default();
        assert_eq!(commits.begin(5), Some(0));
        // It failed; the next one has fewer rows, and is undone.
        assert_eq!(commits.begin(3), Some(5));
        commits.undone(5);
        assert_eq!(commits.in_doubt(), 5);
        assert_eq!(commits.begin(3), Some(5));
        assert!(commits.done(3, || ()));
        assert_eq!(commits.in_doubt(), 2);
        assert_eq!(commits.begin(4), Some(2));
        assert!(commits.done(4, || ()));
        assert_eq!(commits.in_doubt(), 0);
    }
}
