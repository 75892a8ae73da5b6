//! Every metric: its name, type, labels and meaning. The page, the tests of
//! docs/metrics.md and of conf/grafana-dashboard.json read this one list.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It only grows, from 0 at start; its name ends with `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Type {
    /// Its name in the page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// A metric without the values of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Family {
    /// Version of flowlog.
    BuildInfo,
    /// When the daemon started.
    StartTime,
    /// What each source is captured by.
    SourceInfo,
    /// Events handed to the stacks.
    Events,
    /// All of them, of all sources.
    SelectedEvents,
    /// Events that nobody told.
    LostEvents,
    /// Loss reports handed to the stacks.
    LossReports,
    /// Events that a filter refused.
    FilteredEvents,
    /// Events that a FILTER was asked of.
    FilterEvents,
    /// Events that a capture lost.
    CaptureLostEvents,
    /// What could not be decoded.
    Malformed,
    /// Netlink messages.
    NetlinkMessages,
    /// Overruns of the socket.
    NetlinkOverruns,
    /// Messages that nobody asked for.
    NetlinkIgnored,
    /// Records of the ring.
    EbpfRecords,
    /// Faults of programs.
    EbpfFaults,
    /// Notices without room.
    EbpfLostNotices,
    /// Time of the programs.
    HookSeconds,
    /// Calls of the programs.
    HookRuns,
    /// Dumps of the kernel's table.
    TableDumps,
    /// Dumps that failed.
    TableDumpErrors,
    /// Entries in the kernel's table.
    ConntrackEntries,
    /// Entries that it takes.
    ConntrackEntriesLimit,
    /// Flows in the table of live flows.
    LiveFlows,
    /// Flows that it takes.
    LiveFlowsLimit,
    /// Those from before the start.
    PreexistingFlows,
    /// Flows that it had no room for.
    RefusedFlows,
    /// Flows that vanished.
    VanishedFlows,
    /// Records written.
    WrittenRecords,
    /// Bytes written.
    WrittenBytes,
    /// Attempts that failed.
    SinkErrors,
    /// Records lost.
    SinkLostRecords,
    /// Times that a peer was reached again.
    Reconnects,
    /// Records sent once more.
    RepeatedRecords,
    /// Records put into the spool.
    SpooledRecords,
    /// Records that left a full spool.
    DroppedRecords,
    /// Records that the destination will never take.
    RefusedRecords,
    /// Records that the destination had already.
    DuplicateRecords,
    /// Records that may not have reached the disk.
    UnsureRecords,
    /// Outputs replaced beneath the daemon.
    ReplacedFiles,
    /// Damaged files set aside.
    SetAsideFiles,
    /// Where a sink writes.
    SinkInfo,
    /// Records in the spool.
    SpoolRecords,
    /// Bytes of them.
    SpoolBytes,
    /// Bytes that wait.
    BufferBytes,
    /// Bytes that may wait.
    BufferLimitBytes,
    /// Whether the last write failed.
    SinkFailing,
    /// What the cross-check counts.
    CrosscheckEvents,
    /// What neither source told.
    CrosscheckLostEvents,
    /// Events of other namespaces.
    CrosscheckElsewhereEvents,
    /// How much later the second source told.
    CrosscheckLag,
}

/// What there is to say of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    family: Family,
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const fn counter(
    family: Family,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { family, name, kind: Type::Counter, labels, help }
}

const fn gauge(
    family: Family,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Definition {
    Definition { family, name, kind: Type::Gauge, labels, help }
}

/// The labels that all metrics of a sink have, so that they join.
const SINK: &[&str] = &["source", "stack", "sink", "plugin"];

/// All metrics, each at the index of its [`Family`].
pub const DEFINITIONS: [Definition; 51] = [
    gauge(Family::BuildInfo, "flowlog_build_info", &["version"], "Version of flowlog; always 1."),
    gauge(
        Family::StartTime,
        "flowlog_start_time_seconds",
        &[],
        "When the daemon started, seconds since the epoch.",
    ),
    gauge(
        Family::SourceInfo,
        "flowlog_source_info",
        &["source", "capture"],
        "What a source is captured by; always 1.",
    ),
    counter(
        Family::Events,
        "flowlog_events_total",
        &["source", "kind", "cause"],
        "Events handed to the stacks of a source.",
    ),
    counter(
        Family::SelectedEvents,
        "flowlog_selected_events_total",
        &[],
        "Events handed to the stacks, of all sources and kinds.",
    ),
    counter(
        Family::LostEvents,
        "flowlog_lost_events_total",
        &["source"],
        "Events that nobody will ever see: the sum of the [LOST] lines.",
    ),
    counter(
        Family::LossReports,
        "flowlog_loss_reports_total",
        &["source"],
        "Reports of losses handed to the stacks: with loss_lines=1 as many [LOST] lines.",
    ),
    counter(
        Family::FilteredEvents,
        "flowlog_filtered_events_total",
        &["place", "reason"],
        "Events that were not wanted.",
    ),
    counter(
        Family::FilterEvents,
        "flowlog_filter_events_total",
        &["result"],
        "Events that a FILTER was asked of: selected, refused, or handed on for want of an answer.",
    ),
    counter(
        Family::CaptureLostEvents,
        "flowlog_capture_lost_events_total",
        &["capture", "kind"],
        "Events that one way of capture lost; where two are compared the other may have told them.",
    ),
    counter(
        Family::Malformed,
        "flowlog_malformed_total",
        &["capture"],
        "Messages and records that could not be decoded.",
    ),
    counter(
        Family::NetlinkMessages,
        "flowlog_netlink_messages_total",
        &[],
        "Netlink messages read from the event sockets.",
    ),
    counter(
        Family::NetlinkOverruns,
        "flowlog_netlink_overruns_total",
        &[],
        "Times that an event socket overran.",
    ),
    counter(
        Family::NetlinkIgnored,
        "flowlog_netlink_ignored_messages_total",
        &[],
        "Netlink messages of a kind that nobody asked for.",
    ),
    counter(
        Family::EbpfRecords,
        "flowlog_ebpf_records_total",
        &[],
        "Records read from the ring of eBPF.",
    ),
    counter(
        Family::EbpfFaults,
        "flowlog_ebpf_faults_total",
        &[],
        "Times that an eBPF program could not read or remember something.",
    ),
    counter(
        Family::EbpfLostNotices,
        "flowlog_ebpf_lost_notices_total",
        &[],
        "Notes that a netlink message is due that found no room in the ring; no event is lost by it.",
    ),
    counter(
        Family::HookSeconds,
        "flowlog_hook_seconds_total",
        &["source", "hook"],
        "Time that the kernel spent in an eBPF program while kernel.bpf_stats_enabled was 1.",
    ),
    counter(
        Family::HookRuns,
        "flowlog_hook_runs_total",
        &["source", "hook"],
        "Calls of an eBPF program while kernel.bpf_stats_enabled was 1.",
    ),
    counter(
        Family::TableDumps,
        "flowlog_table_dumps_total",
        &[],
        "Dumps of the kernel's table made.",
    ),
    counter(
        Family::TableDumpErrors,
        "flowlog_table_dump_errors_total",
        &[],
        "Dumps of the kernel's table that failed or were cut short.",
    ),
    gauge(
        Family::ConntrackEntries,
        "flowlog_conntrack_entries",
        &["source"],
        "Entries in the kernel's table, in the namespace that the source was opened in.",
    ),
    gauge(
        Family::ConntrackEntriesLimit,
        "flowlog_conntrack_entries_limit",
        &["source"],
        "Entries that the kernel's table takes at most (nf_conntrack_max).",
    ),
    gauge(
        Family::LiveFlows,
        "flowlog_live_flows",
        &["source"],
        "Flows that are kept, with hash_enable=1.",
    ),
    gauge(
        Family::LiveFlowsLimit,
        "flowlog_live_flows_limit",
        &["source"],
        "Flows that can be kept, with hash_enable=1 (hash_max_entries).",
    ),
    gauge(
        Family::PreexistingFlows,
        "flowlog_preexisting_flows",
        &["source"],
        "Kept flows from before the start, of which nothing has been told yet.",
    ),
    counter(
        Family::RefusedFlows,
        "flowlog_refused_flows_total",
        &[],
        "Flows that could not be kept, as hash_max_entries was reached.",
    ),
    counter(
        Family::VanishedFlows,
        "flowlog_vanished_flows_total",
        &[],
        "Flows closed because they had vanished from the kernel's table.",
    ),
    counter(
        Family::WrittenRecords,
        "flowlog_sink_written_records_total",
        SINK,
        "Records that the file, the peer or the destination has taken.",
    ),
    counter(
        Family::WrittenBytes,
        "flowlog_sink_written_bytes_total",
        SINK,
        "Bytes of them, or bytes sent.",
    ),
    counter(
        Family::SinkErrors,
        "flowlog_sink_errors_total",
        SINK,
        "Writes, syncs, connections or transactions that failed and were tried again.",
    ),
    counter(
        Family::SinkLostRecords,
        "flowlog_sink_lost_records_total",
        SINK,
        "Records lost, most of them because buffer_max_bytes was reached.",
    ),
    counter(
        Family::Reconnects,
        "flowlog_sink_reconnects_total",
        SINK,
        "Times that the peer was reached again.",
    ),
    counter(
        Family::RepeatedRecords,
        "flowlog_sink_repeated_records_total",
        SINK,
        "Records written or sent once more: the first attempt was not confirmed.",
    ),
    counter(
        Family::SpooledRecords,
        "flowlog_sink_spooled_records_total",
        SINK,
        "Records put into the spool, where they stay until the destination has acknowledged them.",
    ),
    counter(
        Family::DroppedRecords,
        "flowlog_sink_dropped_records_total",
        SINK,
        "Records lost because the spool was full (spool_max_bytes).",
    ),
    counter(
        Family::RefusedRecords,
        "flowlog_sink_refused_records_total",
        SINK,
        "Records lost because the destination does not take them, now or ever.",
    ),
    counter(
        Family::DuplicateRecords,
        "flowlog_sink_duplicate_records_total",
        SINK,
        "Records that the destination had already, where it says so.",
    ),
    counter(
        Family::UnsureRecords,
        "flowlog_sink_unsure_records_total",
        SINK,
        "Records that were written and may not have reached the disk.",
    ),
    counter(
        Family::ReplacedFiles,
        "flowlog_sink_replaced_files_total",
        SINK,
        "Times that an output was removed or replaced beneath the daemon, and opened anew.",
    ),
    counter(
        Family::SetAsideFiles,
        "flowlog_sink_set_aside_files_total",
        SINK,
        "Times that a damaged file was set aside.",
    ),
    gauge(
        Family::SinkInfo,
        "flowlog_sink_info",
        &["source", "stack", "sink", "plugin", "destination"],
        "Where a sink writes; always 1.",
    ),
    gauge(
        Family::SpoolRecords,
        "flowlog_sink_spool_records",
        SINK,
        "Records in the spool that the destination has not acknowledged.",
    ),
    gauge(
        Family::SpoolBytes,
        "flowlog_sink_spool_bytes",
        SINK,
        "Bytes of the records in the spool.",
    ),
    gauge(
        Family::BufferBytes,
        "flowlog_sink_buffer_bytes",
        SINK,
        "Bytes that wait to be written, or for a peer to confirm them.",
    ),
    gauge(
        Family::BufferLimitBytes,
        "flowlog_sink_buffer_limit_bytes",
        SINK,
        "Bytes that may wait while the file cannot be written or the peer is away (buffer_max_bytes).",
    ),
    gauge(
        Family::SinkFailing,
        "flowlog_sink_failing",
        SINK,
        "1 if the last write to the file failed, or the peer cannot be reached, else 0.",
    ),
    counter(
        Family::CrosscheckEvents,
        "flowlog_crosscheck_events_total",
        &["check", "kind"],
        "Findings of the comparison of eBPF with netlink.",
    ),
    counter(
        Family::CrosscheckLostEvents,
        "flowlog_crosscheck_lost_events_total",
        &[],
        "Events that neither source told: what eBPF lost and netlink did not heal.",
    ),
    counter(
        Family::CrosscheckElsewhereEvents,
        "flowlog_crosscheck_elsewhere_events_total",
        &[],
        "Events of other namespaces than the one that is checked.",
    ),
    gauge(
        Family::CrosscheckLag,
        "flowlog_crosscheck_lag_seconds",
        &["part"],
        "How much later the second source told of an event, since the start.",
    ),
];

// A family whose definition is missing, or stands elsewhere, does not compile.
const _: () = {
    assert!(DEFINITIONS.len() == Family::CrosscheckLag as usize + 1, "the last one is the last");
    let mut index = 0;
    while index < DEFINITIONS.len() {
        assert!(DEFINITIONS[index].family as usize == index, "each at its index");
        index += 1;
    }
};

impl Family {
    /// What there is to say of it.
    pub fn definition(self) -> &'static Definition {
        const ALL: &[Definition] = &DEFINITIONS;
        &ALL[self as usize]
    }
}

#[cfg(test)]
mod tests;
