//! When the table of live flows is compared with the kernel's, and how: dump,
//! let events that are under way arrive, ask for each entry that the dump did
//! not show, and only then call it vanished. A pure state machine; the clock
//! and the table are handed in.

use std::time::{Duration, Instant};

use super::Settings;
use super::table::Entry;
use crate::capture::FlowKey;

/// Between the end of a dump and the queries: time for the events of flows
/// that ended meanwhile.
const SETTLE: Duration = Duration::from_millis(200);
/// A dump that failed is made again after the first of these, and after twice
/// the time whenever it fails again, up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// What the engine is to ask of the capture.
#[derive(Debug)]
pub enum Action {
    /// Dump the table.
    Dump,
    /// Dump the table and reset its counters.
    DumpAndReset,
    /// Look these entries up.
    Query(Vec<FlowKey>),
    /// Nothing.
    Nothing,
}

/// Why a dump is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn the flows that exist at start.
    Startup,
    /// To make good for a loss.
    Resync,
    /// To poll, or to close flows that the kernel does not report.
    Compare,
    /// SIGUSR2.
    Reset,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Dumping,
    Settling { until: Instant, candidates: Vec<Entry> },
    Querying { candidates: Vec<Entry> },
}

/// The schedule of comparisons.
#[derive(Debug)]
pub(super) struct Sync {
    phase: Phase,
    purpose: Purpose,
    /// When the next dump is due.
    due: Option<Instant>,
    /// The next dump makes good for a loss.
    loss: bool,
    /// SIGUSR2 came while something else was under way.
    reset_requested: bool,
    poll: Option<Duration>,
    resync: Duration,
    redump: Option<Duration>,
    /// When flows from before the start were last looked for.
    compared: Option<Instant>,
    started: bool,
    /// After a failure: no dump before that.
    retry: Option<Instant>,
    /// Dumps that failed in a row.
    failures: u32,
}

impl Sync {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            phase: Phase::Idle,
            purpose: Purpose::Startup,
            due: Some(Instant::now()),
            loss: false,
            reset_requested: false,
            poll: settings.poll,
            resync: settings.resync,
            redump: settings.redump,
            compared: None,
            started: false,
            retry: None,
            failures: 0,
        }
    }

    /// Why the dump under way, or the last one, is made.
    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The dump under way takes the place of one that failed.
    pub(super) fn is_retry(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn is_dumping(&self) -> bool {
        matches!(self.phase, Phase::Dumping)
    }

    /// The dump at start has not succeeded yet.
    pub(super) fn is_starting(&self) -> bool {
        !self.started
    }

    /// Events were lost: compare once the storm is over.
    pub(super) fn lost(&mut self, now: Instant) {
        self.loss = true;
        self.due.get_or_insert(now + self.resync);
    }

    pub(super) fn request_reset(&mut self) -> Action {
        self.reset_requested = true;
        Action::Nothing
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle if self.reset_requested && self.started => {
                Some(self.retry.unwrap_or_else(Instant::now))
            }
            Phase::Idle => {
                let due = [self.due, self.redump_due()].into_iter().flatten().min()?;
                // A dump that failed is not made again before then.
                Some(self.retry.map_or(due, |retry| due.max(retry)))
            }
            Phase::Settling { until, .. } => Some(*until),
            Phase::Dumping | Phase::Querying { .. } => None,
        }
    }

    fn redump_due(&self) -> Option<Instant> {
        Some(self.compared? + self.redump?)
    }

    /// Moves on. `preexisting`: flows live that the kernel may never report.
    /// `retain` strikes out the candidates of whose end an event has told.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        preexisting: bool,
        retain: impl FnOnce(&mut Vec<Entry>),
    ) -> Option<Action> {
        match &mut self.phase {
            Phase::Idle => self.next_dump(now, preexisting),
            Phase::Settling { until, candidates } if *until <= now => {
                let mut candidates = std::mem::take(candidates);
                retain(&mut candidates);
                if candidates.is_empty() {
                    self.phase = Phase::Idle;
                    return None;
                }
                let keys = candidates.iter().map(Entry::key).collect();
                self.phase = Phase::Querying { candidates };
                Some(Action::Query(keys))
            }
            Phase::Settling { .. } | Phase::Dumping | Phase::Querying { .. } => None,
        }
    }

    fn next_dump(&mut self, now: Instant, preexisting: bool) -> Option<Action> {
        if self.retry.is_some_and(|retry| now < retry) {
            return None;
        }
        if self.started && self.reset_requested {
            self.reset_requested = false;
            self.purpose = Purpose::Reset;
            self.phase = Phase::Dumping;
            return Some(Action::DumpAndReset);
        }
        let redump = self.redump_due().is_some_and(|due| due <= now);
        if redump && !preexisting {
            // They have all ended.
            self.compared = None;
        }
        let due = self.due.is_some_and(|due| due <= now) || (redump && preexisting);
        if !due {
            return None;
        }
        self.due = self.poll.map(|period| now + period);
        self.purpose = match (self.started, self.loss) {
            (false, _) => Purpose::Startup,
            (true, true) => Purpose::Resync,
            (true, false) => Purpose::Compare,
        };
        self.loss = false;
        self.phase = Phase::Dumping;
        Some(Action::Dump)
    }

    /// The dump has ended; `vanished` are the entries that it did not show.
    pub(super) fn dump_done(&mut self, complete: bool, vanished: Vec<Entry>, now: Instant) {
        if !complete {
            self.failed(now);
            return;
        }
        self.started = true;
        (self.failures, self.retry) = (0, None);
        self.compared = Some(now);
        self.phase = if vanished.is_empty() {
            Phase::Idle
        } else {
            Phase::Settling { until: now + SETTLE, candidates: vanished }
        };
    }

    /// The candidates that are still to be judged; none where some of the
    /// queries have no answer, and the comparison is made again.
    pub(super) fn query_done(&mut self, complete: bool, now: Instant) -> Option<Vec<Entry>> {
        let Phase::Querying { candidates } = &mut self.phase else { return None };
        let candidates = std::mem::take(candidates);
        if !complete {
            self.failed(now);
            return None;
        }
        self.phase = Phase::Idle;
        Some(candidates)
    }

    /// What was under way failed: again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.loss |= self.purpose == Purpose::Resync;
        // Of a reset that got as far as the queries the counters are reset.
        self.reset_requested |= self.purpose == Purpose::Reset && self.is_dumping();
        self.phase = Phase::Idle;
        let retry = now + backoff(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.retry = Some(retry);
        self.due = Some(self.due.map_or(retry, |due| due.max(retry)));
    }
}

/// How long to wait after a failure, the first of which has number 0.
pub(super) fn backoff(failures: u32) -> Duration {
    let [first, longest] = RETRY;
    first.saturating_mul(2u32.saturating_pow(failures)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kinds;
    use crate::flow::Flow;

    fn sync(poll: Option<u64>, redump: Option<u64>) -> Sync {
        Sync::new(&Settings {
            mask: Kinds::NEW,
            hash: Some(10),
            poll: poll.map(Duration::from_secs),
            resync: Duration::from_secs(60),
            redump: redump.map(Duration::from_secs),
            filter: crate::capture::filter::Filter::default(),
        })
    }

    fn entry() -> Entry {
        Entry::new(&Flow::default(), 0, 0)
    }

    #[test]
    fn a_loss_is_followed_by_dump_settling_and_queries() {
        let mut sync = sync(None, None);
        let start = Instant::now();
        assert!(matches!(sync.tick(start, false, |_| {}), Some(Action::Dump)));
        assert_eq!(sync.purpose(), Purpose::Startup);
        sync.dump_done(true, vec![], start);
        assert!(sync.deadline().is_none(), "nothing to do until something is lost");

        sync.lost(start);
        assert!(sync.tick(start + Duration::from_secs(59), false, |_| {}).is_none());
        let due = start + Duration::from_secs(60);
        assert!(matches!(sync.tick(due, false, |_| {}), Some(Action::Dump)));
        assert_eq!(sync.purpose(), Purpose::Resync);
        sync.dump_done(true, vec![entry(), entry()], due);
        assert!(sync.tick(due, false, |_| {}).is_none(), "still settling");
        let action = sync.tick(due + SETTLE, false, |candidates| candidates.truncate(1));
        assert!(matches!(action, Some(Action::Query(keys)) if keys.len() == 1));
        assert_eq!(sync.query_done(true, due).map(|left| left.len()), Some(1));
        assert!(sync.deadline().is_none());
    }

    #[test]
    fn the_redump_stops_when_no_old_flow_is_left() {
        let mut sync = sync(None, Some(10));
        let mut now = Instant::now();
        sync.tick(now, true, |_| {});
        sync.dump_done(true, vec![], now);
        now += Duration::from_secs(10);
        assert!(matches!(sync.tick(now, true, |_| {}), Some(Action::Dump)));
        sync.dump_done(true, vec![], now);
        now += Duration::from_secs(10);
        assert!(sync.tick(now, false, |_| {}).is_none());
        assert!(sync.deadline().is_none());
    }

    #[test]
    fn polling_goes_on_and_a_failed_dump_is_made_again() {
        let mut sync = sync(Some(1), None);
        let now = Instant::now();
        sync.tick(now, false, |_| {});
        sync.dump_done(false, vec![], now);
        assert!(sync.is_starting(), "nothing is known yet");
        assert!(sync.tick(now + Duration::from_millis(50), false, |_| {}).is_none());
        let second = now + Duration::from_secs(1);
        assert!(matches!(sync.tick(second, false, |_| {}), Some(Action::Dump)));
        sync.dump_done(true, vec![], second);
        assert!(!sync.is_starting());
        let next = second + Duration::from_secs(1);
        assert!(matches!(sync.tick(next, false, |_| {}), Some(Action::Dump)));
    }

    #[test]
    fn a_redump_that_failed_is_awaited() {
        let now = Instant::now();
        let mut sync = sync(None, Some(1));
        sync.tick(now, true, |_| {});
        sync.dump_done(true, Vec::new(), now);
        let later = now + Duration::from_secs(2);
        assert!(sync.deadline().is_some_and(|due| due <= later));
        assert!(matches!(sync.tick(later, true, |_| {}), Some(Action::Dump)));
        sync.failed(later);
        assert!(sync.deadline().is_some_and(|due| due > later), "{:?}", sync.deadline());
    }

    #[test]
    fn a_reset_waits_for_what_is_under_way() {
        let mut sync = sync(None, None);
        let now = Instant::now();
        sync.tick(now, false, |_| {});
        sync.request_reset();
        assert!(sync.tick(now, false, |_| {}).is_none());
        sync.dump_done(true, vec![], now);
        assert!(matches!(sync.tick(now, false, |_| {}), Some(Action::DumpAndReset)));
        assert_eq!(sync.purpose(), Purpose::Reset);
    }

    #[test]
    fn queries_without_an_answer_end_no_flow_and_the_comparison_is_made_again() {
        let mut sync = sync(None, None);
        let now = Instant::now();
        sync.tick(now, false, |_| {});
        sync.dump_done(true, vec![], now);
        sync.lost(now);
        let due = now + Duration::from_secs(60);
        sync.tick(due, false, |_| {});
        sync.dump_done(true, vec![entry()], due);
        sync.tick(due + SETTLE, false, |_| {});
        assert!(sync.query_done(false, due).is_none());
        let again = sync.deadline().unwrap();
        assert!(again > due && again <= due + Duration::from_secs(1), "{:?}", again - due);
        assert!(matches!(sync.tick(again, false, |_| {}), Some(Action::Dump)));
        assert_eq!(sync.purpose(), Purpose::Resync);
    }

    #[test]
    fn a_reset_that_failed_is_made_again_and_not_at_once() {
        let mut sync = sync(None, None);
        let now = Instant::now();
        sync.tick(now, false, |_| {});
        sync.dump_done(true, vec![], now);
        sync.request_reset();
        assert!(matches!(sync.tick(now, false, |_| {}), Some(Action::DumpAndReset)));
        sync.failed(now);
        assert!(sync.tick(now, false, |_| {}).is_none(), "it waits");
        let again = sync.deadline().unwrap();
        assert!(matches!(sync.tick(again, false, |_| {}), Some(Action::DumpAndReset)));
    }

    #[test]
    fn the_wait_doubles_up_to_five_seconds() {
        let waits: Vec<_> = (0..8).map(|n| backoff(n).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff(u32::MAX), RETRY[1]);
    }
}
