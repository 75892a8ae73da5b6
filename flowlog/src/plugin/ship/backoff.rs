//! How long to wait before the next attempt.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use super::Trouble;

/// Between two attempts, where the trouble may pass by itself.
const PASSING: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(15)];
/// The same where a person has to change something.
const REFUSED: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Between two attempts to replace a spool that is damaged, or was removed: each may copy all that
/// it holds.
pub(super) const REPLACING: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// A spool could not be replaced, and that is not tried again before some time.
#[derive(Debug)]
pub(super) struct Pause {
    /// Why not.
    pub(super) why: String,
    length: Duration,
    end: Instant,
}

impl Pause {
    /// The pause behind the one before, if there was one.
    pub(super) fn after(before: Option<&Self>, why: String) -> Self {
        let [first, most] = REPLACING;
        let length = before.map_or(first, |before| (before.length * 2).min(most));
        Self { why, length, end: Instant::now() + length }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// Waits that grow with each attempt that fails.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The far side works.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now. A fleet does not come back all at once: a quarter
    /// more or less, by chance.
    pub(super) fn after(&mut self, trouble: &Trouble) -> Duration {
        let [first, most] = if trouble.needs_a_person() { REFUSED } else { PASSING };
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        let chance = RandomState::new().build_hasher().finish() % 512;
        wait.mul_f64(0.75 + chance as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let trouble = Trouble::passing("nobody listens");
        let waits: Vec<_> = (0..40).map(|_| backoff.after(&trouble)).collect();
        assert!(waits[0] >= PASSING[0].mul_f64(0.74) && waits[0] <= PASSING[0].mul_f64(1.26));
        assert!(waits.iter().all(|wait| *wait <= PASSING[1].mul_f64(1.26)), "{waits:?}");
        assert!(waits[39] >= PASSING[1].mul_f64(0.74), "{waits:?}");
        backoff.reset();
        assert!(backoff.after(&trouble) <= PASSING[0].mul_f64(1.26));
        assert!(Backoff::default().after(&Trouble::refused("password")) > Duration::from_secs(3));
    }

    #[test]
    fn pauses_of_a_damaged_spool_grow_to_a_minute() {
        let mut pause = Pause::after(None, String::new());
        let mut lengths = Vec::new();
        for _ in 0..9 {
            assert!(!pause.is_over() && pause.end > Instant::now() + pause.length / 2);
            lengths.push(pause.length.as_secs());
            pause = Pause::after(Some(&pause), String::new());
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
