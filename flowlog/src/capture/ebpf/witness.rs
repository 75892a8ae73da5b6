//! What the ring tells, for a cross-check: each event with its origin, at once,
//! and which netlink messages were due. Whoever compares drains by
//! [`EbpfCapture::drain_witness`] and asks for losses by
//! [`EbpfCapture::tell_losses`]; the capture works as it does alone otherwise.

use std::collections::BTreeMap;
use std::io;
use std::ops::{AddAssign, Sub};

use tracing::debug;

use super::btf::{self, KernelBtf};
use super::clock::Clock;
use super::probes::{ProbeError, Probes};
use super::{EbpfCapture, Unable, hooks};
use crate::capture::crosscheck::Due;
use crate::capture::{Drained, Progress};
use crate::event::{Event, Expectation};
use crate::flow::Tuple;
use crate::stats::{CheckKind, Counter};

/// Where an event of the ring comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Address of the entry: unique while it lives.
    pub entry: u64,
    /// The kernel gathers events for it, so that netlink can tell of it.
    pub armed: bool,
    /// When it happened, nanoseconds of `CLOCK_BOOTTIME`: what is compared must not
    /// depend on the time of day, which may be set meanwhile.
    pub boot: u64,
}

/// A netlink message is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about: never an expectation.
    pub kind: CheckKind,
    /// Address of the entry.
    pub entry: u64,
    /// Its id, as the message has it; absent where it cannot be had.
    pub id: Option<u32>,
    /// Its original tuple.
    pub orig: Tuple,
    /// Its zone.
    pub zone: u16,
    /// When ctnetlink was called, nanoseconds since the epoch.
    pub at: u64,
    /// The same in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot: u64,
}

/// What eBPF lost, by its own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Beginnings of connections that found no room in the ring.
    pub new: u64,
    /// Changes.
    pub update: u64,
    /// Ends.
    pub destroy: u64,
    /// Events of expectations.
    pub expect: u64,
    /// Refused connections, while they are traced.
    pub refused: u64,
    /// Notices, those included for which the kernel passed a program over.
    pub notices: u64,
    /// Events of unknown kind: the kernel passed a program over.
    pub missed: u64,
    /// Times that a program could not read or remember something.
    pub faults: u64,
    /// Records that could not be decoded.
    pub malformed: u64,
}

impl Losses {
    /// Events that are certainly lost, of all kinds.
    pub fn events(&self) -> u64 {
        // Taken apart, so that nobody forgets a new field.
        let Self {
            new,
            update,
            destroy,
            expect,
            refused,
            missed,
            notices: _,
            faults: _,
            malformed: _,
        } = self;
        new + update + destroy + expect + refused + missed
    }

    /// Each number of one with that of another.
    fn with(self, other: Self, both: fn(u64, u64) -> u64) -> Self {
        Self {
            new: both(self.new, other.new),
            update: both(self.update, other.update),
            destroy: both(self.destroy, other.destroy),
            expect: both(self.expect, other.expect),
            refused: both(self.refused, other.refused),
            notices: both(self.notices, other.notices),
            missed: both(self.missed, other.missed),
            faults: both(self.faults, other.faults),
            malformed: both(self.malformed, other.malformed),
        }
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        *self = self.with(other, u64::wrapping_add);
    }
}

impl Sub for Losses {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, u64::wrapping_sub)
    }
}

/// Times that the kernel passed programs over, as last seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    events: u64,
    messages: u64,
}

impl Passed {
    /// As the programs have it now.
    fn read(probes: &Probes) -> Self {
        let mut passed = Self::default();
        for (program, misses) in probes.misses() {
            if hooks::tells_events(program) {
                passed.events += misses;
            } else if hooks::tells_messages(program) {
                passed.messages += misses;
            }
        }
        passed
    }
}

/// Takes what the ring tells, with what a cross-check must know of it.
pub trait WitnessSink {
    /// A connection event. Its content may be taken: it is filled anew each
    /// time.
    fn event(&mut self, event: &mut Event, origin: Origin);

    /// An expectation event, when it happened, and whether netlink can tell of
    /// it.
    fn expectation(&mut self, expectation: &Expectation, at: u64, origin: Origin);

    /// A netlink message is due.
    fn notice(&mut self, notice: &Notice);

    /// What eBPF lost since the last call.
    fn lost(&mut self, losses: Losses);
}

impl EbpfCapture {
    /// As [`Capture::drain`](crate::capture::Capture::drain), but only the ring
    /// is read, and what it tells is told one by one. Losses are told by
    /// [`Self::tell_losses`] only, which has to be called now and then.
    ///
    /// # Errors
    /// None so far.
    pub fn drain_witness(
        &mut self,
        budget: usize,
        sink: &mut dyn WitnessSink,
    ) -> io::Result<Progress> {
        let clock = Clock::now();
        let mut messages = 0;
        while messages < budget {
            let Some(record) = self.ring.next() else { break };
            messages += 1;
            self.reader.tell(&record, clock, self.spoil.as_mut(), sink);
        }
        #[cfg(feature = "ebpf-log")]
        self.probes.iter_mut().for_each(Probes::tell);
        self.stats.add(Counter::EbpfRecords, messages as u64);
        let drained = if messages < budget { Drained::Dry } else { Drained::More };
        Ok(Progress { messages, drained })
    }

    /// Reads what the programs count now, and tells what is new. A loss stands
    /// behind what was read before it was noticed.
    pub fn tell_losses(&mut self, sink: &mut dyn WitnessSink) {
        self.look();
        let losses = std::mem::take(&mut self.untold);
        if losses != Losses::default() {
            sink.lost(losses);
        }
    }

    /// Attaches the programs that tell which messages are due, and begins to
    /// count them. Returns whether notices have the entries' ids.
    ///
    /// # Errors
    /// Why messages cannot be told.
    pub fn begin_notices(&mut self) -> Result<bool, Unable> {
        self.end_notices();
        self.ledger.clear()?;
        let detached = || ProbeError::Object("it is no longer in use".to_owned());
        let probes = self.probes.as_mut().ok_or_else(detached)?;
        let btf = KernelBtf::open(btf::DIRECTORY.as_ref())?;
        let way = probes.attach(&hooks::MESSAGES, &btf)?;
        debug!("{}: {}", hooks::MESSAGES.tells, way.why);
        Ok(way.tells_ids())
    }

    /// Detaches them. What they counted can still be asked for.
    pub fn end_notices(&mut self) {
        if let Some(probes) = &mut self.probes {
            probes.detach(&hooks::MESSAGES);
        }
    }

    /// Messages that were due since the last [`Self::begin_notices`], by inode
    /// number of the namespace.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn due(&self) -> io::Result<BTreeMap<u32, Due>> {
        self.ledger.due().map_err(io::Error::other)
    }

    /// Inode number of the namespace that the capture was opened in, of which
    /// notices are told.
    pub fn own_netns(&self) -> u32 {
        self.own_netns
    }

    /// Detaches all programs: nothing is added to the ring any more, and what it
    /// still has can be read.
    pub fn detach(&mut self) {
        self.look_for_missed();
        self.probes = None;
    }

    /// Looks for events and notices that no program told, because the kernel had
    /// passed it over, and for records that make no sense.
    pub(super) fn look_for_missed(&mut self) {
        self.untold.malformed += self.reader.take_malformed();
        let Some(probes) = &self.probes else { return };
        let now = Passed::read(probes);
        let events = now.events.saturating_sub(self.passed.events);
        let notices = now.messages.saturating_sub(self.passed.messages);
        self.stats.add(Counter::EbpfMissed, events);
        self.stats.add(Counter::EbpfLostNotices, notices);
        self.untold.missed += events;
        self.untold.notices += notices;
        self.passed.events = self.passed.events.max(now.events);
        self.passed.messages = self.passed.messages.max(now.messages);
    }
}

#[cfg(test)]
mod tests;
