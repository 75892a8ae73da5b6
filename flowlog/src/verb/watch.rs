//! `flowlog watch`: events live on the terminal. It has a capture of its own,
//! beside whatever logs on this host; what it cannot show in time is dropped in
//! its own queue, and told.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tracing::warn;

pub use self::colour::When;
pub use self::filter::Selection;
pub use self::view::Format;
use self::view::View;
use super::interrupt::Interrupt;
use super::listening::{Listening, UNTOLD_BY_NETLINK};
use super::live::output::Output;
use super::live::{self, AT_EXIT, End, LOGLEVEL, Lines, Live, QUIET};
use crate::capture::live::{BUDGET, wait};
use crate::capture::{Capture, Progress};
use crate::config::{CaptureChoice, LogTarget};
use crate::log::{self, notice};
use crate::netns::Named;
use crate::source::{self, Opened};
use crate::stats::Stats;
use crate::zone;

pub(in crate::verb) mod colour;
mod extended;
pub(in crate::verb) mod filter;
pub(in crate::verb) mod json;
pub(in crate::verb) mod line;
pub(in crate::verb) mod names;
mod starts;
mod view;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How events are shown.
    pub format: Format,
    /// Which events are shown, and where they come from.
    pub listening: Listening,
    /// When colours are used.
    pub color: When,
    /// End after this time.
    pub lasting: Option<Duration>,
    /// End after this many events.
    pub count: Option<u64>,
    /// Say nothing on standard error but errors.
    pub quiet: bool,
}

/// Shows events on standard output until it is told to end.
///
/// The exit code is 2 when the options do not go together, else 0.
///
/// # Errors
/// The capture cannot be had or cannot go on, or standard output cannot be
/// written to; a closed pipe is no error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let source = match options.listening.source("watch") {
        Ok(source) => source,
        Err(why) => {
            writeln!(io::stderr(), "flowlog: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    log::start(&LogTarget::Stderr, if options.quiet { QUIET } else { LOGLEVEL }, false)?;
    zone::follow().context("the time zone cannot be followed")?;
    let interrupt = Interrupt::block().context("signals cannot be waited for")?;
    if source.capture == CaptureChoice::Netlink {
        warn!("[{}] {UNTOLD_BY_NETLINK}", source.id);
    }
    let stats = Stats::default();
    // The rule that has the kernel track connections is held until the end.
    let Opened { mut capture, activation: _activation, by, .. } =
        source::open(&source, &stats, Duration::ZERO)?;
    let named = Named::of(source.netns.path());
    notice!("flowlog watches {by}");
    let stdout = io::stdout();
    let file = File::from(stdout.as_fd().try_clone_to_owned()?);
    let paint = options.color.paints(&stdout);
    let mut view = View::new(options, paint, Output::new(file)?);
    let end =
        watch(capture.as_mut(), &mut view, stdout.as_fd(), options.lasting, named, &interrupt)
            .context("events can no longer be read")?;
    // Who does not want to wait for the rest may signal again.
    drop(interrupt);
    if end == End::Unread {
        live::written(&view.lines.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    finish(capture.as_mut(), &mut view, end).context("the last events cannot be read")?;
    view.lines.close(AT_EXIT);
    live::written(&view.lines.output)?;
    if !options.quiet {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{}", summary(&view, &stats));
    }
    Ok(ExitCode::SUCCESS)
}

/// A capture, and what is shown of it.
struct Watched<'a> {
    capture: &'a mut dyn Capture,
    view: &'a mut View,
}

impl Live for Watched<'_> {
    fn wait(&mut self, limit: Duration) -> io::Result<()> {
        wait(self.capture, limit)
    }

    fn drain(&mut self) -> io::Result<Progress> {
        self.capture.drain(BUDGET, self.view)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.capture.finish(self.view)
    }

    fn queue_events(&self) -> usize {
        self.capture.queue_events()
    }

    fn flush(&mut self) {
        self.view.flush();
    }

    fn lines(&self) -> &Lines {
        &self.view.lines
    }
}

/// Shows what happens until there is a reason to end.
fn watch(
    capture: &mut dyn Capture,
    view: &mut View,
    stdout: BorrowedFd<'_>,
    lasting: Option<Duration>,
    named: Option<Named>,
    interrupt: &Interrupt,
) -> io::Result<End> {
    live::show(&mut Watched { capture, view }, stdout, lasting, named, interrupt)
}

/// Takes what has happened before the end, unless nobody wants it.
fn finish(capture: &mut dyn Capture, view: &mut View, end: End) -> io::Result<()> {
    live::finish(&mut Watched { capture, view }, end)
}

fn summary(view: &View, stats: &Stats) -> String {
    live::summary(&view.lines, stats)
}

#[cfg(test)]
pub(in crate::verb) mod tests;
