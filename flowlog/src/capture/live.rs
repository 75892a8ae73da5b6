//! A capture at work for a verb that watches it in steps, without the engine:
//! it waits, and looks at its signals and its time between two steps.

use std::io;
use std::os::fd::AsFd as _;
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
    let now = Instant::now();
    let due = capture.check_due().map_or(wait, |due| due.saturating_duration_since(now));
    let descriptors = capture.descriptors()?;
    let mut polled: Vec<_> =
        descriptors.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
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
