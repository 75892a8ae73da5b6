//! Dumps and queries of the table, over a socket of their own. Nothing that
//! goes wrong here ends the capture: what fails is reported as incomplete, so
//! that it is asked again, and a socket that is of no more use is replaced.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use tracing::warn;

use super::attr::{Message, Messages};
use super::decoder::Decoder;
use super::exchange::{is_transient, refusal};
use super::socket::NetfilterSocket;
use super::{now_ns, request};
use crate::capture::{DumpKind, FlowKey, RecordSink};
use crate::event::Record;
use crate::netns::Home;
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

/// Receive buffer of the socket, bytes: room for the replies to
/// [`QUERIES_AT_ONCE`] queries.
const BUFFER: usize = 1 << 20;
/// Queries sent before their replies are read.
const QUERIES_AT_ONCE: usize = 64;
/// A dump's datagrams are at most 32 KiB (`netlink_recvmsg`, 6.18).
const REPLY: usize = 1 << 16;
/// `NLM_F_DUMP_INTR`: the table changed under the dump.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// A reply that has not come after this long never comes: the kernel queues it
/// while the request is sent or the part before it is read.
const STALLED: Duration = Duration::from_secs(1);
/// From an error to the next attempt to read.
const AGAIN: Duration = Duration::from_millis(20);
/// Errors in a row after which the socket is given up.
const ERRORS: u32 = 16;

/// A socket for requests, and what it is busy with.
pub(in crate::capture) struct Requests {
    socket: NetfilterSocket,
    /// Opened while the rights were there: takes the place of a socket that
    /// fails when no other can be opened in the namespace.
    spare: Option<NetfilterSocket>,
    home: Home,
    replies: Box<[u8]>,
    /// Length of a reply that has been received and not yet handed on.
    held: Option<usize>,
    decoder: Decoder,
    pending: Pending,
    seq: u32,
    /// Replies to the request under way were lost.
    damaged: bool,
    /// The socket must be replaced before the next request.
    broken: bool,
    /// Errors in a row.
    errors: u32,
    /// Since when nothing has come.
    dry: Option<Instant>,
    /// When to read again though the socket reports nothing.
    again: Option<Instant>,
    renewed: bool,
    complaints: RateLimit,
    stats: Stats,
}

/// What the socket is busy with.
#[derive(Debug)]
enum Pending {
    Nothing,
    Dump {
        seq: u32,
    },
    Query {
        keys: Vec<FlowKey>,
        sent: usize,
        outstanding: usize,
    },
    /// Given up; to be reported behind the events that came before.
    Failed(What),
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    Dump,
    Queries,
}

impl Requests {
    /// Opens the sockets in the current network namespace.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub(in crate::capture) fn open(stats: Stats) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            let socket = NetfilterSocket::open()?;
            socket.set_buffer(BUFFER)?;
            Ok(socket)
        };
        Ok(Self {
            socket: open()?,
            spare: Some(open()?),
            home: Home::here()?,
            replies: vec![0; REPLY].into_boxed_slice(),
            held: None,
            decoder: Decoder::new(stats.clone()),
            pending: Pending::Nothing,
            seq: 0,
            damaged: false,
            broken: false,
            errors: 0,
            dry: None,
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
    pub(in crate::capture) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Whether the descriptor is another than before; answers once.
    pub(in crate::capture) fn take_renewed(&mut self) -> bool {
        std::mem::take(&mut self.renewed)
    }

    /// When to drain though nothing is readable.
    pub(in crate::capture) fn due(&self) -> Option<Instant> {
        let stalled = self.dry.map(|since| since + STALLED);
        [self.again, stalled].into_iter().flatten().min()
    }

    /// Asks for the whole table, unless a request is under way.
    ///
    /// # Errors
    /// The request could not be sent.
    pub(in crate::capture) fn start_dump(&mut self, kind: DumpKind) -> io::Result<()> {
        if !matches!(self.pending, Pending::Nothing) {
            return Ok(());
        }
        self.begin()?;
        self.seq = self.seq.wrapping_add(1).max(1);
        self.send(&request::dump(kind, self.seq))?;
        self.stats.add(Counter::NetlinkDumps, 1);
        self.pending = Pending::Dump { seq: self.seq };
        Ok(())
    }

    /// Asks for these entries.
    ///
    /// # Errors
    /// The first request could not be sent, or another is under way.
    pub(in crate::capture) fn query(&mut self, keys: Vec<FlowKey>) -> io::Result<()> {
        if !matches!(self.pending, Pending::Nothing) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        self.begin()?;
        self.pending = Pending::Query { keys, sent: 0, outstanding: 0 };
        self.send_queries().map(drop).inspect_err(|_| self.pending = Pending::Nothing)
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.broken {
            self.renew()?;
        }
        (self.damaged, self.errors, self.dry, self.again) = (false, 0, None, None);
        Ok(())
    }

    /// Replaces the socket: one that a dump is stuck on refuses all others.
    fn renew(&mut self) -> io::Result<()> {
        let opened = self.home.enter(NetfilterSocket::open).and_then(|opened| opened);
        let socket = opened.or_else(|error| self.spare.take().ok_or(error))?;
        socket.set_buffer(BUFFER)?;
        self.socket = socket;
        (self.broken, self.renewed) = (false, true);
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes).inspect_err(|error| self.broken |= !is_transient(error))
    }

    /// Receives one datagram of replies, if a request is under way.
    pub(in crate::capture) fn receive(&mut self) {
        let asked = matches!(self.pending, Pending::Dump { .. } | Pending::Query { .. });
        if self.held.is_some() || !asked {
            return;
        }
        self.again = None;
        match self.socket.receive(&mut self.replies) {
            Ok(datagram) => {
                self.held = Some(datagram.len());
                (self.errors, self.dry) = (0, None);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.nothing(),
            Err(error) => self.failed(&error),
        }
    }

    /// Nothing is there, though a reply is owed.
    fn nothing(&mut self) {
        let since = *self.dry.get_or_insert_with(Instant::now);
        if self.damaged || since.elapsed() >= STALLED {
            self.give_up("the kernel does not answer");
        }
    }

    /// The socket reported an error: what is read from now on lacks something.
    fn failed(&mut self, error: &io::Error) {
        self.errors += 1;
        if error.kind() != io::ErrorKind::Interrupted {
            self.damaged = true;
            self.complain(error);
        }
        if is_transient(error) && self.errors < ERRORS {
            self.again = Some(Instant::now() + AGAIN);
        } else {
            self.give_up(error);
        }
    }

    fn give_up(&mut self, why: impl std::fmt::Display) {
        let what = match self.pending {
            Pending::Dump { .. } => What::Dump,
            Pending::Query { .. } => What::Queries,
            Pending::Nothing | Pending::Failed(_) => return,
        };
        self.complain(why);
        self.stats.add(Counter::NetlinkDumpErrors, 1);
        self.pending = Pending::Failed(what);
        (self.broken, self.held, self.dry) = (true, None, None);
        // It is reported by the next call of `hand_on`, which follows at once.
        self.again = None;
    }

    fn complain(&mut self, why: impl std::fmt::Display) {
        if self.complaints.allow() {
            warn!("reading the conntrack table failed: {why}; it is read again");
        }
    }

    /// Hands on the datagram that has been received, or the failure; returns
    /// whether there was one.
    pub(in crate::capture) fn hand_on(&mut self, sink: &mut dyn RecordSink) -> bool {
        if let Pending::Failed(what) = self.pending {
            self.pending = Pending::Nothing;
            sink.record(match what {
                What::Dump => Record::DumpDone { complete: false, netns: None },
                What::Queries => Record::QueryDone { complete: false },
            });
            return true;
        }
        let Some(length) = self.held.take() else { return false };
        let replies = std::mem::take(&mut self.replies);
        let now = now_ns();
        for message in Messages::new(&replies[..length]) {
            match message {
                Ok(message) => self.reply(&message, now, sink),
                Err(error) => self.decoder.malformed(error),
            }
        }
        self.replies = replies;
        true
    }

    fn reply(&mut self, message: &Message<'_>, now: u64, sink: &mut dyn RecordSink) {
        let refusal = refusal(message);
        if refusal.is_none() {
            self.decoder.known(message, now, sink);
        }
        match (&mut self.pending, refusal) {
            (Pending::Dump { seq }, Some(errno)) if *seq == message.seq => {
                let changed = message.flags & NLM_F_DUMP_INTR != 0;
                self.dump_ended(errno, changed, sink);
            }
            (Pending::Query { outstanding, .. }, refusal) => {
                *outstanding = outstanding.saturating_sub(1);
                let last = *outstanding == 0;
                // An entry that is not there is an answer, a kernel without
                // memory is none.
                let refusal = refusal.map(io::Error::from_raw_os_error);
                self.damaged |= refusal.is_some_and(|error| is_transient(&error));
                if last {
                    self.next_queries(sink);
                }
            }
            (Pending::Dump { .. } | Pending::Nothing | Pending::Failed(_), _) => {}
        }
    }

    fn dump_ended(&mut self, errno: i32, changed: bool, sink: &mut dyn RecordSink) {
        let complete = errno == 0 && !changed && !self.damaged;
        if errno != 0 {
            self.complain(io::Error::from_raw_os_error(errno));
            // Of its own that is: an earlier dump is stuck on this socket.
            self.broken |= errno == libc::EBUSY;
        } else if changed {
            self.complain("the table changed meanwhile");
        }
        if !complete {
            self.stats.add(Counter::NetlinkDumpErrors, 1);
        }
        self.pending = Pending::Nothing;
        sink.record(Record::DumpDone { complete, netns: None });
    }

    /// Sends the next queries, or reports that all are answered.
    fn next_queries(&mut self, sink: &mut dyn RecordSink) {
        match self.send_queries() {
            Ok(true) => {}
            Ok(false) => {
                self.pending = Pending::Nothing;
                sink.record(Record::QueryDone { complete: !self.damaged });
            }
            Err(error) => {
                self.complain(error);
                self.pending = Pending::Nothing;
                sink.record(Record::QueryDone { complete: false });
            }
        }
    }

    /// Sends the next queries; returns whether there were any.
    fn send_queries(&mut self) -> io::Result<bool> {
        let Pending::Query { keys, sent, outstanding } = &mut self.pending else {
            return Ok(false);
        };
        let end = (*sent + QUERIES_AT_ONCE).min(keys.len());
        let bytes: Vec<u8> = keys[*sent..end].iter().flat_map(|key| request::get(key, 1)).collect();
        *outstanding = end - *sent;
        *sent = end;
        if bytes.is_empty() {
            return Ok(false);
        }
        self.send(&bytes).map(|()| true)
    }
}
