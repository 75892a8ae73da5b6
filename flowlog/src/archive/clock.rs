//! Two clocks: the one that records are dated by, which may be set, and the one
//! that deadlines go by, which only goes on. That they disagree is how a clock
//! that was set is noticed.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clocks may differ by so much without one having been set, nanoseconds.
const JITTER: u64 = 2_000_000_000;

/// A moment by both clocks, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since the epoch.
    pub wall: u64,
    /// Since some moment of this process.
    pub steady: u64,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let steady = BEGIN.get_or_init(Instant::now).elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: wall.as_nanos() as u64, steady: steady.as_nanos() as u64 }
    }

    /// That time, where no clock is ever set.
    pub fn at(time: u64) -> Self {
        Self { wall: time, steady: time }
    }

    /// Later by that, by both clocks.
    pub fn after(self, time: Duration) -> Self {
        let time = time.as_nanos() as u64;
        Self { wall: self.wall.saturating_add(time), steady: self.steady.saturating_add(time) }
    }

    /// Earlier by that, by both clocks.
    pub fn before(self, time: Duration) -> Self {
        let time = time.as_nanos() as u64;
        Self { wall: self.wall.saturating_sub(time), steady: self.steady.saturating_sub(time) }
    }

    /// The clock was set between `before` and this moment.
    pub fn was_set_since(self, before: Self) -> bool {
        let expected = before.wall.saturating_add(self.steady.saturating_sub(before.steady));
        self.wall.abs_diff(expected) > JITTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let before = Moment { wall: 1_000_000 * JITTER, steady: 7 };
        let later = before.after(Duration::from_secs(3600));
        assert!(!later.was_set_since(before));
        let set = |by: i64| Moment { wall: later.wall.saturating_add_signed(by), ..later };
        for by in [-(JITTER as i64), JITTER as i64, 50_000_000] {
            assert!(!set(by).was_set_since(before), "{by}");
        }
        for by in [-(JITTER as i64) - 1, JITTER as i64 + 1, 2 * 86_400_000_000_000] {
            assert!(set(by).was_set_since(before), "{by}");
        }
    }
}
