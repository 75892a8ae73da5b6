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
/// A dump that failed is made again after this long.
const RETRY: Duration = Duration::from_secs(5);

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
        }
    }

    /// Why the dump under way, or the last one, is made.
    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(super) fn is_dumping(&self) -> bool {
        matches!(self.phase, Phase::Dumping)
    }

    /// The dump at start is due or under way.
    pub(super) fn is_starting(&self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        !self.started && (due || self.is_dumping())
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
            Phase::Idle if self.reset_requested && self.started => Some(Instant::now()),
            Phase::Idle => [self.due, self.redump_due()].into_iter().flatten().min(),
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
        self.compared = Some(now);
        self.phase = if vanished.is_empty() {
            Phase::Idle
        } else {
            Phase::Settling { until: now + SETTLE, candidates: vanished }
        };
    }

    /// The candidates that are still to be judged.
    pub(super) fn query_done(&mut self) -> Vec<Entry> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Querying { candidates } => candidates,
            phase => {
                self.phase = phase;
                Vec::new()
            }
        }
    }

    /// What was under way failed: again later.
    pub(super) fn failed(&mut self, now: Instant) {
        self.loss |= self.purpose == Purpose::Resync;
        self.phase = Phase::Idle;
        let retry = now + RETRY;
        self.due = Some(self.due.map_or(retry, |due| due.max(retry)));
    }
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
        assert_eq!(sync.query_done().len(), 1);
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
        assert!(sync.tick(now + Duration::from_secs(2), false, |_| {}).is_none());
        assert!(matches!(sync.tick(now + RETRY, false, |_| {}), Some(Action::Dump)));
        sync.dump_done(true, vec![], now + RETRY);
        let next = now + RETRY + Duration::from_secs(1);
        assert!(matches!(sync.tick(next, false, |_| {}), Some(Action::Dump)));
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
}
