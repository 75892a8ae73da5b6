//! A comparison without a log: the steps of `flowlog audit`.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Auditable, CrossCapture, Report};
use crate::capture::{Capture as _, Drained, RecordSink};
use crate::event::Record;

/// Messages taken from each source at a time.
const BUDGET: usize = 4096;

/// Takes what would be logged.
struct Nobody;

impl RecordSink for Nobody {
    fn record(&mut self, _: Record<'_>) {}
}

impl Auditable for CrossCapture {
    fn step(&mut self, wait: Duration) -> io::Result<()> {
        let now = Instant::now();
        let due = self.check_due().map_or(wait, |due| due.saturating_duration_since(now));
        let descriptors = self.descriptors()?;
        let mut polled: Vec<_> =
            descriptors.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(wait.min(due)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.check(Instant::now());
        while self.drain(BUDGET, &mut Nobody)?.drained == Drained::More {}
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        crate::capture::Capture::finish(self, &mut Nobody)?;
        self.before_totals();
        Ok(())
    }

    fn report(&self) -> Report {
        Self::report(self)
    }
}
