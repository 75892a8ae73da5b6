//! Do the hooks see all? Once a minute what they counted is compared with the
//! kernel's own number of entries in the namespace of the source. Both numbers
//! of the kernel, the first and each later one, come from one [`TableFill`]: the
//! thread that compares may be in another namespace than the one that attached.
//!
//! The two need not be equal: an entry counts for the kernel from its
//! allocation until its last packet has gone, for the hooks while it is in the
//! table (`nf_conntrack_count`, net/netfilter/nf_conntrack_core.c, 6.12). What
//! stays apart twice in the same direction is no such delay. Both begin once all
//! hooks are attached: what happens while they are attached one after the other is
//! no difference.

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

/// Readings of both numbers, until one is made in which the hooks count little.
const READINGS: u32 = 8;

/// The functions that are hooked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hooked {
    /// Entries enter the table there.
    pub(super) inserted: &'static str,
    /// And leave it there.
    pub(super) removed: &'static str,
}

/// The comparison.
#[derive(Debug)]
pub(super) struct SelfCheck {
    due: Instant,
    period: Duration,
    /// The kernel's table.
    table: TableFill,
    /// Its number of entries less those that the hooks have seen; absent until both were read.
    base: Option<i64>,
    /// It has been reported that the number cannot be read.
    unreadable: bool,
    /// What the last comparison found.
    before: Option<Verdict>,
    hooked: Hooked,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The table has more than the hooks say: insertions are missed.
    Insertions,
    /// The table has less: ends are missed.
    Ends,
}

/// Both numbers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// Entries in the table.
    count: i64,
    /// Entries that the hooks saw begin, less those that they saw end.
    seen: i64,
}

impl Reading {
    /// Reads both. The hooks are read before and behind the table: a thread that is
    /// preempted in between would take what happens meanwhile for a difference.
    fn take(table: &TableFill, mut seen: impl FnMut() -> Option<(u64, u64)>) -> Option<Self> {
        let mut before = seen()?;
        for reading in 1.. {
            let count = table.count()?.cast_signed();
            let (new, destroyed) = seen()?;
            let meanwhile = new.abs_diff(before.0).max(destroyed.abs_diff(before.1));
            if meanwhile <= SLACK / 2 || reading == READINGS {
                return Some(Self { count, seen: new.cast_signed() - destroyed.cast_signed() });
            }
            before = (new, destroyed);
        }
        None
    }
}

impl SelfCheck {
    /// Begins, once all hooks are attached: what happens while they are attached one
    /// after the other is part of no comparison. `seen`: how many entries they saw
    /// begin and end. Where a number cannot be read, with the first period in which it can.
    pub(super) fn begin(
        now: Instant,
        table: TableFill,
        hooked: Hooked,
        seen: impl FnMut() -> Option<(u64, u64)>,
    ) -> Self {
        let base = Reading::take(&table, seen).map(|Reading { count, seen }| count - seen);
        let period = std::env::var(PERIOD_NAME).ok().and_then(|text| text.parse().ok());
        let period = period.map_or(PERIOD, Duration::from_secs);
        Self { due: now + period, period, table, base, unreadable: false, before: None, hooked }
    }

    /// When the next comparison is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Compares if it is time to. The next comparison is due a period later even
    /// where a number cannot be read, for the caller sleeps until
    /// [`SelfCheck::due`].
    pub(super) fn check(&mut self, now: Instant, seen: impl FnMut() -> Option<(u64, u64)>) {
        if now < self.due {
            return;
        }
        self.due = now + self.period;
        let reading = Reading::take(&self.table, seen);
        if reading.is_none() && !self.unreadable {
            warn!(
                "nf_conntrack_count cannot be read: whether the hooks on {} and {} see all is not \
                 checked until it can",
                self.hooked.inserted, self.hooked.removed
            );
        }
        self.unreadable = reading.is_none();
        if let Some(reading) = reading {
            self.compare(reading);
        }
    }

    fn compare(&mut self, Reading { count, seen }: Reading) {
        let base = *self.base.get_or_insert(count - seen);
        let expected = base + seen;
        let found = judge(count, expected);
        let lasting = found.filter(|_| found == self.before);
        self.before = found;
        let (hook, what) = match lasting {
            None => return,
            Some(Verdict::Insertions) => (self.hooked.inserted, "new connections"),
            Some(Verdict::Ends) => (self.hooked.removed, "ends"),
        };
        warn!(
            "the hook on {hook} misses {what}: the kernel has {count} entries, and by what the \
             hooks saw it should have {expected}; use capture=netlink, and report this kernel"
        );
        // What is told once is not told again.
        self.base = Some(count - seen);
    }
}

fn judge(count: i64, expected: i64) -> Option<Verdict> {
    let slack = (SLACK + count.unsigned_abs() / SHARE).cast_signed();
    match count - expected {
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

    const HOOKED: Hooked = Hooked { inserted: "in", removed: "out" };

    fn begun(start: Instant, table: TableFill) -> SelfCheck {
        SelfCheck::begin(start, table, HOOKED, || Some((0, 0)))
    }

    #[test]
    fn a_difference_must_last() {
        let start = Instant::now();
        let (file, table) = table("100\n");
        let mut check = begun(start, table);
        fs::write(file.path(), "1000\n").unwrap();
        let mut found = Vec::new();
        for period in 1..4 {
            check.check(start + period * PERIOD, || Some((0, 0)));
            found.push(check.before);
        }
        // At the second time it was told, and is the new base.
        assert_eq!(found, [Some(Verdict::Insertions), Some(Verdict::Insertions), None]);
    }

    #[test]
    fn the_first_number_and_the_later_ones_are_of_one_table() {
        let start = Instant::now();
        let (file, table) = table("5000\n");
        let mut check = begun(start, table);
        check.check(start, || panic!("it is not due yet"));
        fs::write(file.path(), "5010\n").unwrap();
        for period in 1..4 {
            let now = start + period * PERIOD;
            check.check(now, || Some((20, 10)));
            assert_eq!((check.before, check.due()), (None, now + PERIOD));
        }
    }

    /// Flows begin while one hook after the other is attached.
    #[test]
    fn what_the_hooks_saw_before_the_first_number_is_no_difference() {
        let start = Instant::now();
        let (_file, table) = table("9000\n");
        // 4,000 began before the hook was there; of ends it saw each.
        let mut check = SelfCheck::begin(start, table, HOOKED, || Some((1000, 3000)));
        for period in 1..4 {
            check.check(start + period * PERIOD, || Some((1500, 3500)));
            assert_eq!(check.before, None);
        }
    }

    /// The thread does not run for a while between the two readings.
    #[test]
    fn a_pause_between_the_two_numbers_is_no_difference() {
        let (_file, table) = table("5000\n");
        let mut readings = [(0, 0), (4000, 0), (4010, 0)].into_iter();
        let reading = Reading::take(&table, || readings.next()).unwrap();
        assert_eq!(reading, Reading { count: 5000, seen: 4010 });
        assert_eq!(readings.next(), None, "it was read until it stood still");
        // On a host that never stands still it comes to an end.
        let mut new = 0;
        let reading = Reading::take(&table, || {
            new += 1000;
            Some((new, 0))
        });
        assert!(reading.is_some());
    }

    #[test]
    fn a_number_that_cannot_be_read_is_waited_for() {
        let start = Instant::now();
        let (file, table) = table("100\n");
        let mut check = begun(start, table);
        fs::write(file.path(), "").unwrap();
        for period in 1..4 {
            let now = start + period * PERIOD;
            check.check(now, || Some((0, 0)));
            assert!(check.due() > now, "the engine would spin");
            assert!(check.unreadable);
        }
        fs::write(file.path(), "100\n").unwrap();
        check.check(start + 4 * PERIOD, || Some((0, 0)));
        assert!(!check.unreadable);
    }

    fn table(count: &str) -> (NamedTempFile, TableFill) {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), count).unwrap();
        let count = fs::File::open(file.path()).unwrap();
        (file, TableFill::with_count(count))
    }
}
