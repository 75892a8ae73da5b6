//! Capture over nfnetlink_conntrack: multicast events from one socket, dumps
//! and queries over another. Losses are read from the socket's own drop
//! counter, so that the number is the kernel's.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use self::decoder::Decoder;
use self::events::Events;
pub(super) use self::requests::Requests;
use super::filter::Filter;
use super::turn::{self, Replying};
use super::{Capture, DumpKind, FlowKey, Progress, RecordSink};
use crate::stats::Stats;

pub mod attr;
pub mod decode;
mod decoder;
mod events;
pub(crate) mod exchange;
mod loss;
mod prefilter;
pub(crate) mod request;
mod requests;
pub mod socket;

/// How the event socket is to be opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Multicast groups to join; none: no events.
    pub groups: Vec<u32>,
    /// Receive buffer asked for at start, bytes.
    pub buffer: usize,
    /// How large it may grow after an overrun, bytes.
    pub buffer_max: usize,
    /// Ask the kernel to repeat DESTROY events that did not fit.
    pub reliable: bool,
    /// Flows whose events are wanted.
    pub filter: Filter,
}

/// Records from ctnetlink.
pub struct NetlinkCapture {
    events: Events,
    requests: Requests,
}

impl NetlinkCapture {
    /// Opens the sockets in the current network namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; otherwise what the kernel refused.
    pub fn open(settings: &Settings, stats: Stats) -> io::Result<Self> {
        let events = Events::open(settings, stats.clone())?;
        Ok(Self { events, requests: Requests::open(stats)? })
    }

    /// Hears no more events; those that have been queued can still be read.
    ///
    /// # Errors
    /// None that a live socket gives.
    pub fn leave(&mut self) -> io::Result<()> {
        self.events.leave()
    }

    /// Tells what has been lost, without waiting until the queue is dry.
    pub fn tell_losses(&mut self, sink: &mut dyn RecordSink) {
        self.events.report_losses(sink);
    }
}

impl Replying for NetlinkCapture {
    fn receive_reply(&mut self) {
        self.requests.receive();
    }

    fn drain_events(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        Ok(self.events.drain(budget, sink))
    }

    fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
        self.requests.hand_on(sink)
    }
}

impl Capture for NetlinkCapture {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![self.events.descriptor()?, self.requests.descriptor()?])
    }

    fn take_renewed(&mut self) -> bool {
        let events = self.events.take_renewed();
        self.requests.take_renewed() | events
    }

    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        turn::drain(self, budget, sink)
    }

    fn start_dump(&mut self, kind: DumpKind) -> io::Result<()> {
        self.requests.start_dump(kind)
    }

    fn query(&mut self, keys: Vec<FlowKey>) -> io::Result<()> {
        self.requests.query(keys)
    }

    fn queue_events(&self) -> usize {
        self.events.room()
    }

    /// The drain that follows tries again what failed.
    fn check_due(&self) -> Option<Instant> {
        [self.events.due(), self.requests.due()].into_iter().flatten().min()
    }

    fn health(&self) -> Option<String> {
        self.events.trouble().or_else(|| self.requests.trouble())
    }

    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        self.tell_losses(sink);
        Ok(())
    }
}

/// Nanoseconds since the epoch; 0 for a clock set before 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests;
