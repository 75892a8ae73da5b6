//! Losses of the source: since when events may be missing, and one report a second.

use std::time::Instant;

use tracing::warn;

use super::Nfct;
use crate::archive::clock::Moment;
use crate::event::{Kinds, Lost};
use crate::plugin::{Body, Downstream, Item};

impl Nfct {
    /// Everything that happened before `complete` was taken, and every loss of that time:
    /// what is reported as lost from now on happened later.
    pub fn caught_up(&mut self, complete: Moment) {
        self.complete = complete;
    }

    /// Since when there may be losses that are noticed at `at`. Where the clock was set since
    /// it was caught up, by the time that has passed.
    fn incomplete_since(&self, at: u64) -> u64 {
        let passed = Moment::now().steady.saturating_sub(self.complete.steady);
        self.complete.wall.min(at.saturating_sub(passed))
    }

    pub(super) fn lost(&mut self, lost: Lost, out: &mut dyn Downstream) {
        self.lost_total += lost.events;
        let lost = Lost { since: self.incomplete_since(lost.at), ..lost };
        match self.lost.iter_mut().find(|known| known.source == lost.source) {
            Some(known) => {
                known.events += lost.events;
                known.since = known.since.min(lost.since);
                known.at = lost.at;
            }
            None => self.lost.push(lost),
        }
        if let Some(tracker) = &mut self.tracker {
            tracker.sync.lost(Instant::now());
        }
        if self.lost_limit.allow() {
            self.flush_lost(out);
        }
    }

    pub(super) fn flush_lost(&mut self, out: &mut dyn Downstream) {
        for lost in self.lost.drain(..) {
            warn!("{} events lost by {} ({} so far)", lost.events, lost.source, self.lost_total);
            let item = Item { tag: Kinds::empty(), at: lost.at, body: Body::Lost(lost) };
            self.handed.count(&item);
            out.push(&item);
        }
    }
}
