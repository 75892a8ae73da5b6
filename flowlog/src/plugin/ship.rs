//! What the sinks share whose far side may be away: a spool on disk, and a
//! thread for each of them that delivers what is spooled.
//!
//! The engine's thread encodes a record and hands it over in chunks
//! ([`Shipment`]); the keeper's thread commits chunks to the spool; a worker's
//! thread reads them from there, in order, and has its [`Client`] deliver them.
//! A batch leaves the spool when the far side has acknowledged it, and not before:
//! what was under way when a connection broke, or the daemon was killed, is
//! delivered again, and the records' ids tell.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use self::batch::{Batch, Record, Row};
pub use self::losses::Loss;
pub use self::shipment::{Shipment, Start};
pub use self::sink::{Encode, Shipped};
pub use self::spool::{Failure, Spool};
pub use self::store::OnDamage;

mod backoff;
mod batch;
mod claim;
mod control;
pub(super) mod disk;
mod failure;
mod gate;
mod given_up;
mod health;
mod held;
mod keeper;
mod link;
mod loss_table;
mod losses;
mod note;
mod opening;
mod reader;
mod replacement;
mod rescue;
mod room;
mod shipment;
mod sink;
mod spool;
mod store;
mod stored;
#[cfg(test)]
mod tests;
pub mod tls;
mod worker;

/// Which records leave a full spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The oldest, so that the newest find room.
    DropOldest,
    /// The newest: what is there stays.
    DropNewest,
}

/// Where records wait for the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory of `spool.db`.
    pub directory: PathBuf,
    /// Bytes of records that it may hold, of all sinks together.
    pub max_bytes: u64,
    /// What leaves it when there is no room.
    pub full: Full,
}

/// What the configuration says of every sink that ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    /// The id of its section.
    pub id: String,
    /// Bytes that may wait in memory while the spool cannot be written.
    pub buffer_max: usize,
}

/// The far side of a sink, as its worker sees it.
///
/// The worker connects, delivers batches in order, and connects anew after a
/// [`Trouble`]; whatever was not acknowledged is delivered again then. It drops a
/// client in the middle of a call when the daemon has to end.
pub trait Client: Sized {
    /// How to reach the far side.
    type Settings: Clone + Send + 'static;

    /// It says of which time it has all records, and which it does not have: then
    /// [`Client::learn`] is called before each other call.
    const COVERS: bool = false;

    /// How much the far side wants to get at once.
    fn appetite(settings: &Self::Settings) -> Appetite {
        let _ = settings;
        Appetite::default()
    }

    /// Reaches the far side, and makes sure that it is the right one.
    fn connect(settings: &Self::Settings) -> impl Future<Output = Result<Self, Trouble>>;

    /// What it reaches has taken the place of what it reached before, which was removed or
    /// replaced. Asked once.
    fn replaced(&mut self) -> bool {
        false
    }

    /// Learns what is known of the records that come.
    fn learn(&mut self, upstream: Upstream<'_>) {
        let _ = upstream;
    }

    /// Delivers a batch: has the far side's acknowledgement of all of it in the
    /// end, or holds it until [`Client::tick`] or [`Client::close`] settles it.
    fn deliver(&mut self, batch: &Batch) -> impl Future<Output = Result<Delivered, Trouble>>;

    /// When [`Client::tick`] wants to be called, though nothing new has come.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does what time has made due.
    fn tick(&mut self) -> impl Future<Output = Result<Settled, Trouble>> {
        async { Ok(Settled::No) }
    }

    /// What it refuses for good of what it held, since that was asked last. Asked after each call,
    /// also one that has failed. What is held comes again if the connection ends: of that nothing
    /// is refused before it is settled, so that each record is counted once.
    fn take_refused(&mut self) -> Refused {
        Refused::default()
    }

    /// Ends: what is held is settled, if that can be done in a moment.
    fn close(&mut self) -> impl Future<Output = Result<Settled, Trouble>> {
        async { Ok(Settled::No) }
    }
}

/// What is known of the records that come to a client.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// All records up to that time, nanoseconds since the epoch, have been delivered
    /// or were lost; absent: some may be on their way.
    pub complete: Option<u64>,
    /// Losses that were not settled yet, where they are others than before. They are
    /// settled with what is held.
    pub losses: Option<&'a [(i64, Loss)]>,
}

/// How much the far side wants to get at once.
#[derive(Clone, Copy, Debug)]
pub struct Appetite {
    /// Bytes of records from which on a batch is large enough.
    pub bytes: usize,
    /// How long a smaller batch waits for more.
    pub linger: Duration,
}

impl Default for Appetite {
    fn default() -> Self {
        Self { bytes: 1 << 20, linger: Duration::ZERO }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Records that the far side has taken, also those that it had already.
    pub records: u64,
    /// Of those, records that it had already, where it tells.
    pub known: u64,
    /// Records that it will never take: they are lost. None of a batch that is held, see
    /// [`Client::take_refused`].
    pub refused: u64,
    /// Why not, of the last of them.
    pub why: Option<String>,
    /// Bytes sent for it, as far as the client knows.
    pub bytes: u64,
    /// The far side has not acknowledged it yet: it stays in the spool.
    pub held: bool,
}

/// Records that the destination refuses for good: they are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many there are.
    pub records: u64,
    /// Why not, of the last of them.
    pub why: Option<String>,
}

impl Refused {
    /// Adds to them.
    pub fn add(&mut self, records: u64, why: impl FnOnce() -> String) {
        if records > 0 {
            self.records += records;
            self.why = Some(why());
        }
    }

    /// Adds others, which came later.
    pub fn join(&mut self, other: Self) {
        self.records += other.records;
        self.why = other.why.or(self.why.take());
    }
}

/// Whether what is held was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All of it.
    All,
    /// Nothing new.
    No,
}

/// Why the far side does not take records. None of them is lost by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    what: String,
    person: bool,
}

impl Trouble {
    /// Something that may pass by itself: nobody listens, a connection broke.
    pub fn passing(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), person: false }
    }

    /// Something that a person has to change: a wrong password, a wrong table. It
    /// is tried again, but seldom. `what` says what failed, and the remedy.
    pub fn refused(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), person: true }
    }

    /// Somebody has to change something.
    pub fn needs_a_person(&self) -> bool {
        self.person
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
