//! What a capture reports: records, in the order in which they happened.

use bitflags::bitflags;

use crate::flow::{Flow, HelperName, Tuple};

bitflags! {
    /// Event kinds; the bits are those of `event_mask`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Kinds: u32 {
        /// A connection entered the table.
        const NEW = 0x01;
        /// Its state changed.
        const UPDATE = 0x02;
        /// It left the table.
        const DESTROY = 0x04;
        /// It was marked as assured.
        const ASSURED = 0x08;
        /// It was seen in both directions.
        const CONFIRMED = 0x10;
        /// An expectation was created, updated or destroyed.
        const EXPECT = 0x20;
        /// A helper was attached.
        const HELPER = 0x40;
        /// It was destroyed by garbage collection.
        const GC = 0x80;
    }
}

/// What happened to an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectAction {
    /// Created.
    New,
    /// Refreshed.
    Update,
    /// Fulfilled, expired or removed.
    Destroy,
}

/// An expectation: a connection that a helper foresees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What happened to it.
    pub action: ExpectAction,
    /// Tuple that is expected; a field whose mask is zero matches anything and
    /// is 0 here.
    pub tuple: Tuple,
    /// Original tuple of the connection whose helper expects it.
    pub master: Tuple,
    /// Conntrack zone.
    pub zone: u16,
    /// Helper that expects it, when the kernel names it.
    pub helper: Option<HelperName>,
}

/// One conntrack event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind told by the source: NEW, UPDATE or DESTROY.
    pub kinds: Kinds,
    /// When it happened, nanoseconds since the epoch: the kernel's own event
    /// time where it tells one (`CTA_TIMESTAMP_EVENT`, Linux ≥ 6.14 with
    /// `nf_conntrack_timestamp=1`), else the time of receipt.
    pub at: u64,
    /// The connection.
    pub flow: Flow,
}

/// Events that a source had to drop before anybody could read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which source lost them.
    pub source: &'static str,
    /// How many.
    pub events: u64,
    /// When the loss was noticed, nanoseconds since the epoch.
    pub at: u64,
}

/// What a capture hands on. Borrowed: the hot path copies nothing.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A connection event.
    Event(&'a Event),
    /// An expectation event, and when it happened.
    Expectation(&'a Expectation, u64),
    /// A loss, placed where it happened in the stream.
    Lost(Lost),
    /// An entry of the table, told by a dump or a query.
    Known(&'a Flow, u64),
    /// The dump that was asked for has ended; `complete` unless it failed.
    DumpDone {
        /// Every entry was told.
        complete: bool,
    },
    /// Every query that was asked for has been answered; entries that still
    /// exist were told as `Known`.
    QueryDone,
}
