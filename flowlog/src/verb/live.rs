//! What verbs that show events live have in common: they show until a signal, the
//! time, a number of events or the end of their reader stops them, and read
//! nothing while the output is behind, so that what is too much is lost in the
//! queue of the capture, which the kernel counts.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(super) use self::lines::Lines;
use self::output::Output;
use super::interrupt::Interrupt;
use crate::capture::{Drained, Progress};
use crate::engine::rest::Rest;
use crate::netns::Named;
use crate::stats::{Counter, Stats};

mod lines;
pub(super) mod output;
pub(super) mod text;

/// How long a step waits at most: as often signals, the time and the reader of
/// the output are looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long the end goes on reading what has happened, and then writing it.
pub(super) const AT_EXIT: Duration = Duration::from_secs(2);
/// Messages shown on standard error: notices, warnings and graver ones.
pub(super) const LOGLEVEL: u8 = 5;
/// The same with `--quiet`: errors.
pub(super) const QUIET: u8 = 7;

/// Events that the programs refuse in the kernel.
const REFUSED: [Counter; 3] =
    [Counter::EbpfFilteredNetns, Counter::EbpfFilteredFlows, Counter::EbpfFilteredKinds];

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The time is over, or a signal has come: what has happened before is
    /// shown.
    Asked,
    /// As many events as were asked for have been shown.
    Enough,
    /// Nobody reads the output any more.
    Unread,
}

/// A capture, and what is shown of it.
pub(super) trait Live {
    /// Waits at most so long until there is something to drain.
    fn wait(&mut self, limit: Duration) -> io::Result<()>;

    /// Takes some of what has happened.
    fn drain(&mut self) -> io::Result<Progress>;

    /// Ends the capture, and takes all that is left.
    fn finish(&mut self) -> io::Result<()>;

    /// Events that can wait in the queue of the capture.
    fn queue_events(&self) -> usize;

    /// Puts out what has been made.
    fn flush(&mut self);

    /// What is put out.
    fn lines(&self) -> &Lines;
}

/// Shows what happens until there is a reason to end.
///
/// # Errors
/// A source cannot go on, or the namespace that was named is gone.
pub(super) fn show(
    live: &mut dyn Live,
    stdout: BorrowedFd<'_>,
    lasting: Option<Duration>,
    mut named: Option<Named>,
    interrupt: &Interrupt,
) -> io::Result<End> {
    let start = Instant::now();
    let mut rest = Rest::default();
    loop {
        let left = lasting.map_or(STEP, |lasting| lasting.saturating_sub(start.elapsed()));
        if interrupt.has_come()? || left.is_zero() {
            return Ok(End::Asked);
        }
        if live.lines().output.has_failed() || is_unread(stdout)? {
            return Ok(End::Unread);
        }
        let wait = STEP.min(left);
        if live.lines().output.is_behind() {
            live.lines().output.wait_for_room(wait);
            continue;
        }
        live.wait(wait)?;
        let progress = live.drain()?;
        live.flush();
        named.iter_mut().try_for_each(|named| named.look(Instant::now()))?;
        if live.lines().has_enough() {
            return Ok(End::Enough);
        }
        if progress.drained != Drained::More {
            rest.after(progress.messages, live.queue_events());
        }
    }
}

/// Takes what has happened before the end, unless nobody wants it.
pub(super) fn finish(live: &mut dyn Live, end: End) -> io::Result<()> {
    let wanted = end == End::Asked;
    let start = Instant::now();
    let mut more = wanted;
    while more && start.elapsed() < AT_EXIT && !live.lines().output.has_failed() {
        if live.lines().output.is_behind() {
            live.lines().output.wait_for_room(STEP);
        } else {
            more = live.drain()?.drained == Drained::More && !live.lines().has_enough();
            live.flush();
        }
    }
    // What nobody will see in time is counted all the same.
    let start = Instant::now();
    while more && start.elapsed() < AT_EXIT {
        more = live.drain()?.drained == Drained::More;
    }
    live.finish()?;
    live.flush();
    Ok(())
}

/// Whoever has closed the pipe has read enough.
///
/// # Errors
/// Standard output could not be written to.
pub(super) fn written(output: &Output) -> anyhow::Result<()> {
    match output.failed() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written to")
        }
        _ => Ok(()),
    }
}

/// What became of all events.
pub(super) fn summary(lines: &Lines, stats: &Stats) -> String {
    let refused: u64 = REFUSED.iter().map(|counter| stats.get(*counter)).sum();
    let (shown, filtered, lost) = (lines.shown(), lines.filtered + refused, lines.lost);
    format!("flowlog: {shown} events have been shown, {filtered} filtered, {lost} lost.")
}

/// Whether the other end of a pipe, a socket or a terminal has gone: an idle
/// host would not show it by a write that fails.
fn is_unread(stdout: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(stdout, PollFlags::empty())];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR)))
}
