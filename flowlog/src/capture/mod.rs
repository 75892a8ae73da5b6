//! Where records come from. A capture yields [`Record`]s in order; nothing
//! outside this folder knows what a netlink message or a ring buffer is.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::event::{Event, Record};
use crate::flow::Flow;

pub mod crosscheck;
#[cfg(feature = "ebpf")]
pub mod ebpf;
pub mod filter;
pub(crate) mod live;
pub mod netlink;
pub mod replay;
mod turn;

/// Receives what a capture reports.
pub trait RecordSink {
    /// These events come next, each as a record of its own: a hint for whoever
    /// has to fetch something for each of them.
    fn announce(&mut self, _: &[Event]) {}

    /// Takes one record. It is borrowed: keep what is needed.
    fn record(&mut self, record: Record<'_>);
}

/// Throws the records away.
#[cfg(feature = "ebpf")]
pub(crate) struct Discard;

#[cfg(feature = "ebpf")]
impl RecordSink for Discard {
    fn record(&mut self, _: Record<'_>) {}
}

/// Whether a source has been read dry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is left; wait for readiness.
    Dry,
    /// The budget was used up first; call again.
    More,
    /// Reading failed, and events may be left: call again when the capture is due. What
    /// has happened is not known before that.
    Later,
}

/// What one call of [`Capture::drain`] did.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Messages read.
    pub messages: usize,
    /// Whether there is more.
    pub drained: Drained,
}

/// How a table dump is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// Read the table.
    Read,
    /// Read the table and set the kernel's counters to zero.
    ReadAndReset,
}

/// A source of conntrack records.
pub trait Capture {
    /// Duplicates of the descriptors that become readable when there is
    /// something to drain.
    ///
    /// # Errors
    /// The process has too many open files.
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>>;

    /// Whether the descriptors are others than before, since a socket was opened
    /// anew. Asked after each drain; answers once.
    fn take_renewed(&mut self) -> bool {
        false
    }

    /// What keeps events from being read, and what to do; absent: nothing.
    fn health(&self) -> Option<String> {
        None
    }

    /// Whether each loss of events is known: where their counts cannot be read it is not.
    fn knows_losses(&self) -> bool {
        true
    }

    /// Reads what is there, without blocking, up to about `budget` messages.
    ///
    /// # Errors
    /// Only what cannot be gone on from; losses and wrong messages are records
    /// and counters.
    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress>;

    /// Asks for a dump of the table: `Known` records, then `DumpDone`. A dump
    /// under way goes on, and the call is without effect.
    ///
    /// # Errors
    /// The request could not be sent (`EPERM` without `CAP_NET_ADMIN`), or the
    /// source has no table, as a recording has none.
    fn start_dump(&mut self, _kind: DumpKind) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asks for these entries by tuple: `Known` for each that exists, then
    /// `QueryDone`.
    ///
    /// # Errors
    /// As [`Capture::start_dump`].
    fn query(&mut self, _flows: Vec<FlowKey>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Events that the event queue holds at least before the kernel drops any:
    /// the engine rests no longer than that fills it.
    fn queue_events(&self) -> usize;

    /// When [`Capture::check`] is to be called; absent: never.
    fn check_due(&self) -> Option<Instant> {
        None
    }

    /// How long it may hold a record back that it has read, at most.
    fn holds(&self) -> Duration {
        Duration::ZERO
    }

    /// Looks whether all is well with the capture itself, counts and warns.
    /// Called when it is due; what the check finds out about events is told by
    /// the next [`Capture::drain`].
    fn check(&mut self, _now: Instant) {}

    /// Brings counters that are computed, such as the lag of a second source,
    /// up to date: the totals are told next.
    fn before_totals(&mut self) {}

    /// What the kernel's part of the capture costs, where the kernel measures it.
    fn hook_costs(&self) -> Vec<HookCost> {
        Vec::new()
    }

    /// Ends the capture: no event after this call is reported, and what had
    /// come before it, losses included, is told now. Called once, when nothing
    /// more is drained.
    ///
    /// # Errors
    /// Something could not be told.
    fn finish(&mut self, _sink: &mut dyn RecordSink) -> io::Result<()> {
        Ok(())
    }
}

/// What a program in the kernel has cost since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCost {
    /// Its name.
    pub hook: String,
    /// How often it was called.
    pub runs: u64,
    /// Time spent in it.
    pub time: Duration,
}

/// What names an entry of the table in the namespace of the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Original tuple.
    pub orig: crate::flow::Tuple,
    /// Conntrack zone.
    pub zone: u16,
}

impl From<&Flow> for FlowKey {
    fn from(flow: &Flow) -> Self {
        Self { orig: flow.orig, zone: flow.zone }
    }
}
