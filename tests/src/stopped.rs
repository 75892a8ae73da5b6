//! A daemon whose engine stands still.

use anyhow::{Context as _, Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::daemon::Daemon;

/// The thread that reads events, stopped by a debugger while the others run.
pub struct Stopped(Pid);

impl Stopped {
    /// Stops that of `daemon`, until it is dropped.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn of(daemon: &Daemon) -> Result<Self> {
        // It is the first thread of the process.
        let thread = Pid::from_raw(daemon.process.pid());
        ptrace::seize(thread, ptrace::Options::empty()).context("ptrace is not allowed")?;
        let stopped = Self(thread);
        ptrace::interrupt(thread)?;
        let status = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        ensure!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}
