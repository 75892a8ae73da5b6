//! What the ring tells while connections are traced: each event, where it
//! happened and who was at work there; and what never becomes a flow: entries
//! that go without having been in the table, and allocations that fail.
//! Whoever traces drains by [`EbpfCapture::drain_trace`]; the capture works as
//! it does alone otherwise.

use std::time::Instant;

use bytemuck::pod_read_unaligned;
use flowlog_ebpf::{RawContext, RawTrace, RawTraceExpect, STACK, kind, refusal};

use super::attach::Hooks;
use super::clock::Clock;
use super::decode::{Malformed, Told};
use super::hooks::traced;
use super::probes::ProbeError;
use super::witness::Losses;
use super::{EbpfCapture, Settings};
use crate::capture::{Drained, Progress};
use crate::event::{Comm, Event, Expectation, Process};
use crate::stats::Counter;

/// Which refusals are to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Entries that go unconfirmed.
    pub unconfirmed: bool,
    /// Allocations that fail.
    pub unallocated: bool,
    /// They are asked for by name, so that it is an error if they cannot be had.
    pub required: bool,
}

/// Where something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The function that was hooked.
    pub function: &'static str,
    /// Processor.
    pub cpu: u32,
    /// The thread that was current there, in the initial PID namespace; 0: the
    /// idle task.
    pub tid: u32,
    /// Its process and its own name. A packet may have interrupted it.
    pub task: Option<Process>,
    /// Return addresses, the innermost first; the programs' own and that of the
    /// hooked function stand before those of the callers.
    pub stack: Vec<u64>,
}

/// What happened.
#[derive(Debug)]
pub enum What<'a> {
    /// A flow began, changed or ended. Bits of `enum ip_conntrack_events` say
    /// what has changed.
    Event {
        /// The event.
        event: &'a Event,
        /// Address of the entry: unique while it lives.
        entry: u64,
        /// What has changed, for an update.
        changes: u32,
        /// Netlink port of whoever asked for a change; absent when nobody did.
        portid: Option<u32>,
    },
    /// An entry went that was never in the table. Of the event only flow and
    /// time mean something.
    Unconfirmed(&'a Event),
    /// No entry could be allocated; as above, with nothing but tuples, zone and
    /// namespace.
    Unallocated {
        /// The flow that there would be.
        event: &'a Event,
        /// The table is full; else there is no memory.
        full: bool,
        /// The kernel's error, as a positive number.
        error: i32,
    },
    /// An expectation came or went, and when.
    Expectation(&'a Expectation, u64),
}

/// Takes what is traced.
pub trait TraceSink {
    /// Something happened.
    fn traced(&mut self, what: &What<'_>, place: &Place);

    /// What was lost since the last call.
    fn lost(&mut self, losses: Losses);
}

/// The functions by which things are told, by [`kind`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Functions([&'static str; kind::COUNT]);

impl Functions {
    fn set(&mut self, kinds: &[u8], function: &'static str) {
        for kind in kinds {
            self.0[usize::from(*kind)] = function;
        }
    }

    fn of(&self, kind: u8) -> &'static str {
        self.0.get(usize::from(kind)).copied().unwrap_or_default()
    }
}

/// Attaches what a trace needs, ends first.
pub(super) fn attach_all(
    settings: &Settings,
    refusals: Refusals,
    hooks: &mut Hooks<'_>,
) -> Result<Functions, ProbeError> {
    let mut functions = Functions::default();
    functions.set(&[kind::DESTROY], hooks.attach(&traced::REMOVED)?);
    hooks.attach_activities()?;
    functions.set(&[kind::NEW], hooks.attach(&traced::INSERTED)?);
    functions.set(&[kind::UPDATE], hooks.attach(&traced::CHANGED)?);
    if settings.wants_expectations() {
        let kinds = [kind::EXPECT_NEW, kind::EXPECT_DESTROY];
        functions.set(&kinds, hooks.attach(&traced::EXPECTED)?);
    }
    for (wanted, kind, hook) in [
        (refusals.unconfirmed, kind::REFUSED, traced::REFUSED),
        (refusals.unallocated, kind::UNALLOCATED, traced::UNALLOCATED),
    ] {
        if !wanted {
            continue;
        }
        match hooks.attach(&hook) {
            Ok(function) => functions.set(&[kind], function),
            Err(error) if refusals.required => return Err(error),
            Err(error) => {
                hooks.amiss.push(format!("{} will not be reported: {error}", hook.tells));
            }
        }
    }
    Ok(functions)
}

impl EbpfCapture {
    /// As [`Capture::drain`](crate::capture::Capture::drain), for a capture that
    /// was opened with [`Settings::traced`]: what the ring tells is told one by
    /// one, with its place.
    pub fn drain_trace(&mut self, budget: usize, sink: &mut dyn TraceSink) -> Progress {
        let progress = self.drain_traced(budget, sink);
        if self.counts_due() <= Instant::now() {
            self.tell_trace_losses(sink);
        }
        progress
    }

    /// Detaches, and reads what is left: nothing is added any more, so that the
    /// losses told are all there were.
    pub fn finish_trace(&mut self, sink: &mut dyn TraceSink) {
        self.tell_trace_losses(sink);
        self.detach();
        while self.drain_traced(usize::MAX, sink).messages > 0 {}
        self.tell_trace_losses(sink);
    }

    fn drain_traced(&mut self, budget: usize, sink: &mut dyn TraceSink) -> Progress {
        let clock = Clock::now();
        let mut messages = 0;
        while messages < budget {
            let Some(record) = self.ring.next() else { break };
            messages += 1;
            self.reader.trace(&record, clock, &self.functions, sink);
        }
        #[cfg(feature = "ebpf-log")]
        self.probes.iter_mut().for_each(super::Probes::tell);
        self.stats.add(Counter::EbpfRecords, messages as u64);
        let drained = if messages < budget { Drained::Dry } else { Drained::More };
        Progress { messages, drained }
    }

    fn tell_trace_losses(&mut self, sink: &mut dyn TraceSink) {
        self.look();
        let losses = std::mem::take(&mut self.untold);
        if losses != Losses::default() {
            sink.lost(losses);
        }
    }
}

impl super::Reader {
    /// Takes a record and tells it at once, with its place.
    fn trace(
        &mut self,
        record: &[u8],
        clock: Clock,
        functions: &Functions,
        sink: &mut dyn TraceSink,
    ) {
        if let Err(error) = self.try_trace(record, clock, functions, sink) {
            self.malformed(error);
        }
    }

    fn try_trace(
        &mut self,
        record: &[u8],
        clock: Clock,
        functions: &Functions,
        sink: &mut dyn TraceSink,
    ) -> Result<(), Malformed> {
        // Whatever is filled has been handed on.
        let (decoder, event) = self.decoder();
        match record.len() {
            length if length == size_of::<RawTrace>() => {
                let raw: RawTrace = pod_read_unaligned(record);
                decoder.flow(&raw.flow, Some(&raw.details), clock, event)?;
                let place = place(&raw.context, functions.of(raw.flow.kind));
                sink.traced(&what(&raw, event)?, &place);
            }
            length if length == size_of::<RawTraceExpect>() => {
                let raw: RawTraceExpect = pod_read_unaligned(record);
                let bytes = bytemuck::bytes_of(&raw.expect);
                let place = place(&raw.context, functions.of(raw.expect.kind));
                if let Told::Expectation(expectation, at, _) =
                    decoder.decode(bytes, clock, event)?
                {
                    sink.traced(&What::Expectation(&expectation, at), &place);
                }
            }
            length => return Err(Malformed::Length(length)),
        }
        Ok(())
    }
}

fn what<'a>(raw: &RawTrace, event: &'a Event) -> Result<What<'a>, Malformed> {
    let RawContext { refusal, error, .. } = raw.context;
    match (raw.flow.kind, refusal) {
        (kind::REFUSED, refusal::UNCONFIRMED) => Ok(What::Unconfirmed(event)),
        (kind::UNALLOCATED, refusal::TABLE_FULL | refusal::NO_MEMORY) => Ok(What::Unallocated {
            event,
            full: refusal == refusal::TABLE_FULL,
            error: error.saturating_neg(),
        }),
        (kind::REFUSED | kind::UNALLOCATED, other) => {
            Err(Malformed::Number("the refusal", other.into()))
        }
        _ => Ok(What::Event {
            event,
            entry: raw.flow.entry,
            changes: raw.flow.events,
            portid: (raw.flow.portid != 0).then_some(raw.flow.portid),
        }),
    }
}

fn place(raw: &RawContext, function: &'static str) -> Place {
    // What cannot be had is none.
    let bytes = usize::try_from(raw.stack_bytes).unwrap_or(0);
    let depth = (bytes / size_of::<u64>()).min(STACK);
    Place {
        function,
        cpu: raw.cpu,
        tid: raw.tid,
        task: (raw.tid != 0).then(|| Process { pid: raw.pid, comm: Comm::new(&raw.comm) }),
        stack: raw.stack[..depth].to_vec(),
    }
}

#[cfg(test)]
mod tests;
