//! Every counter of the daemon: its name, its unit, and who counts it. Nothing
//! is dropped anywhere without one of these going up.

use std::marker::PhantomData;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::count::Count;
pub use self::crosscheck::{Check, CheckKind};
pub use self::handed::Handed;
pub use self::lag::{Bucket, Lag};
pub use self::sink::{Amount, Instance, Measure, Part, SinkPlugin, SinkStats};

mod count;
mod crosscheck;
mod handed;
mod lag;
mod sink;

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Netlink messages read from the event sockets.
    NetlinkMessages,
    /// Netlink messages that the kernel dropped for want of buffer space.
    NetlinkLost,
    /// Times that the event socket overran.
    NetlinkOverruns,
    /// Netlink messages that could not be decoded.
    NetlinkMalformed,
    /// Netlink messages of a kind that nobody asked for.
    NetlinkIgnored,
    /// Table dumps made.
    NetlinkDumps,
    /// Table dumps that failed or were cut short.
    NetlinkDumpErrors,
    /// Records read from the ring.
    EbpfRecords,
    /// Beginnings of flows that found no room in the ring.
    EbpfLostNew,
    /// Changes that found no room in the ring.
    EbpfLostUpdate,
    /// Ends of flows that found no room in the ring.
    EbpfLostDestroy,
    /// Events of expectations that found no room in the ring.
    EbpfLostExpect,
    /// Events for which the kernel passed a program over, as it was already
    /// running on that processor.
    EbpfMissed,
    /// Records that could not be decoded.
    EbpfMalformed,
    /// Times that a program could not read or remember something.
    EbpfFaults,
    /// Notes that a netlink message is due that found no room in the ring: they
    /// serve the cross-check only.
    EbpfLostNotices,
    /// Events of namespaces that are not wanted.
    EbpfFilteredNetns,
    /// Events that an `accept_*_filter` refused in the kernel.
    EbpfFilteredFlows,
    /// Changes of a kind that is not wanted.
    EbpfFilteredKinds,
    /// Events that neither source told: what eBPF lost and netlink did not heal.
    CrosscheckLost,
    /// Events of other namespaces than the one that is checked.
    CrosscheckElsewhere,
    /// Events that an `accept_*_filter` refused.
    FlowsFiltered,
    /// Events handed to the stacks.
    FlowsSelected,
    /// Flows that could not be kept: `hash_max_entries` reached.
    FlowsTableFull,
    /// Flows closed because they had vanished from the kernel's table.
    FlowsVanished,
    /// Events that a FILTER handed on.
    FilterSelected,
    /// Events that a FILTER refused.
    FilterRefused,
    /// Events that a FILTER handed on as a number became too large.
    FilterOverflows,
    /// Events that a FILTER handed on as it had to divide by zero.
    FilterDivisionsByZero,
}

impl Counter {
    /// All counters, in the order of reports.
    pub const ALL: [Self; 29] = [
        Self::NetlinkMessages,
        Self::NetlinkLost,
        Self::NetlinkOverruns,
        Self::NetlinkMalformed,
        Self::NetlinkIgnored,
        Self::NetlinkDumps,
        Self::NetlinkDumpErrors,
        Self::EbpfRecords,
        Self::EbpfLostNew,
        Self::EbpfLostUpdate,
        Self::EbpfLostDestroy,
        Self::EbpfLostExpect,
        Self::EbpfMissed,
        Self::EbpfMalformed,
        Self::EbpfFaults,
        Self::EbpfLostNotices,
        Self::EbpfFilteredNetns,
        Self::EbpfFilteredFlows,
        Self::EbpfFilteredKinds,
        Self::CrosscheckLost,
        Self::CrosscheckElsewhere,
        Self::FlowsFiltered,
        Self::FlowsSelected,
        Self::FlowsTableFull,
        Self::FlowsVanished,
        Self::FilterSelected,
        Self::FilterRefused,
        Self::FilterOverflows,
        Self::FilterDivisionsByZero,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetlinkMessages => "netlink.messages",
            Self::NetlinkLost => "netlink.lost",
            Self::NetlinkOverruns => "netlink.overruns",
            Self::NetlinkMalformed => "netlink.malformed",
            Self::NetlinkIgnored => "netlink.ignored",
            Self::NetlinkDumps => "netlink.dumps",
            Self::NetlinkDumpErrors => "netlink.dump_errors",
            Self::EbpfRecords => "ebpf.records",
            Self::EbpfLostNew => "ebpf.lost_new",
            Self::EbpfLostUpdate => "ebpf.lost_update",
            Self::EbpfLostDestroy => "ebpf.lost_destroy",
            Self::EbpfLostExpect => "ebpf.lost_expect",
            Self::EbpfMissed => "ebpf.missed",
            Self::EbpfMalformed => "ebpf.malformed",
            Self::EbpfFaults => "ebpf.faults",
            Self::EbpfLostNotices => "ebpf.lost_notices",
            Self::EbpfFilteredNetns => "ebpf.filtered_netns",
            Self::EbpfFilteredFlows => "ebpf.filtered_flows",
            Self::EbpfFilteredKinds => "ebpf.filtered_kinds",
            Self::CrosscheckLost => "crosscheck.lost",
            Self::CrosscheckElsewhere => "crosscheck.elsewhere",
            Self::FlowsFiltered => "flows.filtered",
            Self::FlowsSelected => "flows.selected",
            Self::FlowsTableFull => "flows.table_full",
            Self::FlowsVanished => "flows.vanished",
            Self::FilterSelected => "filter.selected",
            Self::FilterRefused => "filter.refused",
            Self::FilterOverflows => "filter.overflows",
            Self::FilterDivisionsByZero => "filter.divisions_by_zero",
        }
    }

    /// What it counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::NetlinkMessages
            | Self::NetlinkLost
            | Self::NetlinkMalformed
            | Self::NetlinkIgnored => "messages",
            Self::NetlinkOverruns => "overruns",
            Self::NetlinkDumps | Self::NetlinkDumpErrors => "dumps",
            Self::EbpfRecords | Self::EbpfMalformed => "records",
            Self::EbpfFaults => "faults",
            Self::EbpfLostNotices => "notices",
            Self::EbpfLostNew
            | Self::EbpfLostUpdate
            | Self::EbpfLostDestroy
            | Self::EbpfLostExpect
            | Self::EbpfMissed
            | Self::EbpfFilteredNetns
            | Self::EbpfFilteredFlows
            | Self::EbpfFilteredKinds
            | Self::CrosscheckLost
            | Self::CrosscheckElsewhere
            | Self::FlowsFiltered
            | Self::FlowsSelected
            | Self::FilterSelected
            | Self::FilterRefused
            | Self::FilterOverflows
            | Self::FilterDivisionsByZero => "events",
            Self::FlowsTableFull | Self::FlowsVanished => "flows",
        }
    }
}

/// The daemon's counters; clones count together. One thread only: what others may read are
/// its [`Readings`].
#[derive(Clone, Debug, Default)]
pub struct Stats {
    readings: Readings,
    /// A [`Count`] has one writer, so this does not leave its thread.
    one_thread: PhantomData<Rc<()>>,
}

/// The daemon's counters, to be read on any thread.
#[derive(Clone, Debug, Default)]
pub struct Readings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    checks: crosscheck::Checks,
    lag: Lag,
    /// In the order in which they were opened.
    sinks: Mutex<Vec<(Instance, SinkStats)>>,
    ebpf: AtomicBool,
    crosscheck: AtomicBool,
    filter: AtomicBool,
}

/// The value of each counter; arrays as long as this have no default.
#[derive(Debug)]
struct Counters([Count; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { Count::new() }; Counter::ALL.len()])
    }
}

impl Deref for Stats {
    type Target = Readings;

    fn deref(&self) -> &Readings {
        &self.readings
    }
}

impl Stats {
    /// Adds `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0.counters.0[counter as usize].add(n);
    }

    /// Adds `n` to what the cross-check counts.
    pub fn add_check(&self, check: Check, kind: CheckKind, n: u64) {
        self.0.checks.count(check, kind).add(n);
    }

    /// Two sources have reported an event, the second one that much later.
    pub fn add_lag(&self, lag: Duration) {
        self.0.lag.add(lag);
    }

    /// Reports a sink from now on, by what `stats` count. Two stacks may share one.
    pub fn register(&self, instance: Instance, stats: &SinkStats) {
        let mut sinks = self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if !sinks.iter().any(|(_, known)| known.is_same(stats)) {
            sinks.push((instance, stats.clone()));
        }
    }

    /// The counters of a new sink, which are reported from now on.
    pub fn sink(&self, instance: Instance) -> SinkStats {
        let stats = SinkStats::default();
        self.register(instance, &stats);
        stats
    }

    /// A source takes its events from eBPF: reports tell `ebpf.*` from now on.
    pub fn use_ebpf(&self) {
        self.0.ebpf.store(true, Ordering::Relaxed);
    }

    /// Two sources are compared: reports tell `crosscheck.*` from now on.
    pub fn use_crosscheck(&self) {
        self.0.crosscheck.store(true, Ordering::Relaxed);
    }

    /// A stack has a FILTER: reports tell `filter.*` from now on.
    pub fn use_filter(&self) {
        self.0.filter.store(true, Ordering::Relaxed);
    }

    /// Another handle, for other threads.
    pub fn readings(&self) -> Readings {
        self.readings.clone()
    }
}

impl Readings {
    /// Its value since the daemon started.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.counters.0[counter as usize].get()
    }

    /// What the cross-check has counted since the daemon started.
    pub fn check(&self, check: Check, kind: CheckKind) -> u64 {
        self.0.checks.count(check, kind).get()
    }

    /// How much later the second of two sources reported events.
    pub fn lag(&self) -> &Lag {
        &self.0.lag
    }

    /// All sinks, in the order in which they were opened.
    pub fn sinks(&self) -> Vec<(Instance, SinkStats)> {
        self.0.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What all sinks of a plugin have counted since the daemon started.
    pub fn sum(&self, plugin: SinkPlugin, measure: Measure) -> u64 {
        let sinks = self.sinks();
        let of = sinks.iter().filter(|(instance, _)| instance.plugin == plugin);
        of.map(|(_, stats)| stats.get(measure)).sum()
    }

    /// Whether anything is there that counts it.
    pub fn uses(&self, counter: Counter) -> bool {
        match counter.name().split_once('.') {
            Some(("ebpf", _)) => self.0.ebpf.load(Ordering::Relaxed),
            Some(("crosscheck", _)) => self.uses_crosscheck(),
            Some(("filter", _)) => self.0.filter.load(Ordering::Relaxed),
            _ => true,
        }
    }

    /// Whether two sources are compared.
    pub fn uses_crosscheck(&self) -> bool {
        self.0.crosscheck.load(Ordering::Relaxed)
    }

    /// Report lines, `total NAME: VALUE UNIT`, one for each counter in use.
    pub fn totals(&self) -> impl Iterator<Item = String> + '_ {
        let crosscheck = self.uses_crosscheck();
        let checks = self.0.checks.totals().filter(move |_| crosscheck);
        Counter::ALL
            .into_iter()
            .filter(|counter| self.uses(*counter))
            .map(|c| format!("total {}: {} {}", c.name(), self.get(c), c.unit()))
            .chain(sink::totals(&self.sinks()))
            .chain(checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_counter_at_its_index() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(index, counter as usize, "{}", counter.name());
        }
    }

    #[test]
    fn clones_count_together() {
        let stats = Stats::default();
        stats.clone().add(Counter::NetlinkLost, 2);
        assert_eq!(stats.get(Counter::NetlinkLost), 2);
        assert!(stats.totals().any(|l| l == "total netlink.lost: 2 messages"));
    }

    #[test]
    fn parts_are_reported_only_where_they_are_used() {
        let stats = Stats::default();
        assert!(!stats.totals().any(|l| l.starts_with("total ebpf.")));
        stats.add(Counter::EbpfLostDestroy, 3);
        stats.clone().use_ebpf();
        assert!(stats.totals().any(|l| l == "total ebpf.lost_destroy: 3 events"));
        assert!(!stats.totals().any(|l| l.starts_with("total crosscheck.")));
        stats.use_crosscheck();
        assert!(!stats.totals().any(|l| l.contains("filter.")));
        stats.use_filter();
        assert_eq!(stats.totals().count(), Counter::ALL.len() + Check::ALL.len());
        let plugin = SinkPlugin::Json;
        stats.sink(Instance { source: "ct1".to_owned(), stack: 1, sink: "j1".to_owned(), plugin });
        let sinks = plugin.measures().count();
        assert_eq!(stats.totals().count(), Counter::ALL.len() + Check::ALL.len() + sinks);
    }
}
