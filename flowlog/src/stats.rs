//! Every counter of the daemon: its name, its unit, and who counts it. Nothing
//! is dropped anywhere without one of these going up.

use std::cell::Cell;
use std::rc::Rc;

pub use self::crosscheck::{Check, CheckKind};
pub use self::handed::Handed;
use self::shipped::Shipped;
pub use self::shipped::Shipper;
use crate::plugin::ship::Measure;

mod crosscheck;
mod handed;
mod shipped;

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
    /// How much later the second source told of an event, in the middle.
    CrosscheckLagMedian,
    /// The same for the slowest hundredth.
    CrosscheckLagP99,
    /// The same for the slowest.
    CrosscheckLagMax,
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
    /// Lines written to files.
    LogemuLines,
    /// Bytes written to files.
    LogemuBytes,
    /// Writes or syncs that failed and were tried again.
    LogemuWriteErrors,
    /// Lines lost because `buffer_max_bytes` was reached.
    LogemuLostLines,
    /// Records that JSON wrote, or a peer took.
    JsonRecords,
    /// Bytes of them.
    JsonBytes,
    /// Writes and connections of JSON that failed and were tried again.
    JsonWriteErrors,
    /// Records lost because `buffer_max_bytes` was reached.
    JsonLostRecords,
    /// Times that a peer of JSON was reached again.
    JsonReconnects,
    /// Records sent once more: nobody had confirmed them when a connection broke.
    JsonRepeatedRecords,
    /// Messages that a peer of SYSLOG took.
    SyslogMessages,
    /// Bytes of them.
    SyslogBytes,
    /// Connections of SYSLOG that failed and were tried again.
    SyslogWriteErrors,
    /// Messages lost because `buffer_max_bytes` was reached.
    SyslogLostMessages,
    /// Times that a peer of SYSLOG was reached again.
    SyslogReconnects,
    /// Messages sent once more: nobody had confirmed them when a connection broke.
    SyslogRepeatedMessages,
    /// Rows that SQLITE3 has written.
    Sqlite3Records,
    /// Transactions, and attempts to open the database, that failed and were
    /// tried again.
    Sqlite3WriteErrors,
    /// Records lost because `buffer_max_bytes` was reached, or the table does not
    /// take them.
    Sqlite3LostRecords,
    /// Records that stood in the database already.
    Sqlite3RepeatedRecords,
}

impl Counter {
    /// All counters, in the order of reports.
    pub const ALL: [Self; 52] = [
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
        Self::CrosscheckLagMedian,
        Self::CrosscheckLagP99,
        Self::CrosscheckLagMax,
        Self::FlowsFiltered,
        Self::FlowsSelected,
        Self::FlowsTableFull,
        Self::FlowsVanished,
        Self::FilterSelected,
        Self::FilterRefused,
        Self::FilterOverflows,
        Self::FilterDivisionsByZero,
        Self::LogemuLines,
        Self::LogemuBytes,
        Self::LogemuWriteErrors,
        Self::LogemuLostLines,
        Self::JsonRecords,
        Self::JsonBytes,
        Self::JsonWriteErrors,
        Self::JsonLostRecords,
        Self::JsonReconnects,
        Self::JsonRepeatedRecords,
        Self::SyslogMessages,
        Self::SyslogBytes,
        Self::SyslogWriteErrors,
        Self::SyslogLostMessages,
        Self::SyslogReconnects,
        Self::SyslogRepeatedMessages,
        Self::Sqlite3Records,
        Self::Sqlite3WriteErrors,
        Self::Sqlite3LostRecords,
        Self::Sqlite3RepeatedRecords,
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
            Self::CrosscheckLagMedian => "crosscheck.lag_median",
            Self::CrosscheckLagP99 => "crosscheck.lag_p99",
            Self::CrosscheckLagMax => "crosscheck.lag_max",
            Self::FlowsFiltered => "flows.filtered",
            Self::FlowsSelected => "flows.selected",
            Self::FlowsTableFull => "flows.table_full",
            Self::FlowsVanished => "flows.vanished",
            Self::FilterSelected => "filter.selected",
            Self::FilterRefused => "filter.refused",
            Self::FilterOverflows => "filter.overflows",
            Self::FilterDivisionsByZero => "filter.divisions_by_zero",
            Self::LogemuLines => "logemu.lines",
            Self::LogemuBytes => "logemu.bytes",
            Self::LogemuWriteErrors => "logemu.write_errors",
            Self::LogemuLostLines => "logemu.lost_lines",
            Self::JsonRecords => "json.records",
            Self::JsonBytes => "json.bytes",
            Self::JsonWriteErrors => "json.write_errors",
            Self::JsonLostRecords => "json.lost_records",
            Self::JsonReconnects => "json.reconnects",
            Self::JsonRepeatedRecords => "json.repeated_records",
            Self::SyslogMessages => "syslog.messages",
            Self::SyslogBytes => "syslog.bytes",
            Self::SyslogWriteErrors => "syslog.write_errors",
            Self::SyslogLostMessages => "syslog.lost_messages",
            Self::SyslogReconnects => "syslog.reconnects",
            Self::SyslogRepeatedMessages => "syslog.repeated_messages",
            Self::Sqlite3Records => "sqlite3.records",
            Self::Sqlite3WriteErrors => "sqlite3.write_errors",
            Self::Sqlite3LostRecords => "sqlite3.lost_records",
            Self::Sqlite3RepeatedRecords => "sqlite3.repeated_records",
        }
    }

    /// What it counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::NetlinkMessages
            | Self::NetlinkLost
            | Self::NetlinkMalformed
            | Self::NetlinkIgnored
            | Self::SyslogMessages
            | Self::SyslogLostMessages
            | Self::SyslogRepeatedMessages => "messages",
            Self::NetlinkOverruns => "overruns",
            Self::NetlinkDumps | Self::NetlinkDumpErrors => "dumps",
            Self::EbpfRecords
            | Self::EbpfMalformed
            | Self::JsonRecords
            | Self::JsonLostRecords
            | Self::JsonRepeatedRecords
            | Self::Sqlite3Records
            | Self::Sqlite3LostRecords
            | Self::Sqlite3RepeatedRecords => "records",
            Self::EbpfFaults => "faults",
            Self::EbpfLostNotices => "notices",
            Self::CrosscheckLagMedian | Self::CrosscheckLagP99 | Self::CrosscheckLagMax => {
                "microseconds"
            }
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
            Self::LogemuLines | Self::LogemuLostLines => "lines",
            Self::LogemuBytes | Self::JsonBytes | Self::SyslogBytes => "bytes",
            Self::LogemuWriteErrors
            | Self::JsonWriteErrors
            | Self::SyslogWriteErrors
            | Self::Sqlite3WriteErrors => "errors",
            Self::JsonReconnects | Self::SyslogReconnects => "reconnects",
        }
    }
}

/// The daemon's counters; clones count together. One thread only.
#[derive(Clone, Debug, Default)]
pub struct Stats(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counters: Counters,
    checks: crosscheck::Checks,
    shipped: Shipped,
    ebpf: Cell<bool>,
    crosscheck: Cell<bool>,
    filter: Cell<bool>,
    json: Cell<bool>,
    syslog: Cell<bool>,
    sqlite3: Cell<bool>,
}

/// The value of each counter; arrays as long as this have no default.
#[derive(Debug)]
struct Counters([Cell<u64>; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { Cell::new(0) }; Counter::ALL.len()])
    }
}

impl Stats {
    /// Adds `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.0.counters.0[counter as usize];
        cell.set(cell.get().wrapping_add(n));
    }

    /// Sets what is no sum.
    pub fn set(&self, counter: Counter, value: u64) {
        self.0.counters.0[counter as usize].set(value);
    }

    /// Adds `n` to what the cross-check counts.
    pub fn add_check(&self, check: Check, kind: CheckKind, n: u64) {
        let cell = self.0.checks.cell(check, kind);
        cell.set(cell.get().wrapping_add(n));
    }

    /// What the cross-check has counted since the daemon started.
    pub fn check(&self, check: Check, kind: CheckKind) -> u64 {
        self.0.checks.cell(check, kind).get()
    }

    /// Adds `n` to what a sink counts that delivers from the spool.
    pub fn add_shipped(&self, shipper: Shipper, measure: Measure, n: u64) {
        let cell = self.0.shipped.cell(shipper, measure);
        cell.set(cell.get().wrapping_add(n));
    }

    /// What the sinks of that plugin have counted since the daemon started.
    pub fn shipped(&self, shipper: Shipper, measure: Measure) -> u64 {
        self.0.shipped.cell(shipper, measure).get()
    }

    /// Its value since the daemon started.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.counters.0[counter as usize].get()
    }

    /// A source takes its events from eBPF: reports tell `ebpf.*` from now on.
    pub fn use_ebpf(&self) {
        self.0.ebpf.set(true);
    }

    /// Two sources are compared: reports tell `crosscheck.*` from now on.
    pub fn use_crosscheck(&self) {
        self.0.crosscheck.set(true);
    }

    /// A stack has a FILTER: reports tell `filter.*` from now on.
    pub fn use_filter(&self) {
        self.0.filter.set(true);
    }

    /// There is a JSON sink: reports tell `json.*` from now on.
    pub fn use_json(&self) {
        self.0.json.set(true);
    }

    /// There is a SYSLOG sink: reports tell `syslog.*` from now on.
    pub fn use_syslog(&self) {
        self.0.syslog.set(true);
    }

    /// There is a SQLITE3 sink: reports tell `sqlite3.*` from now on.
    pub fn use_sqlite3(&self) {
        self.0.sqlite3.set(true);
    }

    /// There is a sink of that plugin: reports tell what it counts from now on.
    pub fn use_shipper(&self, shipper: Shipper) {
        self.0.shipped.used(shipper).set(true);
    }

    /// Whether there is a sink of that plugin.
    pub fn uses_shipper(&self, shipper: Shipper) -> bool {
        self.0.shipped.used(shipper).get()
    }

    /// Whether anything is there that counts it.
    pub fn uses(&self, counter: Counter) -> bool {
        match counter.name().split_once('.') {
            Some(("ebpf", _)) => self.0.ebpf.get(),
            Some(("crosscheck", _)) => self.uses_crosscheck(),
            Some(("filter", _)) => self.0.filter.get(),
            Some(("json", _)) => self.0.json.get(),
            Some(("syslog", _)) => self.0.syslog.get(),
            Some(("sqlite3", _)) => self.0.sqlite3.get(),
            _ => true,
        }
    }

    /// Whether two sources are compared.
    pub fn uses_crosscheck(&self) -> bool {
        self.0.crosscheck.get()
    }

    /// Report lines, `total NAME: VALUE UNIT`, one for each counter in use.
    pub fn totals(&self) -> impl Iterator<Item = String> + '_ {
        let crosscheck = self.uses_crosscheck();
        let checks = self.0.checks.totals().filter(move |_| crosscheck);
        Counter::ALL
            .into_iter()
            .filter(|counter| self.uses(*counter))
            .map(|c| format!("total {}: {} {}", c.name(), self.get(c), c.unit()))
            .chain(self.0.shipped.totals())
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
        assert!(!stats.totals().any(|l| l.contains("json.") || l.contains("syslog.")));
        assert!(!stats.totals().any(|l| l.contains("filter.")));
        stats.use_filter();
        stats.use_json();
        stats.use_syslog();
        stats.use_sqlite3();
        assert_eq!(stats.totals().count(), Counter::ALL.len() + Check::ALL.len());
    }
}
