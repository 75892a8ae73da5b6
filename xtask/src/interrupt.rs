//! Ctrl-C and its kin as a question instead of sudden death, so that namespaces, processes and
//! files are removed before xtask ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_signal: i32) {
    ASKED.store(true, Ordering::Relaxed);
}

/// From now on INT, TERM and HUP are remembered. Programs started later have their own way with
/// them, because exec resets handlers (a blocked signal would stay blocked in them).
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn watch() -> Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handler of {signal}"))?;
    }
    Ok(())
}

/// Whether someone wants an end.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Gives up if someone wants an end.
///
/// # Errors
/// Someone does.
pub(crate) fn check() -> Result<()> {
    if asked() {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, but not beyond an interruption.
pub(crate) fn pause(time: Duration) {
    let begin = Instant::now();
    while !asked() && begin.elapsed() < time {
        sleep(Duration::from_millis(10).min(time));
    }
}
