//! Multicast events from one socket. A socket that fails is opened anew, and
//! what was missed meanwhile is a loss.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::decoder::Decoder;
use super::exchange::is_transient;
use super::loss::LossMeter;
use super::socket::{Batch, NetfilterSocket};
use super::{Settings, now_ns, prefilter};
use crate::capture::{Drained, Progress, RecordSink};
use crate::event::{Lost, Record};
use crate::netns::Home;
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

/// Kernel memory that one event takes from the receive buffer, at most, in
/// bytes (measured on 6.18: 1280 for a NEW event).
const EVENT_TRUESIZE: usize = 1536;
/// Errors in a row after which other work gets its turn.
const ERRORS: u32 = 16;
/// From an error to the next attempt.
const AGAIN: Duration = Duration::from_millis(20);
/// From a socket that could not be opened to the next attempt.
const REOPEN: Duration = Duration::from_secs(1);

/// The socket, and what is known of its losses.
pub(super) struct Events {
    socket: NetfilterSocket,
    /// Opened while the rights to enter the namespace were there.
    spare: Option<NetfilterSocket>,
    home: Home,
    settings: Settings,
    batch: Batch,
    decoder: Decoder,
    loss: LossMeter,
    /// The socket is of no use any more, for this reason.
    broken: Option<io::Error>,
    /// When to try again though nothing is readable.
    again: Option<Instant>,
    renewed: bool,
    complaints: RateLimit,
    stats: Stats,
}

impl Events {
    /// Opens the socket in the current network namespace.
    ///
    /// # Errors
    /// As for the capture.
    pub(super) fn open(settings: &Settings, stats: Stats) -> io::Result<Self> {
        let socket = NetfilterSocket::open()?;
        let loss = subscribe(&socket, settings, &stats)?;
        Ok(Self {
            socket,
            spare: Some(NetfilterSocket::open()?),
            home: Home::here()?,
            settings: settings.clone(),
            batch: Batch::new(),
            decoder: Decoder::new(stats.clone()),
            loss,
            broken: None,
            again: None,
            renewed: false,
            complaints: RateLimit::per_second(),
            stats,
        })
    }

    /// The socket that becomes readable.
    ///
    /// # Errors
    /// The process has too many open files.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    pub(super) fn take_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// When to drain though nothing is readable.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Why no events are read.
    pub(super) fn trouble(&self) -> Option<String> {
        let error = self.broken.as_ref()?;
        Some(format!(
            "the event socket failed ({error}) and cannot be opened anew in its network \
             namespace; restart flowlog"
        ))
    }

    /// Events that the queue holds at least.
    pub(super) fn room(&self) -> usize {
        self.loss.accounted / EVENT_TRUESIZE
    }

    /// Reads events until there are none or the budget is spent.
    pub(super) fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> Progress {
        let mut messages = 0;
        let mut errors = 0;
        if self.again.is_some_and(|again| again <= Instant::now()) {
            self.again = None;
        }
        self.reopen_if_broken(sink);
        while messages < budget && self.again.is_none() {
            match self.batch.receive(&self.socket) {
                Ok(received) => {
                    messages += received;
                    errors = 0;
                    self.stats.add(Counter::NetlinkMessages, received as u64);
                    let now = now_ns();
                    self.decoder.datagrams(self.batch.datagrams(), now, sink);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    errors += 1;
                    self.failed(error, errors);
                    self.reopen_if_broken(sink);
                }
            }
        }
        if messages >= budget {
            return Progress { messages, drained: Drained::More };
        }
        // Dropped messages belong behind those that were queued before: the
        // kernel queues nothing more until the queue has been read dry
        // (`NETLINK_S_CONGESTED`, net/netlink/af_netlink.c, 6.18).
        self.loss.report(&self.socket, sink);
        let drained = if self.again.is_some() { Drained::Later } else { Drained::Dry };
        Progress { messages, drained }
    }

    /// Sorts out an error, the `errors`th in a row.
    fn failed(&mut self, error: io::Error, errors: u32) {
        let overrun = error.raw_os_error() == Some(libc::ENOBUFS);
        if overrun {
            self.loss.overrun(&self.socket);
        }
        if !is_transient(&error) {
            self.broken = Some(error);
        } else if errors >= ERRORS || !(overrun || error.kind() == io::ErrorKind::Interrupted) {
            if self.complaints.allow() {
                warn!("reading conntrack events failed: {error}; it is tried again");
            }
            self.again = Some(Instant::now() + AGAIN);
        }
    }

    /// Replaces a socket that is of no use. How much it would have told is not
    /// known.
    fn reopen_if_broken(&mut self, sink: &mut dyn RecordSink) {
        if self.again.is_some() {
            return;
        }
        let Some(why) = self.broken.take() else { return };
        match self.reopen() {
            Ok(()) => {
                warn!(
                    "the event socket failed ({why}) and was opened anew; an unknown number of \
                     events was lost, counted as 1"
                );
                self.renewed = true;
                self.stats.add(Counter::NetlinkLost, 1);
                sink.record(Record::Lost(Lost::noticed("netlink", 1, now_ns())));
            }
            Err(error) => {
                if self.complaints.allow() {
                    warn!(
                        "the event socket failed ({why}) and cannot be opened anew: {error}; \
                         it is tried again every second"
                    );
                }
                self.again = Some(Instant::now() + REOPEN);
                self.broken = Some(why);
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let opened = self.home.enter(NetfilterSocket::open).and_then(|opened| opened);
        let socket = opened.or_else(|error| self.spare.take().ok_or(error))?;
        match subscribe(&socket, &self.settings, &self.stats) {
            Ok(loss) => {
                (self.loss, self.socket) = (loss, socket);
                Ok(())
            }
            Err(error) => {
                // For the next attempt, which may be allowed no other. What it has been
                // sent by then happened behind the failure.
                self.spare.get_or_insert(socket);
                Err(error)
            }
        }
    }

    /// Hears no more events; those that have been queued can still be read.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.settings.groups.drain(..).try_for_each(|group| self.socket.leave(group))
    }

    /// Puts what has been lost into the stream.
    pub(super) fn report_losses(&mut self, sink: &mut dyn RecordSink) {
        self.loss.report(&self.socket, sink);
    }
}

/// Has the kernel send events to a socket that has none yet.
fn subscribe(
    socket: &NetfilterSocket,
    settings: &Settings,
    stats: &Stats,
) -> io::Result<LossMeter> {
    let accounted = socket.set_buffer(settings.buffer)?;
    debug!("netlink buffer has been set to {accounted} bytes");
    if settings.reliable {
        socket.set_reliable()?;
    }
    // Before joining, so that nothing unwanted is ever queued.
    if let Some(program) = prefilter::program(&settings.filter) {
        socket.attach_filter(&program)?;
    }
    let loss = LossMeter::new(socket, settings, stats.clone())?;
    for group in &settings.groups {
        socket.join(*group)?;
    }
    Ok(loss)
}
