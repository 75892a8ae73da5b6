//! The watchdog of systemd (`WatchdogSec=`): the engine tells now and then that its loop turns,
//! and a daemon that is stuck is noticed by its silence, and started anew.

use std::time::{Duration, Instant};

use super::notify::{Notifier, Word};

/// Keeps the service manager patient.
#[derive(Debug)]
pub struct Watchdog {
    /// Twice as often as it is asked for, as sd_watchdog_enabled(3) recommends.
    every: Duration,
    due: Instant,
}

impl Watchdog {
    /// The one that this process was started with; none where nobody watches it.
    pub fn of_environment() -> Option<Self> {
        sd_notify::watchdog_enabled().map(|limit| Self::new(limit, Instant::now()))
    }

    fn new(limit: Duration, now: Instant) -> Self {
        Self { every: limit / 2, due: now }
    }

    /// When the next word is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Says that all is well, if it is time to.
    pub fn tick(&mut self, now: Instant, notifier: &Notifier) {
        if self.is_due(now) {
            notifier.say(Word::Alive);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            self.due = now + self.every;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_twice_in_its_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watchdog = Watchdog::new(Duration::from_secs(30), start);
        let told: Vec<_> = (0..60).filter(|second| watchdog.is_due(at(*second))).collect();
        assert_eq!(told, [0, 15, 30, 45]);
        assert_eq!(watchdog.due(), at(60));
    }
}
