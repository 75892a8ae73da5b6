//! Whether a sink makes progress: records wait, and some of them are written.

use std::time::{Duration, Instant};

use crate::stats::{Measure, SinkPlugin, SinkStats};

/// What grows when a record leaves the memory of a sink without a spool, and of one with.
const WITHOUT_SPOOL: [Measure; 3] = [Measure::Records, Measure::Bytes, Measure::Refused];
const WITH_SPOOL: [Measure; 3] = [Measure::Spooled, Measure::Dropped, Measure::Dropped];

/// The progress of one sink, as its counters tell.
#[derive(Debug)]
pub(super) struct Progress {
    measures: [Measure; 3],
    counts: [u64; 3],
    /// Bytes that wait in memory.
    waiting: usize,
    /// The last time that nothing waited or something was written.
    last: Instant,
    /// Since when records stand still behind the memory, in the spool, as the sink itself says.
    behind: Option<Instant>,
}

impl Progress {
    pub(super) fn new(plugin: SinkPlugin, now: Instant) -> Self {
        let measures = if plugin.is_spooled() { WITH_SPOOL } else { WITHOUT_SPOOL };
        Self { measures, counts: [0; 3], waiting: 0, last: now, behind: None }
    }

    /// Bytes that wait in memory now, and for how long a sink with a spool has `stalled`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        stats: &SinkStats,
        waiting: usize,
        stalled: Option<Duration>,
    ) {
        let counts = self.measures.map(|measure| stats.get(measure));
        if self.waiting == 0 || waiting == 0 || counts != self.counts {
            self.last = now;
        }
        (self.counts, self.waiting) = (counts, waiting);
        self.behind = stalled.and_then(|stalled| now.checked_sub(stalled));
    }

    /// Bytes that wait in memory.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// For how long nothing has been written or delivered though something waits, or the destination
    /// has not answered.
    pub(super) fn stalled(&self, now: Instant, stats: &SinkStats) -> Duration {
        let waits = self.waiting > 0;
        let memory = if waits { now.duration_since(self.last) } else { Duration::ZERO };
        let behind = self.behind.map(|since| now.duration_since(since)).unwrap_or_default();
        memory.max(behind).max(stats.unanswered().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_waits_and_is_not_written_stands_still() {
        let (begin, stats) = (Instant::now(), SinkStats::default());
        let mut progress = Progress::new(SinkPlugin::Json, begin);
        for second in 0..20 {
            progress.look(begin + second * SECOND, &stats, 100, None);
            // Records that come, or are lost, are no progress.
            stats.add(Measure::Lost, 1);
        }
        let end = begin + 19 * SECOND;
        assert_eq!(progress.stalled(end, &stats), 19 * SECOND);
        stats.add(Measure::Records, 1);
        progress.look(end, &stats, 100, None);
        assert_eq!(progress.stalled(end, &stats), Duration::ZERO);
        assert_eq!(progress.stalled(end + SECOND, &stats), SECOND);
        progress.look(end + SECOND, &stats, 0, None);
        assert_eq!(progress.stalled(end + 9 * SECOND, &stats), Duration::ZERO, "nothing waits");
    }

    /// Records go on into the spool, and nothing takes them from there.
    #[test]
    fn what_is_not_delivered_from_the_spool_stands_still() {
        let (begin, stats) = (Instant::now(), SinkStats::default());
        let mut progress = Progress::new(SinkPlugin::Nats, begin);
        progress.look(begin + 20 * SECOND, &stats, 0, Some(12 * SECOND));
        assert_eq!(progress.stalled(begin + 21 * SECOND, &stats), 13 * SECOND);
        progress.look(begin + 21 * SECOND, &stats, 0, None);
        assert_eq!(progress.stalled(begin + 21 * SECOND, &stats), Duration::ZERO);
    }

    /// Records go on into the spool while the destination hangs.
    #[test]
    fn a_destination_that_does_not_answer_stands_still() {
        let (begin, stats) = (Instant::now(), SinkStats::default());
        let mut progress = Progress::new(SinkPlugin::Nats, begin);
        stats.add(Measure::Spooled, 1);
        progress.look(begin, &stats, 0, None);
        assert_eq!(progress.stalled(begin, &stats), Duration::ZERO);
        stats.ask();
        std::thread::sleep(Duration::from_millis(5));
        assert!(progress.stalled(begin, &stats) >= Duration::from_millis(5));
        stats.answered();
        assert_eq!(progress.stalled(begin, &stats), Duration::ZERO);
    }
}
