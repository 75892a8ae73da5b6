//! Do the hooks see all? Once a minute what they counted is compared with the
//! kernel's own number of entries in the namespace of the source. Both numbers
//! of the kernel, the first and each later one, come from one [`TableFill`]: the
//! thread that compares may be in another namespace than the one that attached.
//!
//! The two need not be equal: an entry counts for the kernel from its
//! allocation until its last packet has gone, for the hooks while it is in the
//! table (`nf_conntrack_count`, net/netfilter/nf_conntrack_core.c, 6.12). What
//! stays apart twice in the same direction is no such delay.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::kernel::TableFill;

/// Between two comparisons.
const PERIOD: Duration = Duration::from_secs(60);
/// The environment variable by which tests have less of it, in seconds.
const PERIOD_NAME: &str = "FLOWLOG_SELFCHECK_PERIOD";
/// Entries by which the numbers may differ, whatever the table's size.
const SLACK: u64 = 64;
/// And a part of the table, one in so many.
const SHARE: u64 = 50;

/// The comparison.
#[derive(Debug)]
pub(super) struct SelfCheck {
    due: Instant,
    period: Duration,
    /// The kernel's table.
    table: TableFill,
    /// Its number of entries when the hooks began to count.
    base: i64,
    /// It has been reported that the number cannot be read.
    unreadable: bool,
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
    /// Begins with `base` entries in the table; `inserted` and `removed` are the
    /// functions that are hooked.
    pub(super) fn new(
        now: Instant,
        table: TableFill,
        base: u64,
        inserted: &'static str,
        removed: &'static str,
    ) -> Self {
        let period = std::env::var(PERIOD_NAME).ok().and_then(|text| text.parse().ok());
        let period = period.map_or(PERIOD, Duration::from_secs);
        let (due, base) = (now + period, base.cast_signed());
        Self { due, period, table, base, unreadable: false, before: None, inserted, removed }
    }

    /// When the next comparison is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Begins a comparison if it is time for one: the kernel's number of entries
    /// now, for [`SelfCheck::compare`]. The next one is due a period later even
    /// where the number cannot be read, for the caller sleeps until
    /// [`SelfCheck::due`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        if now < self.due {
            return None;
        }
        self.due = now + self.period;
        let count = self.table.count();
        if count.is_none() && !self.unreadable {
            warn!(
                "nf_conntrack_count cannot be read: whether the hooks on {} and {} see all is not \
                 checked until it can",
                self.inserted, self.removed
            );
        }
        self.unreadable = count.is_none();
        count
    }

    /// Compares `count` entries in the table with `new` and `destroyed`, which
    /// the hooks saw.
    pub(super) fn compare(&mut self, count: u64, new: u64, destroyed: u64) {
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
    use std::fs;

    use tempfile::NamedTempFile;

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
        let (_file, table) = table("100\n");
        let mut check = SelfCheck::new(Instant::now(), table, 100, "in", "out");
        check.compare(1000, 0, 0);
        assert_eq!(check.before, Some(Verdict::Insertions));
        check.compare(1000, 0, 0);
        // It has been told, and is the new base.
        check.compare(1000, 0, 0);
        assert_eq!(check.before, None);
    }

    #[test]
    fn the_first_number_and_the_later_ones_are_of_one_table() {
        let start = Instant::now();
        let (file, table) = table("5000\n");
        let base = table.count().unwrap();
        let mut check = SelfCheck::new(start, table, base, "in", "out");
        assert_eq!(check.take_due(start), None, "not yet");
        fs::write(file.path(), "5010\n").unwrap();
        for period in 1..4 {
            let now = start + period * PERIOD;
            let count = check.take_due(now).unwrap();
            assert_eq!((count, check.due()), (5010, now + PERIOD));
            check.compare(count, 20, 10);
            assert_eq!(check.before, None);
        }
    }

    #[test]
    fn a_number_that_cannot_be_read_is_waited_for() {
        let start = Instant::now();
        let (file, table) = table("100\n");
        let mut check = SelfCheck::new(start, table, 100, "in", "out");
        fs::write(file.path(), "").unwrap();
        for period in 1..4 {
            let now = start + period * PERIOD;
            assert_eq!(check.take_due(now), None);
            assert!(check.due() > now, "the engine would spin");
            assert!(check.unreadable);
        }
        fs::write(file.path(), "100\n").unwrap();
        assert_eq!(check.take_due(start + 4 * PERIOD), Some(100));
        assert!(!check.unreadable);
    }

    fn table(count: &str) -> (NamedTempFile, TableFill) {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), count).unwrap();
        let count = fs::File::open(file.path()).unwrap();
        (file, TableFill::with_count(count))
    }
}
