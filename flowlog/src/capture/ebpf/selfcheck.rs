//! Do the hooks see all? Once a minute what they counted is compared with the
//! kernel's own number of entries in the daemon's namespace.
//!
//! The two need not be equal: an entry counts for the kernel from its
//! allocation until its last packet has gone, for the hooks while it is in the
//! table (`nf_conntrack_count`, net/netfilter/nf_conntrack_core.c, 6.12). What
//! stays apart twice in the same direction is no such delay.

use std::time::{Duration, Instant};

use tracing::warn;

/// Between two comparisons.
pub(super) const PERIOD: Duration = Duration::from_secs(60);
/// Entries by which the numbers may differ, whatever the table's size.
const SLACK: u64 = 64;
/// And a part of the table, one in so many.
const SHARE: u64 = 50;

/// The comparison.
#[derive(Debug)]
pub(super) struct SelfCheck {
    due: Instant,
    /// The kernel's number when the hooks began to count.
    base: i64,
    /// What the last comparison found.
    before: Option<Verdict>,
    inserted: &'static str,
    removed: &'static str,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The table has more than the hooks say: insertions are missed.
    Insertions,
    /// The table has less: ends are missed.
    Ends,
}

impl SelfCheck {
    /// Begins with `count` entries in the table; `inserted` and `removed` are
    /// the functions that are hooked.
    pub(super) fn new(
        now: Instant,
        count: u64,
        inserted: &'static str,
        removed: &'static str,
    ) -> Self {
        Self { due: now + PERIOD, base: count.cast_signed(), before: None, inserted, removed }
    }

    /// When the next comparison is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Compares, if it is time: `count` entries in the table now, `new` and
    /// `destroyed` seen by the hooks.
    pub(super) fn compare(&mut self, now: Instant, count: u64, new: u64, destroyed: u64) {
        self.due = now + PERIOD;
        let expected = self.base + new.cast_signed() - destroyed.cast_signed();
        let found = judge(count, expected);
        let lasting = found.filter(|_| found == self.before);
        self.before = found;
        let (hook, what) = match lasting {
            None => return,
            Some(Verdict::Insertions) => (self.inserted, "new connections"),
            Some(Verdict::Ends) => (self.removed, "ends"),
        };
        warn!(
            "the hook on {hook} misses {what}: the kernel has {count} entries, and by what the \
             hooks saw it should have {expected}; use capture=netlink, and report this kernel"
        );
        // What is told once is not told again.
        self.base += count.cast_signed() - expected;
    }
}

fn judge(count: u64, expected: i64) -> Option<Verdict> {
    let slack = (SLACK + count / SHARE).cast_signed();
    let difference = count.cast_signed() - expected;
    match difference {
        more if more > slack => Some(Verdict::Insertions),
        less if less < -slack => Some(Verdict::Ends),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_delays() {
        assert_eq!(judge(1000, 1000), None);
        assert_eq!(judge(1000, 1080), None);
        assert_eq!(judge(1000, 900), Some(Verdict::Insertions));
        assert_eq!(judge(1000, 1100), Some(Verdict::Ends));
        assert_eq!(judge(0, -1000), Some(Verdict::Insertions));
    }

    #[test]
    fn a_difference_must_last() {
        let start = Instant::now();
        let mut check = SelfCheck::new(start, 100, "in", "out");
        check.compare(start, 1000, 0, 0);
        assert_eq!(check.before, Some(Verdict::Insertions));
        check.compare(start, 1000, 0, 0);
        // It has been told, and is the new base.
        check.compare(start, 1000, 0, 0);
        assert_eq!(check.before, None);
        assert_eq!(check.due(), start + PERIOD);
    }
}
