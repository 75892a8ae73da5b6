//! What the comparison finds: counted, timed, and told where nothing explains
//! it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use tracing::{debug, warn};

use super::compare;
use super::queue::{Content, Item, Key};
use super::report::{Lag, Loser, LostEvent, MOST_LOST};
use crate::ratelimit::RateLimit;
use crate::stats::{Check, CheckKind, Stats};

/// The longest lag that is told apart, microseconds.
const LONGEST: u64 = 600_000_000;

/// Findings so far.
pub(super) struct Findings {
    /// Microseconds.
    lag: Option<Histogram<u64>>,
    fields: BTreeMap<&'static str, u64>,
    /// The last lost events.
    lost: VecDeque<LostEvent>,
    /// Fields of one comparison; kept for its memory.
    found: Vec<&'static str>,
    complaints: RateLimit,
    stats: Stats,
}

impl Findings {
    pub(super) fn new(stats: Stats) -> Self {
        Self {
            // Two digits; refused only for bounds that make no sense.
            lag: Histogram::new_with_bounds(1, LONGEST, 2).ok(),
            fields: BTreeMap::new(),
            lost: VecDeque::new(),
            found: Vec::new(),
            complaints: RateLimit::per_second(),
            stats,
        }
    }

    pub(super) fn count(&self, check: Check, kind: CheckKind) {
        self.stats.add_check(check, kind, 1);
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Both have told an event, the second `lag` after the first.
    pub(super) fn matched(&mut self, key: &Key, ebpf: &Content, netlink: &Content, lag: Duration) {
        self.count(Check::Matched, key.kind);
        self.stats.add_lag(lag);
        if let Some(histogram) = &mut self.lag {
            let micros = u64::try_from(lag.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
            histogram.saturating_record(micros);
        }
        self.found.clear();
        match (ebpf, netlink) {
            (Content::Event(ebpf), Content::Event(netlink)) => {
                compare::flows(ebpf, netlink, &mut self.found);
            }
            (Content::Expectation(ebpf, _), Content::Expectation(netlink, _)) => {
                compare::expectations(ebpf, netlink, &mut self.found);
            }
            // They have different names, and so are never matched.
            (Content::Event(_), Content::Expectation(..))
            | (Content::Expectation(..), Content::Event(_)) => {}
        }
        if self.found.is_empty() {
            return;
        }
        self.count(Check::Differing, key.kind);
        for field in &self.found {
            *self.fields.entry(field).or_default() += 1;
        }
        if self.complaints.allow() {
            let fields = self.found.join(", ");
            warn!("eBPF and netlink differ in {fields}: {ebpf:?} by eBPF, {netlink:?} by netlink");
        }
    }

    /// An event that `check` counts is missing somewhere, and no loss explains
    /// it: `told` by one of the sources.
    pub(super) fn unexplained(&mut self, check: Check, missing: &str, item: &Item) {
        self.count(check, item.key.kind);
        if self.complaints.allow() {
            let Item { key, entry: _, content, id, parts, .. } = item;
            match content {
                Some(told) => warn!(
                    "{missing} has not told an event, and has counted no loss that would explain \
                     it: {told:?}, seen by {parts:?}, id {id:?}"
                ),
                None => warn!(
                    "{missing} have not told an event whose message was due, and have not both \
                     counted a loss that would explain it: {key:?}, id {id:?}"
                ),
            }
        }
    }

    /// Remembers an event that was lost.
    pub(super) fn lost(&mut self, by: Loser, key: &Key) {
        let Key { kind, zone, tuple, .. } = *key;
        debug!("lost by {}: {} of {tuple:?}, zone {zone}", by.name(), kind.name());
        if self.lost.len() == MOST_LOST {
            self.lost.pop_front();
        }
        self.lost.push_back(LostEvent { by, kind, tuple, zone });
    }

    /// The last lost events.
    pub(super) fn last_lost(&self) -> Vec<LostEvent> {
        self.lost.iter().copied().collect()
    }

    pub(super) fn fields(&self) -> &BTreeMap<&'static str, u64> {
        &self.fields
    }

    pub(super) fn lag(&self) -> Option<Lag> {
        let histogram = self.lag.as_ref().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Some(Lag { median: at(0.5), p99: at(0.99), max: Duration::from_micros(histogram.max()) })
    }
}
