//! What `hash_enable=1` adds to NFCT: the table of live flows together with
//! the comparison that keeps it true.

use std::time::Instant;

use hashbrown::HashSet;
use tracing::{info, warn};

use super::Settings;
use super::sync::{Purpose, Sync};
use super::table::FlowTable;
use crate::flow::Flow;
use crate::log::notice;
use crate::stats::{Counter, Stats};

/// Flows that a dump must not bring in are remembered up to this number;
/// beyond it the dump is made again.
const MAX_PASSED_OVER: usize = 1 << 20;

/// The live flows.
pub(super) struct Tracker {
    pub(super) table: FlowTable,
    pub(super) generation: u8,
    pub(super) sync: Sync,
    /// Fingerprints of flows that the dump under way may still tell and must
    /// not bring in: they ended meanwhile, or the table had no room for them.
    passed_over: HashSet<u64>,
    /// Flows that the dump under way brought in.
    pub(super) opened: u64,
    /// Flows that it told and that the table had no room for.
    pub(super) unkept: u64,
    full_warned: bool,
}

impl Tracker {
    pub(super) fn new(max_entries: usize, settings: &Settings) -> Self {
        Self {
            table: FlowTable::new(max_entries),
            generation: 0,
            sync: Sync::new(settings),
            passed_over: HashSet::new(),
            opened: 0,
            unkept: 0,
            full_warned: false,
        }
    }

    /// The dump under way must not bring this flow in. One with the same key
    /// that is kept is its successor, which began since.
    pub(super) fn is_passed_over(&mut self, flow: &Flow) -> bool {
        self.passed_over.contains(&self.table.fingerprint(flow))
            && self.table.get_mut(flow).is_none()
    }

    /// The dump under way has ended: what it did not show is looked for, in
    /// the namespace that was dumped if there are several.
    pub(super) fn end_dump(&mut self, complete: bool, netns: Option<u32>) {
        let complete = complete && self.passed_over.len() < MAX_PASSED_OVER;
        self.passed_over = HashSet::new();
        let vanished =
            if complete { self.table.not_seen_in(self.generation, netns) } else { Vec::new() };
        match self.sync.purpose() {
            Purpose::Startup if complete => info!("{}", self.existed()),
            Purpose::Resync if vanished.is_empty() => self.report_resync(0),
            _ => {}
        }
        self.sync.dump_done(complete, vanished, Instant::now());
    }

    /// How many flows there were when the source began.
    fn existed(&self) -> String {
        let existed = self.opened + self.unkept;
        match self.unkept {
            0 => format!("{existed} flows existed at start"),
            _ => format!(
                "{existed} flows existed at start, of which {} are kept (hash_max_entries)",
                self.opened
            ),
        }
    }

    pub(super) fn report_resync(&self, closed: u64) {
        notice!(
            "resync after lost events: {} flows taken up, {closed} closed that had vanished",
            self.opened
        );
    }

    pub(super) fn begin_dump(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        // After 256 dumps the numbers come round: no entry may be so old.
        if self.generation == 0 {
            self.table.mark_all(u8::MAX);
        }
        self.passed_over.clear();
        self.unkept = 0;
        // What a dump that failed has brought in is not brought in again.
        if !self.sync.is_retry() {
            self.opened = 0;
        }
    }

    pub(super) fn pass_over(&mut self, flow: &Flow) {
        if self.passed_over.len() < MAX_PASSED_OVER {
            self.passed_over.insert(self.table.fingerprint(flow));
        }
    }

    /// Counts a flow that cannot be kept, once.
    pub(super) fn refused(&mut self, flow: &Flow, stats: &Stats) {
        if self.sync.is_dumping() {
            self.pass_over(flow);
        }
        stats.add(Counter::FlowsTableFull, 1);
        if !self.full_warned {
            self.full_warned = true;
            warn!(
                "the table of live flows is full at {} entries: the end of further flows is \
                 still logged, without their start; raise hash_max_entries",
                self.table.len()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, flow};
    use crate::event::Kinds;
    use crate::flow::Status;

    #[test]
    fn all_flows_that_existed_at_start_are_counted_kept_or_not() {
        for (room, expected) in [
            (10, "3 flows existed at start"),
            (2, "3 flows existed at start, of which 2 are kept (hash_max_entries)"),
        ] {
            let mut bench = Bench::unstarted(Kinds::DESTROY, Some(room));
            let flows = [1, 2, 3].map(|id| flow(id, Status::empty()));
            bench.dump(&flows.each_ref());
            let tracker = bench.nfct.tracker.as_ref().unwrap();
            assert_eq!(tracker.existed(), expected);
        }
    }

    #[test]
    fn flows_that_a_failed_dump_has_brought_in_are_counted_once() {
        let mut bench = Bench::unstarted(Kinds::DESTROY, Some(10));
        let flows = [1, 2, 3].map(|id| flow(id, Status::empty()));
        bench.failed_dump(&flows.each_ref()[..2]);
        std::thread::sleep(super::super::sync::backoff(0));
        bench.dump(&flows.each_ref());
        let tracker = bench.nfct.tracker.as_ref().unwrap();
        assert_eq!(tracker.existed(), "3 flows existed at start");
    }
}
