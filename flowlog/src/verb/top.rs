//! `flowlog top`: what this host's connections do, as a screen that is drawn anew
//! with each interval. It has a capture of its own, beside whatever logs on this
//! host.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::termion::terminal_size;
use tracing::warn;

use self::draw::{About, Screen};
use self::picture::{Losses, Picture};
use self::shown::Shown;
use self::tally::Tally;
use self::view::{Act, View};
use super::check::print;
use super::interrupt::Interrupt;
use super::listening::Listening;
use super::watch::When;
use crate::capture::live::{self, BUDGET};
use crate::capture::{Capture, Drained};
use crate::config::{CaptureChoice, LogTarget, NetnsScope, Source};
use crate::engine::rest::Rest;
use crate::kernel::TableFill;
use crate::log::{self, notice};
use crate::netns::Named;
use crate::source::{self, Opened};
use crate::stats::Stats;

mod counts;
mod draw;
mod heavy;
mod key;
mod numbers;
mod once;
mod picture;
mod shown;
mod table;
mod tally;
mod terminal;
mod view;

/// How long a step waits at most: as often signals, keys and the size of the
/// terminal are looked at.
const STEP: Duration = Duration::from_millis(100);
/// How long the end reads what has happened.
const AT_EXIT: Duration = Duration::from_secs(1);
/// Messages shown: notices, warnings and graver ones.
const LOGLEVEL: u8 = 5;
/// Columns of the text where there is no terminal to ask.
const WIDTH: u16 = 100;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which events, and where from.
    pub listening: Listening,
    /// Between two pictures.
    pub interval: Duration,
    /// End after this time.
    pub lasting: Option<Duration>,
    /// Print one picture as text, instead of a screen.
    pub once: bool,
    /// When the text has colours.
    pub color: When,
}

/// Shows the screen until it is told to end, or prints it once.
///
/// The exit code is 2 when the options do not go together or there is no
/// terminal for a screen, else 0.
///
/// # Errors
/// The capture cannot be had or cannot go on, or standard output cannot be
/// written to; a closed pipe is no error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let source = match usable(options) {
        Ok(source) => source,
        Err(why) => {
            writeln!(io::stderr(), "flowlog: {why}")?;
            return Ok(ExitCode::from(2));
        }
    };
    log::start(&LogTarget::Stderr, LOGLEVEL, false)?;
    let interrupt = Interrupt::block().context("signals cannot be waited for")?;
    let stats = Stats::default();
    // The rule that has the kernel track connections is held until the end.
    let Opened { mut capture, activation: _activation, by, table, .. } =
        source::open(&source, &stats, Duration::ZERO)?;
    let mut top = Top::new(options, &source, by, table, stats);
    if options.once {
        notice!("flowlog top listens {}", top.about.by);
        top.watch(capture.as_mut(), options.lasting.or(Some(options.interval)), &interrupt, None)
            .context("events can no longer be read")?;
        top.finish(capture.as_mut()).context("the last events cannot be read")?;
        let text = top.text(options.color);
        print(&text).context("standard output cannot be written to")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = Shown::new().context("the terminal cannot be had")?;
    let ended = top.watch(capture.as_mut(), options.lasting, &interrupt, Some(&mut shown));
    // What has gone wrong is told on the screen that was there before.
    drop(shown);
    ended.context("events can no longer be read")?;
    Ok(ExitCode::SUCCESS)
}

/// The source, if it can be shown.
fn usable(options: &Options) -> Result<Source, String> {
    if !options.once && !io::stdout().is_terminal() {
        return Err("standard output is no terminal; give --once for one screen as text".to_owned());
    }
    options.listening.source("top")
}

/// What is counted, and how it is looked at.
struct Top {
    tally: Tally,
    picture: Picture,
    losses: Losses,
    view: View,
    about: About,
    fill: TableFill,
    /// The namespace that the command line names.
    named: Option<Named>,
    interval: Duration,
    /// When the interval has begun.
    begin: Instant,
}

impl Top {
    fn new(options: &Options, source: &Source, by: String, fill: TableFill, stats: Stats) -> Self {
        let selection = &options.listening.selection;
        let ebpf = picture::is_by_ebpf(&stats);
        if !ebpf && source.capture == CaptureChoice::Netlink && options.once {
            warn!("[{}] {}", source.id, super::listening::UNTOLD_BY_NETLINK);
        }
        let place = match (&source.netns, ebpf) {
            (NetnsScope::All, true) => "all network namespaces".to_owned(),
            (NetnsScope::Path(path), _) => format!("network namespace {}", path.display()),
            (NetnsScope::All | NetnsScope::Own, _) => "this network namespace".to_owned(),
        };
        Self {
            tally: Tally::new(selection.clone()),
            picture: Picture::default(),
            losses: Losses::new(stats),
            view: View { totals: options.once, ..View::default() },
            about: About {
                by,
                place,
                every: (!options.once).then_some(options.interval),
                kinds: selection.mask(),
                ebpf,
                message: None,
            },
            fill,
            named: Named::of(source.netns.path()),
            interval: options.interval,
            begin: Instant::now(),
        }
    }

    /// Counts what happens, and shows it, until there is a reason to end.
    fn watch(
        &mut self,
        capture: &mut dyn Capture,
        lasting: Option<Duration>,
        interrupt: &Interrupt,
        mut shown: Option<&mut Shown>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let mut rest = Rest::default();
        self.begin = start;
        self.picture.look(&mut self.losses, &self.fill);
        let mut changed = true;
        loop {
            let left = lasting.map_or(STEP, |lasting| lasting.saturating_sub(start.elapsed()));
            if interrupt.has_come()? || left.is_zero() {
                return Ok(());
            }
            if let Some(shown) = shown.as_deref_mut()
                && !self.serve(shown, &mut changed)?
            {
                return Ok(());
            }
            let due = self.interval.saturating_sub(self.begin.elapsed());
            let keys = shown.as_deref().and_then(|shown| shown.keyboard.descriptor());
            live::wait_for(capture, keys, STEP.min(left).min(due))?;
            let progress = capture.drain(BUDGET, &mut self.tally)?;
            self.named.iter_mut().try_for_each(|named| named.look(Instant::now()))?;
            // The text is made of all there was.
            if shown.is_some() && self.begin.elapsed() >= self.interval {
                changed |= self.end_interval();
            }
            if progress.drained != Drained::More {
                rest.after(progress.messages, capture.queue_events());
            }
        }
    }

    /// Takes keys and draws; false when it is enough.
    fn serve(&mut self, shown: &mut Shown, changed: &mut bool) -> io::Result<bool> {
        let mut typed = [0; 64];
        let length = shown.keyboard.typed(&mut typed)?;
        *changed |= length > 0;
        for act in self.view.typed(&typed[..length]) {
            match act {
                Act::Quit => return Ok(false),
                Act::Reset => self.reset(),
            }
        }
        *changed |= shown.is_resized();
        if *changed {
            self.about.message = log::last_held();
            *changed = !shown.draw(&self.screen())?;
        }
        Ok(!shown.output.has_failed())
    }

    /// Tells whether the picture is another one.
    fn end_interval(&mut self) -> bool {
        if self.view.paused {
            return false;
        }
        let interval = self.begin.elapsed();
        self.begin += interval;
        self.picture.take(&mut self.tally, interval);
        self.picture.look(&mut self.losses, &self.fill);
        true
    }

    fn reset(&mut self) {
        self.tally.clear();
        self.losses.clear();
        self.picture = Picture::default();
        self.picture.look(&mut self.losses, &self.fill);
        self.begin = Instant::now();
    }

    /// Takes what has happened before the end, as one last interval.
    fn finish(&mut self, capture: &mut dyn Capture) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < AT_EXIT
            && capture.drain(BUDGET, &mut self.tally)?.drained == Drained::More
        {}
        capture.finish(&mut self.tally)?;
        self.view.paused = false;
        self.end_interval();
        Ok(())
    }

    fn screen(&self) -> Screen<'_> {
        Screen {
            about: &self.about,
            picture: &self.picture,
            view: &self.view,
            names: &self.tally.names,
        }
    }

    /// The picture as text.
    fn text(&self, color: When) -> String {
        let stdout = io::stdout();
        let width =
            if stdout.is_terminal() { terminal_size().map_or(WIDTH, |s| s.0) } else { WIDTH };
        once::text(&self.screen(), width, color.paints(&stdout))
    }
}

#[cfg(test)]
mod tests;
