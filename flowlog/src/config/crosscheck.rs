//! Whether and how eBPF and netlink are compared: the keys `crosscheck_*`, and
//! what goes together with them.

use std::ops::RangeInclusive;

use super::capture::Conflict;
use super::*;
use crate::capture::crosscheck::Schedule;

/// How long an event waits for the other source's word, milliseconds.
pub const WINDOW_MS: u32 = 2000;
/// Bounds of it.
pub const WINDOW_MS_BOUNDS: RangeInclusive<i64> = 100..=60_000;
/// Events that wait at most.
pub const MAX_PENDING: u32 = 1 << 18;
/// Bounds of it.
pub const MAX_PENDING_BOUNDS: RangeInclusive<i64> = 16..=1 << 24;
/// How long an audit takes.
const LASTING: Duration = Duration::from_secs(5);

/// What the keys say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// From the beginning of one audit to that of the next; absent: none is
    /// made.
    every: Option<Duration>,
    /// How long an audit takes.
    lasting: Duration,
    /// How long an event waits for the other source's word.
    window: Duration,
    /// Events that wait at most.
    max_pending: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            every: None,
            lasting: LASTING,
            window: Duration::from_millis(WINDOW_MS.into()),
            max_pending: MAX_PENDING as usize,
        }
    }
}

impl Keys {
    pub(super) fn read(values: &Values<'_>, found: &mut Diagnostics) -> Self {
        let default = Self::default();
        let window = values.integer("crosscheck_window_ms", WINDOW_MS_BOUNDS, found);
        let max_pending = values.integer("crosscheck_max_pending", MAX_PENDING_BOUNDS, found);
        let lasting = values.duration("crosscheck_for", found);
        if lasting == Some(Duration::ZERO) {
            found.error(
                values.line("crosscheck_for"),
                "`crosscheck_for` of no time compares nothing; give a time such as 5s, or remove \
                 it"
                .to_owned(),
            );
        }
        Self {
            every: values.duration("crosscheck_every", found).filter(|every| !every.is_zero()),
            lasting: lasting.filter(|time| !time.is_zero()).unwrap_or(default.lasting),
            window: window.map_or(default.window, |ms| Duration::from_millis(ms as u64)),
            max_pending: max_pending.map_or(default.max_pending, |events| events as usize),
        }
    }

    /// How a source of this kind is checked; absent: it is not.
    pub(super) fn settings(
        &self,
        capture: CaptureChoice,
        polls: bool,
    ) -> Result<Option<Crosscheck>, Conflict> {
        let conflict = |why: &str| Conflict { key: "crosscheck_every", why: why.to_owned() };
        let schedule = match (capture, self.every) {
            (CaptureChoice::Both, None) => Schedule::Always,
            (CaptureChoice::Both, Some(_)) => {
                return Err(conflict(
                    "`crosscheck_every` does not go with `capture=both`, which compares all the \
                     time; remove crosscheck_every, or set capture=auto",
                ));
            }
            (CaptureChoice::Netlink, Some(_)) if polls => {
                return Err(conflict(
                    "`crosscheck_every` compares events by eBPF with those over netlink, and \
                     with pollinterval there are neither; remove one of the two",
                ));
            }
            (CaptureChoice::Netlink, Some(_)) => {
                return Err(conflict(
                    "`crosscheck_every` compares netlink with eBPF, which `capture=netlink` does \
                     without; remove crosscheck_every, or set capture=auto",
                ));
            }
            (CaptureChoice::Auto | CaptureChoice::Ebpf, Some(period)) => {
                if self.lasting >= period {
                    return Err(conflict(&format!(
                        "an audit of {:?} does not fit into `crosscheck_every` of {period:?}; \
                         make crosscheck_for shorter, or set capture=both to compare all the time",
                        self.lasting
                    )));
                }
                Schedule::Every { period, lasting: self.lasting }
            }
            (CaptureChoice::Auto | CaptureChoice::Ebpf | CaptureChoice::Netlink, None) => {
                return Ok(None);
            }
        };
        Ok(Some(Crosscheck { window: self.window, max_pending: self.max_pending, schedule }))
    }
}

/// Mentions keys without effect. To write a default out is no wish.
pub(super) fn note_unused(values: &Values<'_>, source: &Source, found: &mut Diagnostics) {
    let (keys, default) = (&source.crosscheck_keys, Keys::default());
    let mut note = |key: &str, remedy: &str| {
        if let Some(line) = values.line(key) {
            found.note(line, format!("`{key}` has no effect: {remedy}, or remove it"));
        }
    };
    if keys.every.is_none() && keys.lasting != default.lasting {
        note("crosscheck_for", "it is the length of audits; set crosscheck_every");
    }
    if source.crosscheck.is_none() {
        let remedy = "nothing is compared; set capture=both or crosscheck_every";
        if keys.window != default.window {
            note("crosscheck_window_ms", remedy);
        }
        if keys.max_pending != default.max_pending {
            note("crosscheck_max_pending", remedy);
        }
    }
}
