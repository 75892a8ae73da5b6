//! What the engine does with a source that cannot be read, or that was opened
//! anew: it is tried again, its new descriptors are watched, and nothing of it
//! ends the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::{BUDGET, Feed, Source};
use crate::capture::netlink::now_ns;
use crate::capture::{Drained, Progress};
use crate::ratelimit::RateLimit;
use crate::source::Opened;

/// From a failure to the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// Drains of a capture that is left: its queue is shorter, as its namespace has gone.
const LEFT_BEHIND: usize = 256;

/// Nothing was read.
const NOTHING: Progress = Progress { messages: 0, drained: Drained::Later };

/// What went wrong with reading a source.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Its descriptors are others than those that are watched.
    pub(super) renewed: bool,
    /// Why it cannot be read.
    failure: Option<String>,
    /// When it is tried again.
    again: Option<Instant>,
}

impl Recovery {
    /// It is not yet time to try again.
    pub(super) fn waits(&self, now: Instant) -> bool {
        self.failure.is_some() && self.again.is_some_and(|again| now < again)
    }

    /// When it is tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Takes what came of reading.
    pub(super) fn after(
        &mut self,
        drained: io::Result<Progress>,
        id: &str,
        complaints: &mut RateLimit,
    ) -> Progress {
        match drained {
            Ok(progress) => {
                (self.failure, self.again) = (None, None);
                progress
            }
            Err(error) => {
                if complaints.allow() {
                    warn!("[{id}] events cannot be read: {error}; it is tried again every second");
                }
                self.failure = Some(error.to_string());
                self.again = Some(Instant::now() + AGAIN);
                NOTHING
            }
        }
    }
}

impl Source {
    /// As [`Source::drain`]; a capture that fails is drained again later.
    pub(super) fn drain_or_wait(&mut self, budget: usize, complaints: &mut RateLimit) -> Progress {
        if self.recovery.waits(Instant::now()) {
            return NOTHING;
        }
        let drained = self.drain(budget);
        self.recovery.renewed |= self.capture.take_renewed();
        self.recovery.after(drained, &self.id, complaints)
    }

    /// What keeps this source from being read, in one line; absent: nothing.
    pub(super) fn trouble(&self) -> Option<String> {
        let failure = self.recovery.failure.as_ref();
        let failure = failure.map(|why| format!("events cannot be read: {why}; see its log"));
        let place = self.place.as_ref().and_then(|place| place.trouble(Instant::now()));
        let trouble = place.or_else(|| self.capture.health()).or(failure)?;
        Some(format!("{}: {trouble}", self.id))
    }

    /// When it is read dry, nothing that happened before is unknown: each loss is counted, and its
    /// namespace is there.
    pub(super) fn is_complete(&self) -> bool {
        let is_sure = self.place.as_ref().is_none_or(|place| place.is_sure(Instant::now()));
        is_sure && self.capture.knows_losses()
    }

    /// Looks whether the name of the namespace stands for another one.
    pub(super) fn look_at_place(&mut self, now: Instant) {
        if let Some(opened) = self.place.as_mut().and_then(|place| place.look(now)) {
            self.move_to(opened);
        }
    }

    /// Ends what is captured, and goes on with what was opened.
    fn move_to(&mut self, opened: Opened) {
        let mut feed = Feed { nfct: &mut self.nfct, stacks: &mut self.stacks };
        // What is queued happened before.
        for _ in 0..LEFT_BEHIND {
            match self.capture.drain(BUDGET, &mut feed) {
                Ok(Progress { drained: Drained::More, .. }) => {}
                Ok(_) | Err(_) => break,
            }
        }
        if let Err(error) = self.capture.finish(&mut feed) {
            warn!("[{}] the last events cannot be read: {error}", self.id);
        }
        self.nfct.begin_anew(opened.nfct, now_ns(), &mut self.stacks);
        self.capture = opened.capture;
        self.table = opened.table;
        self.by = opened.by;
        self.activation = opened.activation;
        self.recovery = Recovery { renewed: true, ..Recovery::default() };
    }
}

/// Watches the descriptors of a source in place of those that it had before.
///
/// # Errors
/// The process has too many open files, or the kernel refuses to watch one.
pub(super) fn watch(
    index: usize,
    source: &mut Source,
    watched: &mut Vec<(usize, AsyncFd<OwnedFd>)>,
) -> io::Result<()> {
    watched.retain(|(of, _)| *of != index);
    for descriptor in source.capture.descriptors()? {
        watched.push((index, readable(descriptor)?));
    }
    source.recovery.renewed = false;
    Ok(())
}

/// The same where they are others than before.
pub(super) fn watch_again(
    index: usize,
    source: &mut Source,
    watched: &mut Vec<(usize, AsyncFd<OwnedFd>)>,
    complaints: &mut RateLimit,
) {
    if !source.recovery.renewed {
        return;
    }
    if let Err(error) = watch(index, source, watched) {
        if complaints.allow() {
            warn!(
                "[{}] its sockets cannot be watched: {error}; they are read every second",
                source.id
            );
        }
        source.recovery.again = Some(Instant::now() + AGAIN);
    }
}

#[expect(unsafe_code, reason = "tokio leaves the safety of descriptors to its caller")]
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor, the same as long as it
    // lives, and nothing else closes it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
