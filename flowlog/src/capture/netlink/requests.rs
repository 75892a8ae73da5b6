//! Dumps and queries of the table, over a socket of their own. Nothing that
//! goes wrong here ends the capture: what fails is reported as incomplete, so
//! that it is asked again.
//!
//! After a failure the socket is replaced, because the kernel may be stuck in the
//! middle of a dump on it and refuse others (`EBUSY`). Without the right to enter
//! the namespace again there is no other; then the same one is used: receiving the
//! refusal has the kernel go on with the dump (`netlink_recvmsg` calls
//! `netlink_dump`, net/netlink/af_netlink.c, 6.12), which is read to its end. The
//! spare socket is for one that is of no use any more.

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
/// Requests that fail in a row before that is named: one or two are made again soon.
const FAILURES: u32 = 3;

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
    /// The socket is to be replaced before the next request.
    broken: bool,
    /// Why it is of no use any more.
    dead: Option<io::Error>,
    /// Errors in a row.
    errors: u32,
    /// Requests in a row that failed.
    failures: u32,
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
        seq: u32,
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
            dead: None,
            errors: 0,
            failures: 0,
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
        let seq = self.begin()?;
        self.send(&request::dump(kind, seq)).inspect_err(|_| self.failures += 1)?;
        self.stats.add(Counter::NetlinkDumps, 1);
        self.pending = Pending::Dump { seq };
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
        let seq = self.begin()?;
        self.pending = Pending::Query { seq, keys, sent: 0, outstanding: 0 };
        self.send_queries().map(drop).inspect_err(|_| {
            self.pending = Pending::Nothing;
            self.failures += 1;
        })
    }

    /// The number of the next request: what still comes of one that was given up has
    /// another.
    fn begin(&mut self) -> io::Result<u32> {
        if self.broken {
            self.renew().inspect_err(|_| self.failures += 1)?;
        }
        (self.damaged, self.errors, self.dry, self.again) = (false, 0, None, None);
        self.seq = self.seq.wrapping_add(1).max(1);
        Ok(self.seq)
    }

    /// Replaces the socket, as far as that is possible and needed.
    fn renew(&mut self) -> io::Result<()> {
        match self.home.enter(open).and_then(|opened| opened) {
            Ok(socket) => self.replace(socket),
            Err(_) if self.dead.is_none() => self.broken = false,
            Err(error) => {
                let spare = self.spare.take().ok_or(error)?;
                self.replace(spare);
            }
        }
        Ok(())
    }

    fn replace(&mut self, socket: NetfilterSocket) {
        self.socket = socket;
        (self.broken, self.dead, self.renewed) = (false, None, true);
    }

    /// Why the table cannot be read, until it can.
    pub(in crate::capture) fn trouble(&self) -> Option<String> {
        let remedy = "make room for the kernel's memory, or restart flowlog";
        match &self.dead {
            _ if self.failures < FAILURES => None,
            Some(error) => Some(format!(
                "the conntrack table cannot be read: its socket failed ({error}) and no other can \
                 be opened; {remedy}"
            )),
            None => Some(format!(
                "the conntrack table cannot be read: {} dumps or queries in a row failed; {remedy}",
                self.failures
            )),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes).inspect_err(|error| self.note(error))
    }

    /// Remembers an error by which the socket is of no use any more.
    fn note(&mut self, error: &io::Error) {
        if !is_transient(error) {
            self.broken = true;
            self.dead = Some(copy(error));
        }
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
        self.note(error);
        if self.dead.is_none() && self.errors < ERRORS {
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
        self.failures += 1;
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

    /// Hands on the datagram that has been received, or the failure; returns how many
    /// messages it had, or none where there was nothing.
    pub(in crate::capture) fn hand_on(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
        if let Pending::Failed(what) = self.pending {
            self.pending = Pending::Nothing;
            sink.record(match what {
                What::Dump => Record::DumpDone { complete: false, netns: None },
                What::Queries => Record::QueryDone { complete: false },
            });
            return Some(1);
        }
        let length = self.held.take()?;
        let replies = std::mem::take(&mut self.replies);
        let now = now_ns();
        let mut messages = 0;
        for message in Messages::new(&replies[..length]) {
            messages += 1;
            match message {
                Ok(message) => self.reply(&message, now, sink),
                Err(error) => {
                    self.damaged = true;
                    self.decoder.malformed(error);
                }
            }
        }
        self.replies = replies;
        Some(messages)
    }

    fn reply(&mut self, message: &Message<'_>, now: u64, sink: &mut dyn RecordSink) {
        let refusal = refusal(message);
        let is_asked = match &self.pending {
            Pending::Dump { seq } | Pending::Query { seq, .. } => *seq == message.seq,
            Pending::Nothing | Pending::Failed(_) => false,
        };
        if !is_asked {
            return self.reply_to_former(refusal, sink);
        }
        if refusal.is_none() {
            // An entry that cannot be decoded exists all the same.
            self.damaged |= !self.decoder.known(message, now, sink);
        }
        match (&mut self.pending, refusal) {
            (Pending::Dump { .. }, Some(libc::EBUSY)) => {
                // An earlier dump is stuck on this socket, and goes on now: its end is
                // waited for.
                self.damaged = true;
                self.complain("an earlier dump has not ended");
            }
            (Pending::Dump { .. }, Some(errno)) => {
                self.dump_ended(errno, message.flags & NLM_F_DUMP_INTR != 0, sink);
            }
            (Pending::Query { outstanding, .. }, refusal) => {
                *outstanding = outstanding.saturating_sub(1);
                let last = *outstanding == 0;
                // That an entry is not there is an answer, any other refusal is none.
                self.damaged |= refusal.is_some_and(|errno| !matches!(errno, 0 | libc::ENOENT));
                if last {
                    self.next_queries(sink);
                }
            }
            (Pending::Dump { .. } | Pending::Nothing | Pending::Failed(_), _) => {}
        }
    }

    /// A reply to a request that was given up says what was, and is passed over. With
    /// the end of a dump that was stuck the next one can be made.
    fn reply_to_former(&mut self, refusal: Option<i32>, sink: &mut dyn RecordSink) {
        if refusal.is_some() && self.damaged && matches!(self.pending, Pending::Dump { .. }) {
            self.dump_ended(0, false, sink);
        }
    }

    fn dump_ended(&mut self, errno: i32, changed: bool, sink: &mut dyn RecordSink) {
        let complete = errno == 0 && !changed && !self.damaged;
        if errno != 0 {
            self.complain(io::Error::from_raw_os_error(errno));
        } else if changed {
            self.complain("the table changed meanwhile");
        }
        if !complete {
            self.stats.add(Counter::NetlinkDumpErrors, 1);
        }
        // A table that changes can be read.
        self.failures = if errno == 0 && !self.damaged { 0 } else { self.failures + 1 };
        self.pending = Pending::Nothing;
        sink.record(Record::DumpDone { complete, netns: None });
    }

    /// Sends the next queries, or reports that all are answered.
    fn next_queries(&mut self, sink: &mut dyn RecordSink) {
        match self.send_queries() {
            Ok(true) => {}
            Ok(false) => {
                self.pending = Pending::Nothing;
                self.failures = if self.damaged { self.failures + 1 } else { 0 };
                sink.record(Record::QueryDone { complete: !self.damaged });
            }
            Err(error) => {
                self.complain(error);
                self.failures += 1;
                self.pending = Pending::Nothing;
                sink.record(Record::QueryDone { complete: false });
            }
        }
    }

    /// Sends the next queries; returns whether there were any.
    fn send_queries(&mut self) -> io::Result<bool> {
        let Pending::Query { seq, keys, sent, outstanding } = &mut self.pending else {
            return Ok(false);
        };
        let end = (*sent + QUERIES_AT_ONCE).min(keys.len());
        let bytes: Vec<u8> =
            keys[*sent..end].iter().flat_map(|key| request::get(key, *seq)).collect();
        *outstanding = end - *sent;
        *sent = end;
        if bytes.is_empty() {
            return Ok(false);
        }
        self.send(&bytes).map(|()| true)
    }
}

fn open() -> io::Result<NetfilterSocket> {
    let socket = NetfilterSocket::open()?;
    socket.set_buffer(BUFFER)?;
    Ok(socket)
}

/// The same error once more.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
