//! Since when records wait without any progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// What instants are counted from; none is before it.
static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A clock that runs while records wait, and begins anew with each progress. Clones are the
/// same one, on any thread.
#[derive(Clone, Debug)]
pub struct Stall(Arc<AtomicU64>);

/// Nothing waits.
const IDLE: u64 = u64::MAX;

impl Default for Stall {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(IDLE)))
    }
}

impl Stall {
    /// A record waits; the clock starts if it does not run.
    pub fn wait(&self) {
        // It fails where the clock runs already.
        let _ = self.0.compare_exchange(IDLE, now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Some records went on, and others wait: the clock starts anew.
    pub fn progress(&self) {
        self.0.store(now(), Ordering::Relaxed);
    }

    /// Nothing waits any more.
    pub fn clear(&self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }

    /// How long records have waited; absent: none waits.
    pub fn stalled_for(&self) -> Option<Duration> {
        let since = self.0.load(Ordering::Relaxed);
        (since != IDLE).then(|| Duration::from_millis(now().saturating_sub(since)))
    }
}

/// Milliseconds since the base.
fn now() -> u64 {
    BASE.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_while_records_wait() {
        let stall = Stall::default();
        assert_eq!(stall.stalled_for(), None);
        stall.wait();
        std::thread::sleep(Duration::from_millis(20));
        stall.clone().wait();
        assert!(stall.stalled_for().unwrap() >= Duration::from_millis(19));
        stall.progress();
        assert!(stall.stalled_for().unwrap() < Duration::from_millis(19));
        stall.clear();
        assert_eq!(stall.stalled_for(), None);
    }
}
