//! What archives answer: records, losses, of what time they know. Each thread
//! gathers its own; what they have together is bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::record::Record;
use super::times::Span;

/// Events that nobody will ever see.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Loss {
    /// When it was noticed.
    pub(super) at: u64,
    pub(super) source: String,
    pub(super) events: u64,
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
    /// Of these times the archives know all that happened and was not lost.
    pub(super) covered: Vec<Span>,
    /// Rows that make no sense.
    pub(super) unreadable: u64,
}

impl<'r> Answers<'r> {
    pub(super) fn new(room: &'r Room) -> Self {
        let (records, losses, covered) = (Vec::new(), Vec::new(), Vec::new());
        Self { room, records, losses, covered, unreadable: 0 }
    }

    pub(super) fn record(&mut self, record: Record) -> Result<(), Trouble> {
        self.room.take()?;
        self.records.push(record);
        Ok(())
    }

    pub(super) fn loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    pub(super) fn covered(&mut self, span: Span) {
        self.covered.push(span);
    }

    pub(super) fn unreadable(&mut self) {
        self.unreadable += 1;
    }

    /// Takes over what another thread has gathered.
    pub(super) fn append(&mut self, mut other: Self) {
        self.records.append(&mut other.records);
        self.losses.append(&mut other.losses);
        self.covered.append(&mut other.covered);
        self.unreadable += other.unreadable;
    }
}
