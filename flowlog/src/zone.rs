//! The local time zone: `TZ` and /etc/localtime as libc reads them, and followed
//! while the daemon runs, as ulogd2 follows them by calling localtime(3).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tracing::warn;

use self::leap::LeapSeconds;
use self::reading::{Place, Reading};
use crate::daemon::thread::spawn_without_signals;
use crate::log::notice;

mod leap;
mod reading;

/// How often it is looked whether the zone has changed.
const LOOK: Duration = Duration::from_secs(30);
/// How long a zone that cannot be read is waited for: its file may be just being
/// replaced.
const AGAIN: Duration = Duration::from_secs(1);

/// The zone in use, and what is wrong with it.
static LOCAL: LazyLock<RwLock<Arc<Reading>>> =
    LazyLock::new(|| RwLock::new(Arc::new(Place::of_environment().read())));
/// Goes up when [`LOCAL`] changes.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// Asks the thread that follows the zone for a look.
static ASK: OnceLock<SyncSender<()>> = OnceLock::new();

/// A time zone, with the leap seconds that zones below `right/` have.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    leap: LeapSeconds,
}

impl From<TimeZone> for Zone {
    fn from(zone: TimeZone) -> Self {
        Self { zone, leap: LeapSeconds::default() }
    }
}

impl Zone {
    /// The local time of a second since the epoch, and how many seconds its zone
    /// is ahead of UTC.
    pub fn civil(&self, second: i64) -> (DateTime, i32) {
        let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset = self.zone.to_offset(time);
        let corrected = second - self.leap.before(second);
        let time = Timestamp::from_second(corrected).unwrap_or(time);
        (offset.to_datetime(time), offset.seconds())
    }

    /// The zone without leap seconds.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }
}

/// The local time zone now.
pub fn local() -> Zone {
    current().zone.clone()
}

/// What goes up when [`local`] changes.
pub(crate) fn generation() -> &'static AtomicU64 {
    &GENERATION
}

/// Why the local time zone is UTC without being asked for; what to do.
pub fn problem() -> Option<String> {
    current().problem.clone()
}

fn current() -> Arc<Reading> {
    Arc::clone(&LOCAL.read().unwrap_or_else(PoisonError::into_inner))
}

/// Warns if the zone is not known, and follows it from now on, in a thread: to
/// read its file may take long.
///
/// # Errors
/// The limit of tasks is reached.
pub fn follow() -> io::Result<()> {
    if let Some(problem) = problem() {
        warn!("{problem}");
    }
    let (ask, asked) = sync_channel(1);
    if ASK.set(ask).is_ok() {
        let place = Place::of_environment();
        spawn_without_signals("zone", move || watch(&place, &asked, LOOK))?;
    }
    Ok(())
}

/// Has the zone looked at now, without waiting for it.
pub fn look() {
    if let Some(ask) = ASK.get() {
        // One question is enough.
        let _ = ask.try_send(());
    }
}

fn watch(place: &Place, asked: &Receiver<()>, interval: Duration) {
    let mut wait = interval;
    let mut doubted = false;
    while asked.recv_timeout(wait) != Err(RecvTimeoutError::Disconnected) {
        wait = interval;
        if place.identity() == current().identity && !doubted {
            continue;
        }
        let new = place.read();
        let doubtful = new.problem.is_some() || new.identity.is_none();
        if doubtful && !doubted && current().problem.is_none() {
            doubted = true;
            wait = AGAIN;
            continue;
        }
        doubted = false;
        if new.identity != current().identity {
            replace(new);
        }
    }
}

fn replace(new: Reading) {
    let problem = new.problem.clone();
    let name = new.name.clone();
    *LOCAL.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    GENERATION.fetch_add(1, Ordering::Release);
    match problem {
        Some(problem) => warn!("{problem}"),
        None => notice!("the time zone has changed, and is {name} now"),
    }
}

#[cfg(test)]
mod tests;
