//! Events that a capture lost: counted by what lost them, with the time since when they may be
//! missing, and handed on at most once a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Nfct;
use crate::archive::clock::Moment;
use crate::event::{Kinds, Lost};
use crate::plugin::{Body, Downstream, Item};
use crate::ratelimit::RateLimit;

/// Losses so far.
pub(super) struct Losses {
    /// Those that have not been handed on, by what lost them, with the time of the last.
    waiting: BTreeMap<&'static str, Lost>,
    /// All, by what lost them.
    total: BTreeMap<&'static str, u64>,
    /// The last moment before which nothing was lost that was not reported.
    complete: Moment,
    limit: RateLimit,
}

impl Default for Losses {
    fn default() -> Self {
        let limit = RateLimit::per_second();
        Self { waiting: BTreeMap::new(), total: BTreeMap::new(), complete: Moment::now(), limit }
    }
}

impl Losses {
    /// When some are to be handed on.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| Instant::now() + Duration::from_secs(1))
    }

    /// Some can be handed on now.
    pub(super) fn are_due(&mut self) -> bool {
        !self.waiting.is_empty() && self.limit.allow()
    }

    /// Since when there may be losses that are noticed at `at`. Where the clock was set since
    /// it was caught up, by the time that has passed.
    fn incomplete_since(&self, at: u64) -> u64 {
        let passed = Moment::now().steady.saturating_sub(self.complete.steady);
        self.complete.wall.min(at.saturating_sub(passed))
    }

    fn add(&mut self, lost: Lost) {
        let lost = Lost { since: self.incomplete_since(lost.at), ..lost };
        *self.total.entry(lost.source).or_default() += lost.events;
        let waiting = self.waiting.entry(lost.source);
        let waiting = waiting.or_insert(Lost { events: 0, ..lost });
        waiting.events += lost.events;
        (waiting.since, waiting.at) = (waiting.since.min(lost.since), lost.at);
    }
}

impl Nfct {
    /// Everything that happened before `complete` was taken, and every loss of that time:
    /// what is reported as lost from now on happened later.
    pub fn caught_up(&mut self, complete: Moment) {
        self.losses.complete = complete;
    }

    /// All events that were lost so far, whatever lost them.
    pub fn lost_total(&self) -> u64 {
        self.losses.total.values().sum()
    }

    /// The same by what lost them ([`Lost::source`]).
    pub fn lost_by(&self) -> &BTreeMap<&'static str, u64> {
        &self.losses.total
    }

    pub(super) fn lost(&mut self, lost: Lost, out: &mut dyn Downstream) {
        self.losses.add(lost);
        if let Some(tracker) = &mut self.tracker {
            tracker.sync.lost(Instant::now());
        }
        if self.losses.are_due() {
            self.flush_lost(out);
        }
    }

    /// Hands on what waits.
    pub(super) fn flush_lost(&mut self, out: &mut dyn Downstream) {
        for lost in std::mem::take(&mut self.losses.waiting).into_values() {
            let total = self.losses.total.get(lost.source).copied().unwrap_or_default();
            warn!("{} events lost by {} ({total} so far)", lost.events, lost.source);
            let item = Item { tag: Kinds::empty(), at: lost.at, body: Body::Lost(lost) };
            self.handed.count(&item);
            out.push(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lost_them_stays_with_its_number() {
        let mut losses = Losses::default();
        for (source, events, at) in [("netlink", 5, 1), ("netns", 1, 2), ("netlink", 7, 3)] {
            losses.add(Lost::noticed(source, events, at));
        }
        let waiting: Vec<_> =
            losses.waiting.values().map(|lost| (lost.source, lost.events, lost.at)).collect();
        assert_eq!(waiting, [("netlink", 12, 3), ("netns", 1, 2)]);
        assert_eq!(losses.total, BTreeMap::from([("netlink", 12), ("netns", 1)]));
        assert!(losses.due().is_some() && losses.are_due());
        assert!(!losses.are_due(), "at most once a second");
    }
}
