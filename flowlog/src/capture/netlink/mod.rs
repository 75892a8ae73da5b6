//! Capture over nfnetlink_conntrack: multicast events from one socket, dumps
//! and queries over another. Losses are read from the socket's own drop
//! counter, so that the number is the kernel's.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{debug, warn};

use self::attr::{Message, Messages};
pub use self::decoder::Decoder;
use self::exchange::refusal;
use self::loss::LossMeter;
use self::socket::{Batch, NetfilterSocket};
use super::filter::Filter;
use super::{Capture, Drained, DumpKind, FlowKey, Nobody, Progress, RecordSink};
use crate::event::Record;
use crate::stats::{Counter, Stats};

pub mod attr;
pub mod decode;
mod decoder;
pub(crate) mod exchange;
mod loss;
mod prefilter;
pub(crate) mod request;
pub mod socket;

/// Kernel memory that one event takes from the receive buffer, at most, in
/// bytes (measured on 6.18: 1280 for a NEW event).
const EVENT_TRUESIZE: usize = 1536;
/// Receive buffer of the request socket, bytes: room for the replies to
/// [`QUERIES_AT_ONCE`] queries.
const REQUEST_BUFFER: usize = 1 << 20;
/// Queries sent before their replies are read.
const QUERIES_AT_ONCE: usize = 64;
/// A dump's datagrams are at most 32 KiB (`netlink_recvmsg`, 6.18).
const REPLY: usize = 1 << 16;

/// `NLM_F_DUMP_INTR`: the table changed under the dump.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How the event socket is to be opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Multicast groups to join; none: no events, only dumps and queries.
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
    events: NetfilterSocket,
    requests: NetfilterSocket,
    /// Those that `events` is in.
    groups: Vec<u32>,
    batch: Batch,
    replies: Box<[u8]>,
    /// Length of a reply that has been received and not yet handed on.
    held: Option<usize>,
    decoder: Decoder,
    pending: Pending,
    seq: u32,
    loss: LossMeter,
    stats: Stats,
}

/// What the request socket is busy with.
enum Pending {
    Nothing,
    Dump { seq: u32 },
    Query { keys: Vec<FlowKey>, sent: usize, outstanding: usize },
}

impl NetlinkCapture {
    /// Opens the sockets in the current network namespace.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; otherwise what the kernel refused.
    pub fn open(settings: &Settings, stats: Stats) -> io::Result<Self> {
        let events = NetfilterSocket::open()?;
        let accounted = events.set_buffer(settings.buffer)?;
        debug!("netlink buffer has been set to {accounted} bytes");
        if settings.reliable {
            events.set_reliable()?;
        }
        // Before joining, so that nothing unwanted is ever queued.
        if let Some(program) = prefilter::program(&settings.filter) {
            events.attach_filter(&program)?;
        }
        let loss = LossMeter::new(&events, settings, stats.clone())?;
        for group in &settings.groups {
            events.join(*group)?;
        }
        let requests = NetfilterSocket::open()?;
        requests.set_buffer(REQUEST_BUFFER)?;
        Ok(Self {
            events,
            requests,
            groups: settings.groups.clone(),
            batch: Batch::new(),
            replies: vec![0; REPLY].into_boxed_slice(),
            held: None,
            decoder: Decoder::new(stats.clone()),
            pending: Pending::Nothing,
            seq: 0,
            loss,
            stats,
        })
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Reads events until there are none or the budget is spent.
    fn drain_events(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let mut messages = 0;
        while messages < budget {
            match self.batch.receive(&self.events) {
                Ok(received) => {
                    messages += received;
                    self.stats.add(Counter::NetlinkMessages, received as u64);
                    let now = now_ns();
                    self.decoder.datagrams(self.batch.datagrams(), now, sink);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.loss.overrun(&self.events);
                }
                Err(error) => return Err(error),
            }
        }
        if messages >= budget {
            return Ok(Progress { messages, drained: Drained::More });
        }
        // Dropped messages belong behind those that were queued before: the
        // kernel queues nothing more until the queue has been read dry
        // (`NETLINK_S_CONGESTED`, net/netlink/af_netlink.c, 6.18).
        self.loss.report(&self.events, sink);
        Ok(Progress { messages, drained: Drained::Dry })
    }

    /// Hears no more events; those that have been queued can still be read.
    ///
    /// # Errors
    /// None that a live socket gives.
    pub fn leave(&mut self) -> io::Result<()> {
        self.groups.drain(..).try_for_each(|group| self.events.leave(group))
    }

    /// Tells what has been lost, without waiting until the queue is dry.
    pub fn tell_losses(&mut self, sink: &mut dyn RecordSink) {
        self.loss.report(&self.events, sink);
    }

    /// Receives one datagram of replies, if a request is under way.
    pub(super) fn receive_reply(&mut self) -> io::Result<()> {
        if self.held.is_some() || matches!(self.pending, Pending::Nothing) {
            return Ok(());
        }
        match self.requests.receive(&mut self.replies) {
            Ok(datagram) => {
                self.held = Some(datagram.len());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands on the datagram that has been received; returns whether there was
    /// one.
    pub(super) fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> io::Result<bool> {
        let Some(length) = self.held.take() else { return Ok(false) };
        let replies = std::mem::take(&mut self.replies);
        let result = self.replies_in(&replies[..length], sink);
        self.replies = replies;
        result.map(|()| true)
    }

    fn replies_in(&mut self, datagram: &[u8], sink: &mut dyn RecordSink) -> io::Result<()> {
        let now = now_ns();
        for message in Messages::new(datagram) {
            match message {
                Ok(message) => self.reply(&message, now, sink)?,
                Err(error) => self.decoder.malformed(error),
            }
        }
        Ok(())
    }

    fn reply(
        &mut self,
        message: &Message<'_>,
        now: u64,
        sink: &mut dyn RecordSink,
    ) -> io::Result<()> {
        let refusal = refusal(message);
        if refusal.is_none() {
            self.decoder.known(message, now, sink);
        }
        match (&mut self.pending, refusal) {
            (Pending::Dump { seq }, Some(errno)) if *seq == message.seq => {
                let complete = errno == 0 && message.flags & NLM_F_DUMP_INTR == 0;
                if !complete {
                    let error = io::Error::from_raw_os_error(errno);
                    warn!("a dump of the conntrack table was cut short: {error}");
                    self.stats.add(Counter::NetlinkDumpErrors, 1);
                }
                self.pending = Pending::Nothing;
                sink.record(Record::DumpDone { complete, netns: None });
            }
            (Pending::Query { outstanding, .. }, _) => {
                *outstanding = outstanding.saturating_sub(1);
                if *outstanding == 0 {
                    self.send_queries(sink)?;
                }
            }
            (Pending::Dump { .. } | Pending::Nothing, _) => {}
        }
        Ok(())
    }

    /// Sends the next queries, or says that all are answered.
    fn send_queries(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        let Pending::Query { keys, sent, outstanding } = &mut self.pending else {
            return Ok(());
        };
        let end = (*sent + QUERIES_AT_ONCE).min(keys.len());
        let bytes: Vec<u8> = keys[*sent..end].iter().flat_map(|key| request::get(key, 1)).collect();
        *outstanding = end - *sent;
        *sent = end;
        if bytes.is_empty() {
            self.pending = Pending::Nothing;
            sink.record(Record::QueryDone);
            return Ok(());
        }
        self.requests.send(&bytes)
    }
}

impl Capture for NetlinkCapture {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        [&self.events, &self.requests]
            .into_iter()
            .map(|socket| socket.as_fd().try_clone_to_owned())
            .collect()
    }

    /// A reply tells the state of the moment at which it was received, or of
    /// one before. So the events that came earlier go first: what they tell
    /// must not look like old news because a dump has told it already.
    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let mut messages = 0;
        loop {
            self.receive_reply()?;
            let events = self.drain_events(budget, sink)?;
            messages += events.messages;
            if events.drained == Drained::More {
                return Ok(Progress { messages, drained: Drained::More });
            }
            if !self.hand_on_reply(sink)? {
                return Ok(Progress { messages, drained: Drained::Dry });
            }
        }
    }

    fn start_dump(&mut self, kind: DumpKind) -> io::Result<()> {
        if !matches!(self.pending, Pending::Nothing) {
            return Ok(());
        }
        let seq = self.next_seq();
        self.requests.send(&request::dump(kind, seq))?;
        self.stats.add(Counter::NetlinkDumps, 1);
        self.pending = Pending::Dump { seq };
        Ok(())
    }

    fn query(&mut self, keys: Vec<FlowKey>) -> io::Result<()> {
        if !matches!(self.pending, Pending::Nothing) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        self.pending = Pending::Query { keys, sent: 0, outstanding: 0 };
        self.send_queries(&mut Nobody)
    }

    fn queue_events(&self) -> usize {
        self.loss.accounted / EVENT_TRUESIZE
    }
}

/// Nanoseconds since the epoch; 0 for a clock set before 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

#[cfg(test)]
mod tests;
