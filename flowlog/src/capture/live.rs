//! A capture at work for a verb that watches it in steps, without the engine:
//! it waits, and looks at its signals and its time between two steps.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Capture;

/// Messages taken from a capture at a time.
pub(crate) const BUDGET: usize = 4096;

/// Waits until there is something to drain, and at most so long; then has the
/// capture check itself if that is due. A signal ends the wait.
///
/// # Errors
/// The descriptors of the capture cannot be waited for.
pub(crate) fn wait(capture: &mut dyn Capture, wait: Duration) -> io::Result<()> {
    wait_for(capture, None, wait)
}

/// The same, and another descriptor that can be read ends the wait too.
///
/// # Errors
/// As [`wait`].
pub(crate) fn wait_for(
    capture: &mut dyn Capture,
    other: Option<BorrowedFd<'_>>,
    wait: Duration,
) -> io::Result<()> {
    let now = Instant::now();
    let due = capture.check_due().map_or(wait, |due| due.saturating_duration_since(now));
    let descriptors = capture.descriptors()?;
    let mut polled: Vec<_> =
        descriptors.iter().map(|fd| fd.as_fd()).chain(other).map(readable).collect();
    let timeout = PollTimeout::try_from(wait.min(due)).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let now = Instant::now();
    if capture.check_due().is_some_and(|due| due <= now) {
        capture.check(now);
    }
    Ok(())
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}
