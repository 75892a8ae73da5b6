//! What a sink counts on three threads, and how it stands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::losses::Losses;

/// What is counted of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Measure {
    /// Records that are, or were, on disk in the spool.
    Spooled,
    /// Records that the far side has acknowledged.
    Records,
    /// Bytes sent to it.
    Bytes,
    /// Attempts to reach it, or to write to the spool, that failed.
    Errors,
    /// Times that it was reached again.
    Reconnects,
    /// Records sent once more: nobody had acknowledged them.
    Repeated,
    /// Records that the far side had already.
    Known,
    /// Records lost because the spool could not be written, and
    /// `buffer_max_bytes` waited.
    Lost,
    /// Records that left the spool because it was full.
    Dropped,
    /// Records that the far side will never take.
    Refused,
}

impl Measure {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Spooled,
        Self::Records,
        Self::Bytes,
        Self::Errors,
        Self::Reconnects,
        Self::Repeated,
        Self::Known,
        Self::Lost,
        Self::Dropped,
        Self::Refused,
    ];

    /// Its name in reports, behind that of the sink.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spooled => "spooled_records",
            Self::Records => "records",
            Self::Bytes => "bytes",
            Self::Errors => "errors",
            Self::Reconnects => "reconnects",
            Self::Repeated => "repeated_records",
            Self::Known => "known_records",
            Self::Lost => "lost_records",
            Self::Dropped => "dropped_records",
            Self::Refused => "refused_records",
        }
    }

    /// Its unit in reports.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Spooled
            | Self::Records
            | Self::Repeated
            | Self::Known
            | Self::Lost
            | Self::Dropped
            | Self::Refused => "records",
            Self::Bytes => "bytes",
            Self::Errors => "errors",
            Self::Reconnects => "reconnects",
        }
    }
}

/// What is counted of one sink. Numbers only: no order between them is promised.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU64; Measure::ALL.len()],
    /// Bytes and records on their way to the spool.
    waiting: [AtomicU64; 2],
    /// Bytes and records in the spool.
    kept: [AtomicU64; 2],
    /// What is wrong with the spool, and with the far side.
    troubles: [Mutex<Option<String>>; 2],
    /// Of what time records are lost.
    pub(super) losses: Losses,
}

/// Bytes and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// Who is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Spool,
    FarSide,
}

impl Tally {
    /// Adds to a count.
    pub(super) fn add(&self, measure: Measure, n: u64) {
        self.counts[measure as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// A count.
    pub fn get(&self, measure: Measure) -> u64 {
        self.counts[measure as usize].load(Ordering::Relaxed)
    }

    /// What is on its way to the spool.
    pub fn waiting(&self) -> Amount {
        amount(&self.waiting)
    }

    /// What the spool holds.
    pub fn kept(&self) -> Amount {
        amount(&self.kept)
    }

    pub(super) fn add_waiting(&self, amount: Amount) {
        add(&self.waiting, amount);
    }

    pub(super) fn take_waiting(&self, amount: Amount) {
        take(&self.waiting, amount);
    }

    pub(super) fn add_kept(&self, amount: Amount) {
        add(&self.kept, amount);
    }

    pub(super) fn take_kept(&self, amount: Amount) {
        take(&self.kept, amount);
    }

    /// What is wrong now, if anything is: of the spool, or else of the far side.
    pub fn trouble(&self) -> Option<String> {
        self.troubles
            .iter()
            .find_map(|trouble| trouble.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Notes what is wrong, or that nothing is.
    pub(super) fn set_trouble(&self, part: Part, what: Option<String>) {
        *self.troubles[part as usize].lock().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

fn amount([bytes, records]: &[AtomicU64; 2]) -> Amount {
    // What was done before they were taken away is seen by who sees that they are gone.
    Amount { bytes: bytes.load(Ordering::Acquire), records: records.load(Ordering::Acquire) }
}

fn add([bytes, records]: &[AtomicU64; 2], amount: Amount) {
    bytes.fetch_add(amount.bytes, Ordering::Relaxed);
    records.fetch_add(amount.records, Ordering::Relaxed);
}

fn take([bytes, records]: &[AtomicU64; 2], amount: Amount) {
    bytes.fetch_sub(amount.bytes, Ordering::AcqRel);
    records.fetch_sub(amount.records, Ordering::AcqRel);
}
