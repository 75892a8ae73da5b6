//! A rest between two drains. Each event alone would wake the daemon, and the
//! wake-up costs several times what the event does. So when events come often
//! the daemon sleeps a little, and finds many. The rest is too short to be seen
//! in a log, and too short for the queue to fill.

use std::time::{Duration, Instant};

/// The longest rest.
const LONGEST: Duration = Duration::from_millis(20);
/// Below this rest is not worth the system call.
const SHORTEST: Duration = Duration::from_micros(200);
/// Events per second from which on resting pays.
const BUSY: f64 = 100.0;
/// Events worth waking up for: more at once would hardly be cheaper each, and a
/// burst that begins during a rest finds the queue fuller.
const ENOUGH: f64 = 512.0;
/// A rest may fill this part of the queue at the rate last seen.
const FILL: f64 = 1.0 / 8.0;

/// Knows the rate of events.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    last: Option<Instant>,
    rate: f64,
}

impl Rest {
    /// Rests after a drain of `messages` from a queue that holds `room`.
    pub(crate) fn after(&mut self, messages: usize, room: usize) {
        let now = Instant::now();
        let elapsed = self.last.map_or(Duration::MAX, |last| now.duration_since(last));
        self.last = Some(now);
        let pause = self.pause(messages, elapsed, room);
        if pause >= SHORTEST {
            std::thread::sleep(pause);
        }
    }

    fn pause(&mut self, messages: usize, elapsed: Duration, room: usize) -> Duration {
        let seconds = elapsed.as_secs_f64().max(1e-6);
        // The higher of the two: a burst is met at once, a lull only believed
        // when it lasts.
        let seen = messages as f64 / seconds;
        self.rate = seen.max((self.rate + seen) / 2.0);
        if self.rate < BUSY {
            return Duration::ZERO;
        }
        let events = ENOUGH.min(room as f64 * FILL);
        LONGEST.min(Duration::from_secs_f64(events / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(messages: usize, elapsed_ms: u64, room: usize) -> Duration {
        Rest::default().pause(messages, Duration::from_millis(elapsed_ms), room)
    }

    #[test]
    fn a_quiet_host_is_served_at_once() {
        assert_eq!(pause(1, 1000, 10_000), Duration::ZERO);
    }

    #[test]
    fn a_busy_one_in_batches_that_the_queue_can_hold() {
        assert_eq!(pause(100, 20, 10_000), LONGEST);
        let busier = pause(2000, 20, 10_000);
        assert!(busier < Duration::from_millis(6), "{busier:?}");
        let short = pause(2000, 20, 800);
        assert!(short <= Duration::from_millis(1), "{short:?}");
    }
}
