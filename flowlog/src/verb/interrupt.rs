//! SIGINT and SIGTERM as something to look for between two steps.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// While it lives the signals wait to be looked for, instead of ending the
/// process.
pub(super) struct Interrupt {
    signals: SigSet,
    waiting: SignalFd,
}

impl Interrupt {
    /// For the calling thread and those that it starts from now on; there must
    /// be no others.
    pub(super) fn block() -> io::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { signals, waiting: SignalFd::with_flags(&signals, flags)? })
    }

    /// Whether a signal has come since this was asked last.
    pub(super) fn has_come(&self) -> io::Result<bool> {
        Ok(self.waiting.read_signal()?.is_some())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // Fails only on a wrong operation, which it is not.
        let _ = self.signals.thread_unblock();
    }
}
