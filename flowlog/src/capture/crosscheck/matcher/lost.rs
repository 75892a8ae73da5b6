//! What eBPF lost and netlink has not healed.

use std::collections::VecDeque;
use std::time::Instant;

use super::{HESITATION, Matcher};
use crate::capture::RecordSink;
use crate::event::{Lost, Record};
use crate::stats::Counter;

/// Losses of eBPF that netlink may still heal.
#[derive(Default)]
pub(super) struct Unhealed {
    pub(super) samples: VecDeque<Sample>,
    pub(super) told: u64,
}

/// How many events eBPF had lost at some time.
pub(super) struct Sample {
    pub(super) lost: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) at: u64,
    /// When netlink has healed what it can: it has told all that happened until
    /// then, and all windows have closed.
    pub(super) due: Option<Instant>,
}

impl Matcher {
    /// Of what eBPF lost, netlink has not healed the rest.
    pub(super) fn tell_lost(&mut self, now: Instant, sink: &mut dyn RecordSink) {
        let told = self.netlink_seen.saturating_sub(HESITATION);
        for sample in &mut self.lost.samples {
            if sample.due.is_none() && sample.at <= told {
                sample.due = Some(now + self.rules.window);
            }
        }
        while let Some(Sample { lost, due, .. }) = self.lost.samples.front()
            && due.is_some_and(|due| due <= now)
        {
            let lost = *lost;
            self.lost.samples.pop_front();
            self.tell_lost_of(lost, sink);
        }
    }

    pub(super) fn tell_lost_of(&mut self, lost: u64, sink: &mut dyn RecordSink) {
        let events = lost.saturating_sub(self.healed).saturating_sub(self.lost.told);
        if events > 0 {
            self.lost.told += events;
            self.findings.stats().add(Counter::CrosscheckLost, events);
            let at = crate::capture::netlink::now_ns();
            sink.record(Record::Lost(Lost::noticed("both", events, at)));
        }
    }
}
