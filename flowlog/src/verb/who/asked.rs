//! What archives answer: records, losses, of what time they know. Each thread
//! gathers its own; what they have together is bounded.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::Record;
use super::times::Span;
use crate::archive::coverage::Gap;

/// Events that nobody will ever see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Loss {
    /// When it was noticed.
    pub(super) at: u64,
    pub(super) source: String,
    pub(super) events: u64,
}

/// Records that an archive does not have, though it is of their time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Missing {
    pub(super) gap: Gap,
    pub(super) archive: PathBuf,
    /// The name of the archive, as in [`Covered`].
    pub(super) of: String,
}

/// What a file or a run of a database says of itself.
#[derive(Clone, Debug)]
pub(super) struct Covered {
    /// The archive that it is a part of: the sink that has written it where it states that,
    /// else its place.
    pub(super) archive: String,
    /// Where that is.
    pub(super) place: PathBuf,
    /// It has all that happened in that time and was not lost; absent: it covers no time.
    pub(super) span: Option<Span>,
    /// The beginning of each connection is recorded, not its end alone.
    pub(super) beginnings: bool,
}

/// Why an archive was not read to its end.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What is wrong with it.
    Archive(String),
    /// There are as many records as are wanted.
    Enough,
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Archive(format!("it cannot be read: {error}"))
    }
}

/// How many records there may be.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    taken: AtomicUsize,
}

impl Room {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0) }
    }

    fn take(&self) -> Result<(), Trouble> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        if taken < self.limit { Ok(()) } else { Err(Trouble::Enough) }
    }

    /// There was more than there was room for.
    pub(super) fn was_too_small(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.limit
    }
}

/// Answers of one thread.
#[derive(Debug)]
pub(super) struct Answers<'r> {
    room: &'r Room,
    pub(super) records: Vec<Record>,
    pub(super) losses: Vec<Loss>,
    /// The times that archives cover.
    pub(super) covered: Vec<Covered>,
    /// What is missing of it.
    pub(super) missing: Vec<Missing>,
    /// Rows that make no sense.
    pub(super) unreadable: u64,
    /// Archives without checksums: a changed byte in them is not noticed.
    pub(super) unverified: Vec<PathBuf>,
    /// Databases whose check took too long.
    pub(super) unchecked: Vec<PathBuf>,
}

impl<'r> Answers<'r> {
    pub(super) fn new(room: &'r Room) -> Self {
        Self {
            room,
            records: Vec::new(),
            losses: Vec::new(),
            covered: Vec::new(),
            missing: Vec::new(),
            unreadable: 0,
            unverified: Vec::new(),
            unchecked: Vec::new(),
        }
    }

    pub(super) fn record(&mut self, record: Record) -> Result<(), Trouble> {
        self.room.take()?;
        self.records.push(record);
        Ok(())
    }

    pub(super) fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    pub(super) fn covered(&mut self, covered: Covered) {
        self.covered.push(covered);
    }

    pub(super) fn missing(&mut self, gap: Gap, archive: &Path, of: &str) {
        self.missing.push(Missing { gap, archive: archive.to_owned(), of: of.to_owned() });
    }

    pub(super) fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    pub(super) fn unverified(&mut self, path: &Path) {
        self.unverified.push(path.to_owned());
    }

    pub(super) fn unchecked(&mut self, path: &Path) {
        self.unchecked.push(path.to_owned());
    }

    /// Takes over what another thread has gathered.
    pub(super) fn append(&mut self, mut other: Self) {
        self.records.append(&mut other.records);
        self.losses.append(&mut other.losses);
        self.covered.append(&mut other.covered);
        self.missing.append(&mut other.missing);
        self.unreadable += other.unreadable;
        self.unverified.append(&mut other.unverified);
        self.unchecked.append(&mut other.unchecked);
    }
}
