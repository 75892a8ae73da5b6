//! What the screen shows until the next interval ends, or for as long as it is
//! paused: a copy of the counts.

use std::time::Duration;

use super::counts::Counts;
use super::heavy::{Heavy, Row};
use super::key::{Key, Table};
use super::tally::{Rising, Tally};
use crate::event::{Cause, Kinds};
use crate::kernel::TableFill;
use crate::stats::{Counter, Stats};

/// What a source has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Which source.
    pub(super) source: &'static str,
    /// Since the start.
    pub(super) total: u64,
    /// In this interval.
    pub(super) recent: u64,
}

/// A row of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// What it is about; the others have none.
    pub(super) key: Key,
    /// Since it is counted.
    pub(super) total: Counts,
    /// In the interval.
    pub(super) recent: Counts,
    /// It may have had more, which is among the others.
    pub(super) partial: bool,
}

/// A table.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Its rows, in no order.
    pub(super) rows: Vec<Line>,
    /// What rows had that gave way: in all, and in the interval.
    pub(super) others: (Counts, Counts),
}

impl Lines {
    /// Copies into the memory that is there.
    fn fill<K: Copy + Eq + std::hash::Hash + Into<Key>>(&mut self, table: &Heavy<K>) {
        let line = |row: &Row<K>| Line {
            key: row.key.into(),
            total: row.total,
            recent: row.recent(),
            partial: row.unseen > 0,
        };
        self.rows.clear();
        self.rows.extend(table.rows().iter().map(line));
        self.others = table.others();
    }
}

/// The picture.
#[derive(Debug, Default)]
pub(super) struct Picture {
    /// How long the interval was.
    pub(super) interval: Duration,
    /// How long totals have been counted.
    pub(super) lasting: Duration,
    pub(super) events: Rising,
    pub(super) kinds: [Rising; Kinds::NAMES.len()],
    pub(super) causes: [Rising; Cause::ALL.len()],
    /// What each source in use has lost.
    pub(super) losses: Vec<Loss>,
    /// Entries in the kernel's table, and how many it takes.
    pub(super) fill: Option<(u64, u64)>,
    tables: [Lines; Table::ALL.len()],
}

impl Picture {
    /// What has been counted in the interval that ends.
    pub(super) fn take(&mut self, tally: &mut Tally, interval: Duration) {
        self.interval = interval;
        self.lasting += interval;
        (self.events, self.kinds, self.causes) = (tally.events, tally.kinds, tally.causes);
        let [sources, destinations, ports, namespaces, processes] = &mut self.tables;
        sources.fill(&tally.sources);
        destinations.fill(&tally.destinations);
        ports.fill(&tally.ports);
        namespaces.fill(&tally.namespaces);
        processes.fill(&tally.processes);
        tally.next_interval();
    }

    /// What the kernel tells by itself.
    pub(super) fn look(&mut self, losses: &mut Losses, fill: &TableFill) {
        self.losses = losses.since_last();
        self.fill = fill.count().zip(fill.max());
    }

    /// A table.
    pub(super) fn table(&self, table: Table) -> &Lines {
        &self.tables[table as usize]
    }

    /// So much in the interval is how much in a second.
    pub(super) fn rate(&self, recent: u64) -> f64 {
        let seconds = self.interval.as_secs_f64();
        if seconds > 0.0 { recent as f64 / seconds } else { 0.0 }
    }
}

/// What each source has lost, by the counters that every verb has.
#[derive(Debug)]
pub(super) struct Losses {
    stats: Stats,
    last: [u64; SOURCES.len()],
    /// What had been lost before the totals began.
    first: [u64; SOURCES.len()],
}

/// Sources, and the counters of what they lose.
const SOURCES: [(&str, &[Counter]); 3] = [
    (
        "ebpf",
        &[
            Counter::EbpfLostNew,
            Counter::EbpfLostUpdate,
            Counter::EbpfLostDestroy,
            Counter::EbpfLostExpect,
            Counter::EbpfMissed,
            Counter::EbpfMalformed,
        ],
    ),
    ("netlink", &[Counter::NetlinkLost, Counter::NetlinkMalformed]),
    ("both", &[Counter::CrosscheckLost]),
];

impl Losses {
    pub(super) fn new(stats: Stats) -> Self {
        Self { stats, last: Default::default(), first: Default::default() }
    }

    /// Totals begin anew.
    pub(super) fn clear(&mut self) {
        self.first = self.last;
    }

    fn since_last(&mut self) -> Vec<Loss> {
        let mut losses = Vec::with_capacity(SOURCES.len());
        for (place, (source, counters)) in SOURCES.into_iter().enumerate() {
            let now = counters.iter().map(|counter| self.stats.get(*counter)).sum();
            let last = std::mem::replace(&mut self.last[place], now);
            if self.is_used(source) {
                let total = now - self.first[place];
                losses.push(Loss { source, total, recent: now - last });
            }
        }
        losses
    }

    fn is_used(&self, source: &str) -> bool {
        let (ebpf, both) = (is_by_ebpf(&self.stats), self.stats.uses_crosscheck());
        match source {
            "ebpf" => ebpf,
            "netlink" => both || !ebpf,
            _ => both,
        }
    }
}

/// Events come by eBPF, perhaps beside netlink.
pub(super) fn is_by_ebpf(stats: &Stats) -> bool {
    stats.uses(Counter::EbpfRecords)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(losses: &[Loss]) -> Vec<&str> {
        losses.iter().map(|loss| loss.source).collect()
    }

    #[test]
    fn each_source_in_use_has_its_losses() {
        let stats = Stats::default();
        let mut losses = Losses::new(stats.clone());
        stats.add(Counter::NetlinkLost, 7);
        let lost = Loss { source: "netlink", total: 7, recent: 7 };
        assert_eq!(losses.since_last(), [lost]);
        assert_eq!(losses.since_last(), [Loss { recent: 0, ..lost }]);
        losses.clear();
        stats.add(Counter::NetlinkLost, 1);
        assert_eq!(losses.since_last(), [Loss { total: 1, recent: 1, ..lost }]);
        stats.use_ebpf();
        stats.add(Counter::EbpfLostUpdate, 2);
        stats.add(Counter::EbpfMissed, 3);
        let by_ebpf = Loss { source: "ebpf", total: 5, recent: 5 };
        assert_eq!(losses.since_last(), [by_ebpf]);
        stats.use_crosscheck();
        assert_eq!(names(&losses.since_last()), ["ebpf", "netlink", "both"]);
    }

    #[test]
    fn rates_are_those_of_the_interval() {
        let picture = Picture { interval: Duration::from_millis(500), ..Picture::default() };
        assert_eq!((picture.rate(10), Picture::default().rate(10)), (20.0, 0.0));
    }
}
