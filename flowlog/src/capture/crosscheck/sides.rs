//! The two ways into the matcher, and that of answers past it.

use std::collections::VecDeque;
use std::time::Instant;

use super::matcher::Matcher;
use crate::capture::RecordSink;
use crate::capture::ebpf::clock::boot_ns;
use crate::capture::ebpf::witness::{Losses, Notice, Origin, WitnessSink};
use crate::capture::filter::Filter;
use crate::event::{Event, Expectation, Record};
use crate::stats::{Counter, Stats};

/// What eBPF tells.
pub(super) struct EbpfSide<'a> {
    pub(super) matcher: &'a mut Matcher,
    /// When it has arrived.
    pub(super) now: Instant,
    /// The same in nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) boot: u64,
    /// Takes what needs no comparison.
    pub(super) sink: &'a mut dyn RecordSink,
}

impl WitnessSink for EbpfSide<'_> {
    fn event(&mut self, event: &mut Event, origin: Origin) {
        self.matcher.ebpf_event(event, origin, self.now, self.sink);
    }

    fn expectation(&mut self, expectation: &Expectation, at: u64, origin: Origin) {
        self.matcher.ebpf_expectation(expectation, at, origin, self.now, self.sink);
    }

    fn notice(&mut self, notice: &Notice) {
        self.matcher.notice(notice, self.now);
    }

    fn lost(&mut self, losses: Losses) {
        self.matcher.ebpf_lost(losses, self.boot);
    }
}

/// What netlink tells. Where the socket's filter is too long for the kernel, it
/// tells more than eBPF.
pub(super) struct NetlinkSide<'a> {
    pub(super) matcher: &'a mut Matcher,
    pub(super) filter: &'a Filter,
    pub(super) now: Instant,
    pub(super) stats: &'a Stats,
}

impl RecordSink for NetlinkSide<'_> {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Event(event) if self.filter.accepts(&event.flow.orig) => {
                // Now, and not when the queue began to be read: a message may have come since,
                // and eBPF is waited for up to this time.
                self.matcher.netlink_event(event, boot_ns(), self.now);
            }
            Record::Expectation(expectation, at) if self.filter.accepts(&expectation.tuple) => {
                self.matcher.netlink_expectation(expectation, at, boot_ns(), self.now);
            }
            Record::Event(_) | Record::Expectation(..) => {
                self.stats.add(Counter::FlowsFiltered, 1);
            }
            Record::Lost(lost) => self.matcher.netlink_lost(lost.events),
            // This socket is asked for nothing.
            Record::Known(..) | Record::DumpDone { .. } | Record::QueryDone { .. } => {}
        }
    }
}

/// Answers to dumps and queries. The last of them is held back until the events
/// that had arrived before it have gone: what they tell must not look as if
/// nobody had told it. The entry of a flow whose beginning waits is passed over:
/// its event will tell it.
pub(super) struct Replies<'a> {
    pub(super) matcher: &'a mut Matcher,
    pub(super) held: &'a mut VecDeque<(u64, Record<'static>)>,
    pub(super) sink: &'a mut dyn RecordSink,
}

impl RecordSink for Replies<'_> {
    fn record(&mut self, record: Record<'_>) {
        let last = match record {
            Record::Known(flow, _) if self.matcher.is_beginning(flow) => return,
            Record::DumpDone { complete, netns } => Record::DumpDone { complete, netns },
            Record::QueryDone { complete } => Record::QueryDone { complete },
            other => return self.sink.record(other),
        };
        let mark = self.matcher.mark();
        if self.held.is_empty() && self.matcher.has_passed(mark) {
            self.sink.record(last);
        } else {
            self.held.push_back((mark, last));
        }
    }
}
