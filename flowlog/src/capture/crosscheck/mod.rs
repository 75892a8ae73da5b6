//! Two witnesses: eBPF and netlink tell of the same events, and each event is
//! compared, logged once, and accounted for if one of them lost it.
//!
//! | module | its one job |
//! |---|---|
//! | `capture` | both sources at work, all the time or now and then |
//! | `sides` | the ways from each source into the matcher |
//! | `matcher` | two streams → one, and what is missing in which |
//! | `queue` | the events that wait, in order and by name |
//! | `late` | words that come when their event has gone |
//! | `budget` | what the sources lost, to explain what is missing |
//! | `compare` | two accounts of an event → the fields in which they differ |
//! | `findings` | what is counted, timed and told |
//! | `report` | the numbers for whoever shows them |
//! | `audited` | a comparison without a log |

use std::io;
use std::time::Duration;

#[cfg(feature = "ebpf")]
pub use self::capture::{CannotCompare, CrossCapture, Sources};
pub use self::report::{Due, Lag, Loser, LostEvent, MOST_LOST, Report};

#[cfg(feature = "ebpf")]
mod audited;
#[cfg(feature = "ebpf")]
mod budget;
#[cfg(feature = "ebpf")]
mod capture;
#[cfg(feature = "ebpf")]
mod compare;
#[cfg(feature = "ebpf")]
mod findings;
#[cfg(feature = "ebpf")]
mod late;
#[cfg(feature = "ebpf")]
mod matcher;
#[cfg(feature = "ebpf")]
mod queue;
mod report;
#[cfg(feature = "ebpf")]
mod sides;

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

/// A comparison that somebody waits for the end of: nothing is logged, only
/// compared.
pub trait Auditable {
    /// Waits at most so long for events, and compares what there is.
    ///
    /// # Errors
    /// A source cannot go on.
    fn step(&mut self, wait: Duration) -> io::Result<()>;

    /// Takes and judges what is still on its way; no event after this call
    /// counts.
    ///
    /// # Errors
    /// As [`Auditable::step`].
    fn finish(&mut self) -> io::Result<()>;

    /// What has been found so far.
    fn report(&self) -> Report;
}
