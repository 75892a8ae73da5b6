//! Where sinks write: files, sockets and databases. What cannot be written waits; what
//! waits is bounded; what is lost is counted. Whole records only.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::database::DatabaseOutput;
use self::file::FileOutput;
pub use self::peer::Address;
pub(super) use self::peer::{notice_silence, queued};
use self::socket::SocketOutput;
use crate::plugin::ship::Shipment;
use crate::stats::{Counter, Stats};

mod append;
mod backlog;
pub mod database;
pub mod file;
mod peer;
mod socket;

/// Records are written when this much has gathered, at the latest when a batch
/// ends. Bytes.
const CHUNK: usize = 256 << 10;

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

/// The counters of a sink.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// What its records are called.
    pub noun: &'static str,
    /// Records written.
    pub records: Counter,
    /// Bytes of them.
    pub bytes: Counter,
    /// Attempts that failed.
    pub errors: Counter,
    /// Records lost.
    pub lost: Counter,
}

/// The counters of a sink that may write to a socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketTally {
    /// Those that every sink has.
    pub tally: Tally,
    /// Times that a peer was reached again.
    pub reconnects: Counter,
    /// Records sent once more, because nobody had confirmed them.
    pub repeated: Counter,
}

/// An open file, a connection, a database or a spool, with what waits for it.
pub enum Output {
    /// A file.
    File(FileOutput),
    /// A socket.
    Socket(SocketOutput),
    /// A database in a file.
    Database(Box<DatabaseOutput>),
    /// The spool, and somebody whom it is delivered to.
    Shipped(Box<Shipment>),
}

impl Output {
    /// Opens the file, or begins to connect.
    ///
    /// # Errors
    /// The file cannot be opened, or the name of the host cannot be looked up;
    /// that nobody listens is no error.
    pub fn open(settings: &Settings, tally: SocketTally, stats: Stats) -> io::Result<Self> {
        let Settings { destination, buffer_max } = settings;
        Ok(match destination {
            Destination::File { path, sync } => {
                Self::File(FileOutput::open(path, *sync, *buffer_max, tally.tally, stats)?)
            }
            Destination::Socket(address) => {
                Self::Socket(SocketOutput::open(address.clone(), *buffer_max, tally, stats)?)
            }
        })
    }

    /// Takes a record in two parts; of one that is shipped, see [`Shipment::push`].
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        match self {
            Self::File(file) => file.push(front, rest),
            Self::Socket(socket) => socket.push(front, rest),
            Self::Database(database) => database.push(front, rest),
            Self::Shipped(_) => debug_assert!(false, "it has a push of its own"),
        }
    }

    /// Ends a batch: what has gathered is written.
    pub fn flush(&mut self) {
        match self {
            Self::File(file) => file.flush(),
            Self::Socket(socket) => socket.flush(),
            Self::Database(database) => database.flush(),
            Self::Shipped(shipment) => shipment.flush(),
        }
    }

    /// When to flush again though nothing new has come; `None`: nothing waits.
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Self::File(file) => file.retry_in(),
            Self::Socket(socket) => socket.retry_in(),
            Self::Database(database) => database.retry_in(),
            Self::Shipped(shipment) => shipment.due_in(),
        }
    }

    /// Tries for the last time, and counts what is then lost.
    pub fn close(&mut self) {
        match self {
            Self::File(file) => file.close(),
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
            Self::Socket(socket) => socket.reopen(),
            Self::Database(database) => database.reopen(),
            Self::Shipped(shipment) => shipment.reopen(),
        }
    }

    /// Bytes that wait, and how many may wait.
    pub fn fill(&self) -> (usize, usize) {
        match self {
            Self::File(file) => file.fill(),
            Self::Socket(socket) => socket.fill(),
            Self::Database(database) => database.fill(),
            Self::Shipped(shipment) => shipment.fill(),
        }
    }

    /// The file or the database cannot be written, or the peer cannot be reached.
    pub fn is_failing(&self) -> bool {
        match self {
            Self::File(file) => file.is_failing(),
            Self::Socket(socket) => socket.is_failing(),
            Self::Database(database) => database.failure().is_some(),
            Self::Shipped(shipment) => shipment.tally().trouble().is_some(),
        }
    }

    /// Starts the threads that it needs: when no process is forked and no privilege
    /// dropped any more.
    pub fn begin(&mut self) {
        if let Self::Shipped(shipment) = self {
            shipment.begin();
        }
    }

    /// Everything that happened before `complete`, nanoseconds since the epoch, was
    /// pushed; a record may come later than others of its time by `hold`.
    pub fn caught_up(&mut self, complete: u64, hold: Duration) {
        if let Self::Shipped(shipment) = self {
            shipment.caught_up(complete, hold);
        }
    }

    /// Tells the stats what other threads have counted.
    pub fn tell(&mut self) {
        if let Self::Shipped(shipment) = self {
            shipment.tell();
        }
    }

    /// Hands a file to a user, see [`FileOutput::give_to`].
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        match self {
            Self::File(file) => file.give_to(uid, gid),
            Self::Socket(_) => {}
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
            Self::Socket(socket) => socket.address().fmt(f),
            Self::Database(database) => database.path().display().fmt(f),
            Self::Shipped(shipment) => shipment.name().fmt(f),
        }
    }
}
