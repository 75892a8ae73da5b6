//! Records to a pipe, a FIFO or a terminal, whose reader may be slow or away. The loop never
//! waits for the reader: records do, up to a bound. A record counts as written when it was read,
//! as far as the kernel says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{info, warn};

use super::append::{self, Identity, Opened};
use super::backlog::Backlog;
use super::pipe::{ATOMIC, Pipe};
use super::{CHUNK, Counted};
use crate::ratelimit::RateLimit;
use crate::stats::Measure;

/// How often a reader that is away is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that are written in a turn: a reader that keeps up must not keep the loop.
const TURN: usize = 1 << 20;
/// From an attempt that found no room to the next; each that finds none doubles it.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(500);

/// A pipe, and the records for its reader.
pub struct StreamOutput {
    path: PathBuf,
    /// Absent until a reader has opened the FIFO.
    pipe: Option<Pipe>,
    /// Nobody reads: not tried before then.
    away: Option<Instant>,
    /// There was no room: not tried before then, and how long that is.
    full: Option<(Instant, Duration)>,
    backlog: Backlog,
    buffer_max: usize,
    complaints: RateLimit,
    counted: Counted,
}

impl StreamOutput {
    /// Takes what was opened at `path`; `None`: a FIFO without a reader.
    pub(super) fn new(
        path: PathBuf,
        pipe: Option<Pipe>,
        buffer_max: usize,
        counted: Counted,
    ) -> Self {
        if pipe.is_none() {
            warn!(
                "{} has no reader: up to {buffer_max} bytes wait for one, what is more is lost and \
                 counted. Start what reads it",
                path.display()
            );
        }
        Self {
            path,
            away: pipe.is_none().then(Instant::now),
            pipe,
            full: None,
            backlog: Backlog::new(),
            buffer_max,
            complaints: RateLimit::per_second(),
            counted,
        }
    }

    /// Takes a record in two parts.
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        let length = front.len() + rest.len();
        if self.backlog.len() + length > self.buffer_max {
            self.write();
            // A record longer than the buffer is taken too.
            if !self.backlog.is_empty() && self.backlog.len() + length > self.buffer_max {
                self.counted.stats.add(Measure::Lost, 1);
                return;
            }
        }
        self.backlog.push(front, rest);
        if self.backlog.unsent().len() > CHUNK {
            self.write();
        }
    }

    /// Ends a batch: what has gathered is written, as far as there is room.
    pub fn flush(&mut self) {
        if !self.backlog.is_empty() {
            self.write();
        }
    }

    /// See [`super::Output::retry_in`].
    pub fn retry_in(&self) -> Option<Duration> {
        if self.backlog.is_empty() {
            return None;
        }
        let at = self.away.or(self.full.map(|(at, _)| at));
        Some(at.map_or(RETRY, |at| at.saturating_duration_since(Instant::now())))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`super::Output::fill`].
    pub fn fill(&self) -> (usize, usize) {
        (self.backlog.len(), self.buffer_max)
    }

    /// Nobody reads.
    pub fn is_failing(&self) -> bool {
        self.away.is_some()
    }

    /// See [`super::Output::close`].
    pub fn close(&mut self) {
        (self.away, self.full) = (None, None);
        self.write();
        if self.pipe.as_ref().is_some_and(Pipe::has_reader) {
            // The kernel keeps for the reader what it has taken.
            self.release(self.backlog.in_flight());
        }
        let records = self.backlog.records();
        if records > 0 {
            let Counted { noun, stats } = &self.counted;
            stats.add(Measure::Lost, records);
            warn!("{records} {noun} for {} are lost at exit", self.path.display());
            self.backlog = Backlog::new();
        }
    }

    /// Looks whether another file stands at the path, and tries at once.
    pub fn reopen(&mut self) {
        (self.away, self.full) = (self.away.map(|_| Instant::now()), None);
        self.open_anew();
        self.flush();
    }

    /// Opens what stands at the path, unless it is what is open.
    fn open_anew(&mut self) {
        let same = || {
            let open = self.pipe.as_ref()?.identity().ok()?;
            let there = Identity::of(&self.path.metadata().ok()?);
            Some(open == there)
        };
        if is_inherited(&self.path) || same() == Some(true) {
            return;
        }
        match append::open_what_is_there(&self.path) {
            Ok(Opened::Pipe(pipe)) => {
                if self.pipe.replace(pipe).is_some() {
                    self.replaced();
                }
            }
            Ok(Opened::Awaited) => {
                if self.pipe.take().is_some() {
                    self.replaced();
                    self.left(Errno::EPIPE);
                }
            }
            Ok(Opened::File(_)) => self.unusable(&"a file stands there now; restart flowlog"),
            Err(error) => self.unusable(&error),
        }
    }

    fn replaced(&mut self) {
        let stats = &self.counted.stats;
        stats.add(Measure::Replaced, 1);
        stats.add(Measure::Repeated, self.backlog.rewind());
        info!("{} was replaced and is opened anew", self.path.display());
    }

    fn unusable(&mut self, why: &dyn std::fmt::Display) {
        if self.complaints.allow() {
            warn!("{} cannot be opened anew: {why}", self.path.display());
        }
    }

    fn write(&mut self) {
        let now = Instant::now();
        if self.away.is_some_and(|at| now < at) || self.full.is_some_and(|(at, _)| now < at) {
            return;
        }
        if self.away.is_some() {
            self.away = Some(now + RETRY);
            self.open_anew();
        }
        self.confirm();
        if let Some(result) = self.send() {
            match result {
                // The rest with the next turn, which comes at once.
                Ok(()) => {
                    let rest = !self.backlog.unsent().is_empty();
                    self.full = rest.then_some((now, SOON));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => self.crowded(now),
                Err(errno) => self.left(errno),
            }
        }
        self.confirm();
    }

    /// Writes until there is no room; absent: nothing is open.
    fn send(&mut self) -> Option<nix::Result<()>> {
        let Self { pipe, backlog, away, path, .. } = self;
        let pipe = pipe.as_ref()?;
        let mut left = TURN;
        loop {
            let batch = backlog.next_batch(ATOMIC);
            if batch.is_empty() || left == 0 {
                return Some(Ok(()));
            }
            left = left.saturating_sub(batch.len());
            match pipe.write(batch) {
                Ok(count) => backlog.advance(count),
                Err(errno) => return Some(Err(errno)),
            }
            if away.take().is_some() {
                info!("{} is read again", path.display());
            }
        }
    }

    fn crowded(&mut self, now: Instant) {
        let pause = self.full.map_or(SOON, |(_, pause)| (pause * 2).min(LATE));
        self.full = Some((now + pause, pause));
    }

    /// Counts as written what was read.
    fn confirm(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let sent = self.backlog.in_flight();
        if sent > 0 {
            self.release(sent.saturating_sub(pipe.unread()));
        }
    }

    fn release(&mut self, bytes: usize) {
        let (records, bytes) = self.backlog.release(bytes);
        if records > 0 {
            self.counted.stats.add(Measure::Records, records);
            self.counted.stats.add(Measure::Bytes, bytes);
            self.full = self.full.map(|(at, _)| (at, SOON));
        }
    }

    /// The reader has gone. The pipe is kept: what was not read is for the next reader.
    #[cold]
    fn left(&mut self, errno: Errno) {
        let known = self.away.replace(Instant::now() + RETRY).is_some();
        if known && errno == Errno::EPIPE {
            return;
        }
        self.counted.stats.add(Measure::Errors, 1);
        if self.complaints.allow() {
            let why = if errno == Errno::EPIPE { "its reader has gone" } else { errno.desc() };
            warn!(
                "{} cannot be written: {why}; {} bytes wait. Start what reads it",
                self.path.display(),
                self.backlog.len()
            );
        }
    }
}

/// It is this process's own output, which cannot be opened by name again.
fn is_inherited(path: &Path) -> bool {
    matches!(path.to_str(), Some("/dev/stdout" | "/dev/stderr"))
}

#[cfg(test)]
mod tests;
