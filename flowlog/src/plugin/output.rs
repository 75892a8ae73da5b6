//! Where sinks write: files, sockets and databases. What cannot be written waits; what
//! waits is bounded; what is lost is counted. Whole records only.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::append::Opened;
use self::database::DatabaseOutput;
use self::file::FileOutput;
pub use self::peer::Address;
pub(super) use self::peer::{notice_silence, queued};
use self::socket::SocketOutput;
use self::stream::StreamOutput;
use crate::plugin::ship::Shipment;
use crate::stats::SinkStats;

mod append;
mod backlog;
pub mod database;
pub mod file;
mod peer;
mod pipe;
mod socket;
mod stream;

/// Records are written when this much has gathered, at the latest when a batch
/// ends. Bytes.
const CHUNK: usize = 256 << 10;
/// How long the end of the daemon waits for outputs, all together.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a sink writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file, appended to.
    File {
        /// Its path.
        path: PathBuf,
        /// Each batch is on disk before the next is taken.
        sync: bool,
    },
    /// Somebody who listens on a socket.
    Socket(Address),
}

/// How a sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to.
    pub destination: Destination,
    /// Records kept while they cannot be written, bytes.
    pub buffer_max: usize,
}

/// Who counts what an output does.
#[derive(Clone, Debug)]
pub struct Counted {
    /// What the records are called: lines, messages, records.
    pub noun: &'static str,
    /// The counters of the sink.
    pub stats: SinkStats,
}

/// An open file, a connection, a database or a spool, with what waits for it.
pub enum Output {
    /// A file.
    File(Box<FileOutput>),
    /// A pipe, a FIFO or a terminal.
    Stream(Box<StreamOutput>),
    /// A socket.
    Socket(Box<SocketOutput>),
    /// A database in a file.
    Database(Box<DatabaseOutput>),
    /// The spool, and somebody whom it is delivered to.
    Shipped(Box<Shipment>),
}

impl Output {
    /// Opens the file, or begins to connect.
    ///
    /// # Errors
    /// The file cannot be opened. That nobody listens, or that a name cannot be looked up, is
    /// no error.
    pub fn open(settings: &Settings, counted: Counted) -> io::Result<Self> {
        let Settings { destination, buffer_max } = settings;
        Ok(match destination {
            Destination::File { path, sync } => Self::at(path, *sync, *buffer_max, counted)?,
            Destination::Socket(address) => {
                Self::Socket(Box::new(SocketOutput::open(address.clone(), *buffer_max, counted)))
            }
        })
    }

    /// Opens what stands at a path; it is made where nothing does. That nobody reads a FIFO is no
    /// error.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub fn at(path: &Path, sync: bool, buffer_max: usize, counted: Counted) -> io::Result<Self> {
        // A daemon leaves its directory; the file is opened anew by this path.
        let path = std::path::absolute(path)?;
        let stream = |path, pipe, counted| {
            Self::Stream(Box::new(StreamOutput::new(path, pipe, buffer_max, counted)))
        };
        Ok(match append::open(&path)? {
            Opened::File(file) => {
                Self::File(Box::new(FileOutput::new(path, file, sync, buffer_max, counted)?))
            }
            Opened::Pipe(pipe) => stream(path, Some(pipe), counted),
            Opened::Awaited => stream(path, None, counted),
        })
    }

    /// Takes a record in two parts; see [`Shipment::push`] and [`DatabaseOutput::push`].
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        match self {
            Self::File(file) => file.push(front, rest),
            Self::Stream(stream) => stream.push(front, rest),
            Self::Socket(socket) => socket.push(front, rest),
            Self::Database(_) | Self::Shipped(_) => {
                debug_assert!(false, "it has a push of its own");
            }
        }
    }

    /// Ends a batch: what has gathered is written.
    pub fn flush(&mut self) {
        match self {
            Self::File(file) => file.flush(),
            Self::Stream(stream) => stream.flush(),
            Self::Socket(socket) => socket.flush(),
            Self::Database(database) => database.flush(),
            Self::Shipped(shipment) => shipment.flush(),
        }
    }

    /// When to flush again though nothing new has come; `None`: nothing waits.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::File(file) => file.retry_in(),
            Self::Stream(stream) => stream.retry_in(),
            Self::Socket(socket) => socket.retry_in(),
            Self::Database(database) => database.retry_in(),
            Self::Shipped(shipment) => shipment.due_in(),
        }
    }

    /// Tries for the last time, and counts what is then lost.
    pub fn close(&mut self) {
        match self {
            Self::File(file) => file.close(),
            Self::Stream(stream) => stream.close(),
            Self::Socket(socket) => socket.close(),
            Self::Database(database) => database.close(),
            Self::Shipped(shipment) => shipment.close(),
        }
    }

    /// Opens a file anew, for log rotation. Looks a peer's name up anew, and
    /// tries at once to reach it, if it is away.
    pub fn reopen(&mut self) {
        match self {
            Self::File(file) => file.reopen(),
            Self::Stream(stream) => stream.reopen(),
            Self::Socket(socket) => socket.reopen(),
            Self::Database(database) => database.reopen(),
            Self::Shipped(shipment) => shipment.reopen(),
        }
    }

    /// Bytes that wait, and how many may wait.
    pub fn fill(&self) -> (usize, usize) {
        match self {
            Self::File(file) => file.fill(),
            Self::Stream(stream) => stream.fill(),
            Self::Socket(socket) => socket.fill(),
            Self::Database(database) => database.fill(),
            Self::Shipped(shipment) => shipment.fill(),
        }
    }

    /// The file or the database cannot be written, or the peer cannot be reached.
    pub fn is_failing(&self) -> bool {
        match self {
            Self::File(file) => file.is_failing(),
            Self::Stream(stream) => stream.is_failing(),
            Self::Socket(socket) => socket.is_failing(),
            Self::Database(database) => database.failure().is_some(),
            Self::Shipped(shipment) => shipment.stats().trouble().is_some(),
        }
    }

    /// Starts the threads that it needs: when no process is forked and no privilege
    /// dropped any more.
    pub fn begin(&mut self) {
        match self {
            Self::File(_) | Self::Stream(_) => {}
            Self::Socket(socket) => socket.begin(),
            Self::Database(database) => database.begin(),
            Self::Shipped(shipment) => shipment.begin(),
        }
    }

    /// The daemon ends: those that have a thread begin to write all that waits, until
    /// `deadline`. [`Output::close`] follows.
    pub fn end(&mut self, deadline: Instant) {
        match self {
            Self::File(_) | Self::Stream(_) => {}
            Self::Socket(socket) => socket.end(deadline),
            Self::Database(database) => database.end(deadline),
            Self::Shipped(shipment) => shipment.end(deadline),
        }
    }

    /// Everything that happened before `complete`, nanoseconds since the epoch, was
    /// pushed.
    pub fn caught_up(&mut self, complete: u64) {
        match self {
            Self::Shipped(shipment) => shipment.caught_up(complete),
            Self::Database(database) => database.caught_up(complete),
            Self::File(_) | Self::Stream(_) | Self::Socket(_) => {}
        }
    }

    /// More waits for a thread than is good where records come without end, as from a
    /// recording, and that thread goes on.
    pub fn is_behind(&self) -> bool {
        let (waiting, limit) = self.fill();
        let threaded = matches!(self, Self::Database(_) | Self::Shipped(_));
        threaded && waiting > limit / 2 && !self.is_failing()
    }

    /// Hands a file to a user, see [`FileOutput::give_to`].
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        match self {
            Self::File(file) => file.give_to(uid, gid),
            Self::Stream(_) | Self::Socket(_) => {}
            Self::Shipped(shipment) => shipment.give_to(uid, gid),
            Self::Database(database) => database.give_to(uid, gid),
        }
    }
}

/// The full path of the file or the database, the peer's address, or the name of
/// what is shipped to.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.path().display().fmt(f),
            Self::Stream(stream) => stream.path().display().fmt(f),
            Self::Socket(socket) => socket.address().fmt(f),
            Self::Database(database) => database.path().display().fmt(f),
            Self::Shipped(shipment) => shipment.name().fmt(f),
        }
    }
}
