//! `flowlog watch`: events live on the terminal. It has a capture of its own,
//! beside whatever logs on this host; what it cannot show in time is dropped in
//! its own queue, and told.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

pub use self::colour::When;
pub use self::filter::Selection;
use self::output::Output;
pub use self::view::Format;
use self::view::View;
use super::interrupt::Interrupt;
use crate::capture::live::{self, BUDGET};
use crate::capture::{Capture, Drained};
use crate::config::{Attach, CaptureChoice, LogTarget, NetnsScope, Source, Wanted};
use crate::engine::rest::Rest;
use crate::log::{self, notice};
use crate::source::{self, Opened};
use crate::stats::{Counter, Stats};

mod colour;
mod extended;
mod filter;
mod json;
mod line;
mod names;
mod output;
mod starts;
mod view;

/// How long a step waits at most: as often signals, the time and the reader of
/// the output are looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long the end goes on reading what has happened, and then writing it.
const AT_EXIT: Duration = Duration::from_secs(2);
/// Messages shown on standard error: notices, warnings and graver ones.
const LOGLEVEL: u8 = 5;
/// The same with `--quiet`: errors.
const QUIET: u8 = 7;
/// Events that the programs refuse in the kernel.
const REFUSED: [Counter; 3] =
    [Counter::EbpfFilteredNetns, Counter::EbpfFilteredFlows, Counter::EbpfFilteredKinds];

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How events are shown.
    pub format: Format,
    /// Which events are shown.
    pub selection: Selection,
    /// When colours are used.
    pub color: When,
    /// Of which namespaces; absent: of all that the capture can see.
    pub netns: Option<NetnsScope>,
    /// Where events come from.
    pub capture: CaptureChoice,
    /// How eBPF is attached.
    pub attach: Attach,
    /// End after this time.
    pub lasting: Option<Duration>,
    /// End after this many events.
    pub count: Option<u64>,
    /// Say nothing on standard error but errors.
    pub quiet: bool,
    /// Make the kernel track connections meanwhile.
    pub activate: bool,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
    /// The receive buffer of netlink, bytes: at start and at most.
    pub netlink_buffer: (usize, usize),
}

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The time is over, or a signal has come: what has happened before is
    /// shown.
    Asked,
    /// As many events as were asked for have been shown.
    Enough,
    /// Nobody reads the output any more.
    Unread,
}

/// Shows events on standard output until it is told to end.
///
/// The exit code is 2 when the options do not go together, else 0.
///
/// # Errors
/// The capture cannot be had or cannot go on, or standard output cannot be
/// written to; a closed pipe is no error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let source = match source_of(options) {
        Ok(source) => source,
        Err(why) => {
            writeln!(io::stderr(), "flowlog: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    log::start(&LogTarget::Stderr, if options.quiet { QUIET } else { LOGLEVEL }, false)?;
    let interrupt = Interrupt::block().context("signals cannot be waited for")?;
    if source.capture == CaptureChoice::Netlink {
        warn!(
            "[{}] netlink tells no causes of ends, no processes and no flows of other network \
             namespaces",
            source.id
        );
    }
    let stats = Stats::default();
    // The rule that has the kernel track connections is held until the end.
    let Opened { mut capture, activation: _activation, by, .. } = source::open(&source, &stats)?;
    notice!("flowlog watches {by}");
    let stdout = io::stdout();
    let file = File::from(stdout.as_fd().try_clone_to_owned()?);
    let paint = options.color.paints(&stdout);
    let mut view = View::new(options, paint, Output::new(file)?);
    let end = watch(capture.as_mut(), &mut view, stdout.as_fd(), options.lasting, &interrupt)
        .context("events can no longer be read")?;
    // Who does not want to wait for the rest may signal again.
    drop(interrupt);
    if end == End::Unread {
        return view.output.failed().map_or(Ok(ExitCode::SUCCESS), unwritable);
    }
    finish(capture.as_mut(), &mut view, end).context("the last events cannot be read")?;
    view.close(AT_EXIT);
    if let Some(error) = view.output.failed() {
        return unwritable(error);
    }
    if !options.quiet {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{}", summary(&view, &stats));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever has closed the pipe has read enough.
fn unwritable(error: io::Error) -> anyhow::Result<ExitCode> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(ExitCode::SUCCESS);
    }
    Err(error).context("standard output cannot be written to")
}

/// The source that has what is to be shown.
fn source_of(options: &Options) -> Result<Source, String> {
    let Options { selection, netns, capture, attach, .. } = options;
    selection.check()?;
    let needs_ebpf = selection.needs_ebpf();
    let capture = match capture {
        CaptureChoice::Netlink if needs_ebpf => {
            return Err("netlink does not tell why a flow has ended, so `--cause` and \
                        `--event gc` cannot be had; leave out --capture"
                .to_owned());
        }
        // What is asked for by name is not left out in silence.
        CaptureChoice::Auto if needs_ebpf => CaptureChoice::Ebpf,
        other => *other,
    };
    Source::by_command_line(Wanted {
        id: "watch".to_owned(),
        mask: selection.mask(),
        filter: selection.pushed_down(),
        capture,
        attach: *attach,
        netns: netns.clone(),
        ring_buffer: options.ring_buffer,
        buffer: options.netlink_buffer,
        activate: options.activate,
    })
}

/// Shows what happens until there is a reason to end. While the output is
/// behind nothing is read, so that what is too much is lost in the queue of the
/// capture, which the kernel counts.
fn watch(
    capture: &mut dyn Capture,
    view: &mut View,
    stdout: BorrowedFd<'_>,
    lasting: Option<Duration>,
    interrupt: &Interrupt,
) -> io::Result<End> {
    let start = Instant::now();
    let mut rest = Rest::default();
    loop {
        let left = lasting.map_or(STEP, |lasting| lasting.saturating_sub(start.elapsed()));
        if interrupt.has_come()? || left.is_zero() {
            return Ok(End::Asked);
        }
        if view.output.has_failed() || is_unread(stdout)? {
            return Ok(End::Unread);
        }
        let wait = STEP.min(left);
        if view.output.is_behind() {
            view.output.wait_for_room(wait);
            continue;
        }
        live::wait(capture, wait)?;
        let progress = capture.drain(BUDGET, view)?;
        view.flush();
        if view.has_enough() {
            return Ok(End::Enough);
        }
        if progress.drained == Drained::Dry {
            rest.after(progress.messages, capture.queue_events());
        }
    }
}

/// Takes what has happened before the end, unless nobody wants it.
fn finish(capture: &mut dyn Capture, view: &mut View, end: End) -> io::Result<()> {
    let wanted = end == End::Asked;
    let start = Instant::now();
    let mut more = wanted;
    while more && start.elapsed() < AT_EXIT && !view.output.has_failed() {
        if view.output.is_behind() {
            view.output.wait_for_room(STEP);
        } else {
            more = capture.drain(BUDGET, view)?.drained == Drained::More && !view.has_enough();
            view.flush();
        }
    }
    // What nobody will see in time is counted all the same.
    let start = Instant::now();
    while more && start.elapsed() < AT_EXIT {
        more = capture.drain(BUDGET, view)?.drained == Drained::More;
    }
    capture.finish(view)?;
    view.flush();
    Ok(())
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

fn summary(view: &View, stats: &Stats) -> String {
    let refused: u64 = REFUSED.iter().map(|counter| stats.get(*counter)).sum();
    let (shown, filtered, lost) = (view.shown(), view.filtered() + refused, view.lost());
    format!("flowlog: {shown} events have been shown, {filtered} filtered, {lost} lost.")
}

#[cfg(test)]
mod tests;
