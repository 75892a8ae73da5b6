//! Two witnesses: eBPF and netlink tell of the same events, and each event is
//! compared, logged once, and accounted for if one of them lost it.

use std::time::Duration;

pub use self::report::{Due, Lag, Report};

mod report;

/// How two sources are to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an event waits for the other source's word.
    pub window: Duration,
    /// Events that wait at most.
    pub max_pending: usize,
    /// When netlink is listened to at all.
    pub schedule: Schedule,
}

/// When the sources are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// All the time.
    Always,
    /// For a while, now and then.
    Every {
        /// From the beginning of one audit to that of the next.
        period: Duration,
        /// How long an audit takes.
        lasting: Duration,
    },
}
