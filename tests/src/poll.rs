//! Waiting for a condition instead of sleeping: tests are as fast as what they test, and a wait
//! that never ends says what it waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything in the tests may take before it counts as failed. Emulated processors, which
/// guests have, are twenty times slower than the host's.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` every 10 ms until it answers, at most [`PATIENCE`] long.
///
/// # Errors
/// What `probe` returns, or that the time is over, naming `what` was waited for.
pub fn until<T>(what: &str, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, probe)
}

/// As [`until`], with a time of its own.
///
/// # Errors
/// As [`until`].
pub fn within<T>(
    time: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if begin.elapsed() > time {
            bail!("waited {time:?} in vain for {what}");
        }
        sleep(Duration::from_millis(10));
    }
}
