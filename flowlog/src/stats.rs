//! Every counter of the daemon: its name, its unit, and who counts it. Nothing
//! is dropped anywhere without one of these going up.

use std::cell::Cell;
use std::rc::Rc;

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
    /// Events that an `accept_*_filter` refused.
    FlowsFiltered,
    /// Events handed to the stacks.
    FlowsSelected,
    /// Flows that could not be kept: `hash_max_entries` reached.
    FlowsTableFull,
    /// Flows closed because they had vanished from the kernel's table.
    FlowsVanished,
    /// Lines written to files.
    LogemuLines,
    /// Bytes written to files.
    LogemuBytes,
    /// Writes or syncs that failed and were tried again.
    LogemuWriteErrors,
    /// Lines lost because `buffer_max_bytes` was reached.
    LogemuLostLines,
}

impl Counter {
    /// All counters, in the order of reports.
    pub const ALL: [Self; 15] = [
        Self::NetlinkMessages,
        Self::NetlinkLost,
        Self::NetlinkOverruns,
        Self::NetlinkMalformed,
        Self::NetlinkIgnored,
        Self::NetlinkDumps,
        Self::NetlinkDumpErrors,
        Self::FlowsFiltered,
        Self::FlowsSelected,
        Self::FlowsTableFull,
        Self::FlowsVanished,
        Self::LogemuLines,
        Self::LogemuBytes,
        Self::LogemuWriteErrors,
        Self::LogemuLostLines,
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
            Self::FlowsFiltered => "flows.filtered",
            Self::FlowsSelected => "flows.selected",
            Self::FlowsTableFull => "flows.table_full",
            Self::FlowsVanished => "flows.vanished",
            Self::LogemuLines => "logemu.lines",
            Self::LogemuBytes => "logemu.bytes",
            Self::LogemuWriteErrors => "logemu.write_errors",
            Self::LogemuLostLines => "logemu.lost_lines",
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
            Self::FlowsFiltered | Self::FlowsSelected => "events",
            Self::FlowsTableFull | Self::FlowsVanished => "flows",
            Self::LogemuLines | Self::LogemuLostLines => "lines",
            Self::LogemuBytes => "bytes",
            Self::LogemuWriteErrors => "errors",
        }
    }
}

/// The daemon's counters; clones count together. One thread only.
#[derive(Clone, Debug, Default)]
pub struct Stats(Rc<[Cell<u64>; Counter::ALL.len()]>);

impl Stats {
    /// Adds `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.0[counter as usize];
        cell.set(cell.get().wrapping_add(n));
    }

    /// Its value since the daemon started.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].get()
    }

    /// Report lines, `total NAME: VALUE UNIT`, one for each counter.
    pub fn totals(&self) -> impl Iterator<Item = String> + '_ {
        Counter::ALL
            .into_iter()
            .map(|c| format!("total {}: {} {}", c.name(), self.get(c), c.unit()))
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
}
