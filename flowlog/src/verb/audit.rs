//! `flowlog audit`: eBPF and netlink side by side for a while. No flow is
//! logged; what they tell is compared, and the differences are reported.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use self::progress::Progress;
use super::check::print;
use super::interrupt::Interrupt;
use crate::capture::crosscheck::{Auditable, Report};
use crate::config::{Attach, LogTarget};
use crate::log;
use crate::netns::{self, Named};
use crate::stats::Stats;

mod json;
mod progress;
mod text;

/// How long a step waits for events at most: as often signals and the time are
/// looked at.
const STEP: Duration = Duration::from_millis(100);
/// Messages shown on standard error: notices, warnings and graver ones.
const LOGLEVEL: u8 = 5;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the sources are compared.
    pub lasting: Duration,
    /// The namespace, a name or path; absent: the current one.
    pub netns: Option<PathBuf>,
    /// One JSON object instead of text.
    pub json: bool,
    /// How eBPF is attached.
    pub attach: Attach,
    /// How long an event waits for the other source's word.
    pub window: Duration,
    /// Events that wait at most.
    pub max_pending: usize,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
    /// The receive buffer of netlink, bytes: at start and at most.
    pub netlink_buffer: (usize, usize),
}

/// Compares, and reports on standard output.
///
/// The exit code is 1 when a difference is left that no loss explains, else 0.
///
/// # Errors
/// A source cannot be had or cannot go on, or standard output cannot be written
/// to; a closed pipe is no error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    log::start(&LogTarget::Stderr, LOGLEVEL, false)?;
    let interrupt = Interrupt::block().context("signals cannot be waited for")?;
    let stats = Stats::default();
    let mut audited = open(options, &stats)?;
    let named = Named::of(options.netns.as_deref());
    let terminal = io::stderr().is_terminal();
    let progress = terminal.then(|| Progress::new(io::stderr(), options.lasting));
    let report = watch(audited.as_mut(), options.lasting, named, interrupt, progress)
        .context("events can no longer be compared")?;
    let text =
        if options.json { format!("{}\n", json::object(&report)) } else { text::report(&report) };
    print(&text).context("standard output cannot be written to")?;
    Ok(exit_code(&report))
}

fn exit_code(report: &Report) -> ExitCode {
    ExitCode::from(u8::from(report.unexplained() > 0))
}

/// Opens both sources in the namespace that is asked for.
fn open(options: &Options, stats: &Stats) -> anyhow::Result<Box<dyn Auditable>> {
    let path = options.netns.as_deref().map(netns::resolve);
    netns::within(path.as_deref(), || open_here(options, stats))?
        .context("eBPF and netlink cannot be compared")
}

#[cfg(not(feature = "ebpf"))]
fn open_here(_: &Options, _: &Stats) -> anyhow::Result<Box<dyn Auditable>> {
    anyhow::bail!("this flowlog was built without eBPF; build it with the feature ebpf")
}

/// All events of all flows are compared.
#[cfg(feature = "ebpf")]
fn open_here(options: &Options, stats: &Stats) -> anyhow::Result<Box<dyn Auditable>> {
    use crate::capture::crosscheck::{CrossCapture, Schedule, Settings, Sources};
    use crate::capture::filter::Filter;
    use crate::capture::{ebpf, netlink};
    use crate::event::Kinds;

    let own = netns::current().context("the namespace has no number")?;
    let sources = Sources {
        ebpf: ebpf::Settings {
            mask: Kinds::all(),
            tracked: false,
            filter: Filter::default(),
            attach: options.attach,
            ring: options.ring_buffer,
            netns: Some(own),
            own_netns: own,
            all_updates: true,
            traced: None,
            retried: false,
        },
        netlink: netlink::Settings {
            groups: Vec::new(),
            buffer: options.netlink_buffer.0,
            buffer_max: options.netlink_buffer.1,
            reliable: false,
            filter: Filter::default(),
        },
        settings: Settings {
            window: options.window,
            max_pending: options.max_pending,
            schedule: Schedule::Always,
        },
    };
    Ok(Box::new(CrossCapture::open(sources, stats.clone())?))
}

/// Compares until the time is over or a signal comes.
fn watch(
    audited: &mut dyn Auditable,
    lasting: Duration,
    mut named: Option<Named>,
    interrupt: Interrupt,
    mut progress: Option<Progress<impl io::Write>>,
) -> io::Result<Report> {
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        if elapsed >= lasting || interrupt.has_come()? {
            break;
        }
        if let Some(progress) = &mut progress {
            progress.show(elapsed, || audited.report());
        }
        audited.step(STEP.min(lasting - elapsed))?;
        named.iter_mut().try_for_each(|named| named.look(Instant::now()))?;
    }
    // What is on its way may take as long as the window; who does not want to
    // wait for it may signal again.
    drop(interrupt);
    audited.finish()?;
    if let Some(progress) = &mut progress {
        progress.clear();
    }
    Ok(audited.report())
}

#[cfg(test)]
mod tests;
