//! Every metric: its name, type, labels and meaning. The page, and the tests of docs/metrics.md,
//! conf/grafana-dashboard.json and conf/prometheus-rules.yml read this one list.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// It only grows, from 0 at start; its name ends with `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Values by size, in buckets: it has samples with the suffixes of [`Type::SUFFIXES`].
    Histogram,
}

impl Type {
    /// What the samples of a histogram add to its name.
    pub const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

    /// Its name in the page.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What there is to say of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The labels that all metrics of a sink have, so that they join.
const SINK: &[&str] = &["source", "stack", "sink", "plugin"];

/// Makes [`Family`] and [`DEFINITIONS`] of one list, so that a family has its definition.
macro_rules! families {
    ($($family:ident: $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        /// A metric without the values of its labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Family {
            $(#[doc = $help] $family,)*
        }

        /// All metrics, each at the index of its [`Family`].
        pub const DEFINITIONS: [Definition; [$(Family::$family),*].len()] = [
            $(Definition { name: $name, kind: Type::$kind, labels: $labels, help: $help },)*
        ];
    };
}

families! {
    BuildInfo: Gauge "flowlog_build_info" &["version"],
        "Version of flowlog; always 1.";
    Health: Gauge "flowlog_health" &[],
        "1 if /healthz answers 200, else 0.";
    DroppedMessages: Counter "flowlog_log_dropped_messages_total" &[],
        "Messages of flowlog itself that the target of logfile did not take in time.";
    SourceInfo: Gauge "flowlog_source_info" &["source", "capture"],
        "What a source is captured by; always 1.";
    Events: Counter "flowlog_events_total" &["source", "kind", "cause"],
        "Events handed to the stacks of a source.";
    SelectedEvents: Counter "flowlog_selected_events_total" &[],
        "Events handed to the stacks, of all sources and kinds.";
    LostEvents: Counter "flowlog_lost_events_total" &["source"],
        "Events that are in no log: the sum of the LOST lines but those with SOURCE=output.";
    LossReports: Counter "flowlog_loss_reports_total" &["source"],
        "Reports of losses handed to the stacks: with loss_lines=1 as many LOST lines.";
    ExcludedEvents: Counter "flowlog_excluded_events_total" &["place", "reason"],
        "Events that an accept_*_filter, the kind or the namespace excluded.";
    FilterEvaluations: Counter "flowlog_filter_evaluations_total" &["result"],
        "Evaluations of a FILTER: selected and refused events, and those passed on without a result.";
    CaptureLostEvents: Counter "flowlog_capture_lost_events_total" &["capture", "kind"],
        "Events that one way of capture lost; where two are compared the other may have reported them.";
    MalformedMessages: Counter "flowlog_malformed_messages_total" &["capture"],
        "Messages of netlink and records of eBPF that could not be decoded; those of events are in `flowlog_lost_events_total` too.";
    NetlinkMessages: Counter "flowlog_netlink_messages_total" &[],
        "Netlink messages read from the event sockets.";
    NetlinkOverruns: Counter "flowlog_netlink_overruns_total" &[],
        "Times that an event socket overran.";
    NetlinkIgnored: Counter "flowlog_netlink_ignored_messages_total" &[],
        "Netlink messages of a kind that was not requested.";
    EbpfRecords: Counter "flowlog_ebpf_records_total" &[],
        "Records read from the ring of eBPF.";
    EbpfFaults: Counter "flowlog_ebpf_faults_total" &[],
        "Times that an eBPF program could not read or remember something.";
    EbpfLostNotices: Counter "flowlog_ebpf_lost_notices_total" &[],
        "Notes that a netlink message is due that found no room in the ring; no event is lost by it.";
    HookSeconds: Counter "flowlog_hook_seconds_total" &["source", "hook"],
        "Time that the kernel spent in an eBPF program while kernel.bpf_stats_enabled was 1.";
    HookRuns: Counter "flowlog_hook_runs_total" &["source", "hook"],
        "Calls of an eBPF program while kernel.bpf_stats_enabled was 1.";
    TableDumps: Counter "flowlog_table_dumps_total" &[],
        "Dumps of the kernel's table made.";
    TableDumpErrors: Counter "flowlog_table_dump_errors_total" &[],
        "Dumps of the kernel's table that failed or were cut short.";
    ConntrackEntries: Gauge "flowlog_conntrack_entries" &["source"],
        "Entries in the kernel's table, in the namespace that the source was opened in.";
    ConntrackEntriesLimit: Gauge "flowlog_conntrack_entries_limit" &["source"],
        "Entries that the kernel's table takes at most (nf_conntrack_max).";
    LiveFlows: Gauge "flowlog_live_flows" &["source"],
        "Flows that are kept, with hash_enable=1.";
    LiveFlowsLimit: Gauge "flowlog_live_flows_limit" &["source"],
        "Flows that can be kept, with hash_enable=1 (hash_max_entries).";
    PreexistingFlows: Gauge "flowlog_preexisting_flows" &["source"],
        "Kept flows from before the start, of which no event has been seen yet.";
    RefusedFlows: Counter "flowlog_refused_flows_total" &[],
        "Flows that could not be kept, as hash_max_entries was reached.";
    VanishedFlows: Counter "flowlog_vanished_flows_total" &[],
        "Flows closed because they had vanished from the kernel's table.";
    WrittenRecords: Counter "flowlog_sink_written_records_total" SINK,
        "Records that the file, the peer or the destination has taken.";
    WrittenBytes: Counter "flowlog_sink_written_bytes_total" SINK,
        "Bytes of them, or bytes sent.";
    SinkErrors: Counter "flowlog_sink_errors_total" SINK,
        "Writes, syncs, connections or transactions that failed and were tried again.";
    SinkLostRecords: Counter "flowlog_sink_lost_records_total" SINK,
        "Records lost, most of them because buffer_max_bytes was reached.";
    SinkLossReports: Counter "flowlog_sink_loss_reports_total" SINK,
        "Reports of its own losses that were written to the output of the sink itself.";
    Reconnects: Counter "flowlog_sink_reconnects_total" SINK,
        "Times that the peer was reached again.";
    RepeatedRecords: Counter "flowlog_sink_repeated_records_total" SINK,
        "Records written or sent once more: the first attempt was not confirmed.";
    SpooledRecords: Counter "flowlog_sink_spooled_records_total" SINK,
        "Records put into the spool, where they stay until the destination has acknowledged them.";
    DroppedRecords: Counter "flowlog_sink_dropped_records_total" SINK,
        "Records lost because the spool was full (spool_max_bytes).";
    RefusedRecords: Counter "flowlog_sink_refused_records_total" SINK,
        "Records lost because the destination refuses them for good.";
    DuplicateRecords: Counter "flowlog_sink_duplicate_records_total" SINK,
        "Records that the destination had already, where it says so.";
    UnsureRecords: Counter "flowlog_sink_unsure_records_total" SINK,
        "Records that were written and may not have reached the disk or, at exit, the peer.";
    ReplacedFiles: Counter "flowlog_sink_replaced_files_total" SINK,
        "Times that an output was removed or replaced beneath the daemon, and opened anew.";
    SetAsideFiles: Counter "flowlog_sink_set_aside_files_total" SINK,
        "Times that a damaged file was set aside.";
    SinkInfo: Gauge "flowlog_sink_info" &["source", "stack", "sink", "plugin", "destination"],
        "Where a sink writes; always 1.";
    SpoolRecords: Gauge "flowlog_sink_spool_records" SINK,
        "Records in the spool that the destination has not acknowledged.";
    SpoolBytes: Gauge "flowlog_sink_spool_bytes" SINK,
        "Bytes of the records in the spool.";
    BufferBytes: Gauge "flowlog_sink_buffer_bytes" SINK,
        "Bytes that wait to be written, or for a peer to confirm them.";
    BufferLimitBytes: Gauge "flowlog_sink_buffer_limit_bytes" SINK,
        "Bytes that may wait while the file cannot be written or the peer is away (buffer_max_bytes).";
    SinkFailing: Gauge "flowlog_sink_failing" SINK,
        "1 if the last write to the file failed, or the peer cannot be reached, else 0.";
    SinkStalled: Gauge "flowlog_sink_stalled_seconds" SINK,
        "For how long a sink has made no progress while records wait; 0 while it makes progress.";
    CrosscheckEvents: Counter "flowlog_crosscheck_events_total" &["check", "kind"],
        "Findings of the comparison of eBPF with netlink.";
    CrosscheckLostEvents: Counter "flowlog_crosscheck_lost_events_total" &[],
        "Events that neither source reported: what eBPF lost and netlink did not heal.";
    CrosscheckElsewhereEvents: Counter "flowlog_crosscheck_elsewhere_events_total" &[],
        "Events of other namespaces than the one that is checked.";
    CrosscheckLag: Histogram "flowlog_crosscheck_lag_seconds" &[],
        "How much later the second source reported an event.";
    ProcessCpu: Counter "process_cpu_seconds_total" &[],
        "Processor time of the daemon, user and system, seconds.";
    ProcessMemory: Gauge "process_resident_memory_bytes" &[],
        "Resident memory of the daemon, bytes.";
    ProcessFiles: Gauge "process_open_fds" &[],
        "Open file descriptors of the daemon.";
    ProcessFilesLimit: Gauge "process_max_fds" &[],
        "Most file descriptors that the daemon may open.";
    ProcessStartTime: Gauge "process_start_time_seconds" &[],
        "When the daemon started, seconds since the epoch.";
}

impl Family {
    /// What there is to say of it.
    pub fn definition(self) -> &'static Definition {
        const ALL: &[Definition] = &DEFINITIONS;
        &ALL[self as usize]
    }
}

#[cfg(test)]
mod tests;
