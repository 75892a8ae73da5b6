//! A trace at work.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tracing::warn;

use super::view::View;
use super::{INSTEAD, Kind, Options, summary};
use crate::capture::ebpf::symbols::Symbols;
use crate::capture::ebpf::trace::Refusals;
use crate::capture::ebpf::{EbpfCapture, Settings};
use crate::capture::live::{BUDGET, wait};
use crate::capture::{Capture as _, Progress};
use crate::config::{LogTarget, NetnsScope};
use crate::event::Kinds;
use crate::kernel::{self, Activity};
use crate::log::{self, notice};
use crate::netns::{self, Named};
use crate::stats::Stats;
use crate::verb::interrupt::Interrupt;
use crate::verb::live::output::Output;
use crate::verb::live::{self, AT_EXIT, End, LOGLEVEL, Lines, Live, QUIET};
use crate::zone;

/// Traces until it is told to end.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    log::start(&LogTarget::Stderr, if options.quiet { QUIET } else { LOGLEVEL }, false)?;
    zone::follow().context("the time zone cannot be followed")?;
    let interrupt = Interrupt::block().context("signals cannot be waited for")?;
    let stats = Stats::default();
    let mut capture = open(options, &stats)?;
    let named = Named::of(options.netns.path());
    // Behind the programs, whose names it shall have too.
    let symbols = symbols();
    notice!("flowlog traces by eBPF ({})", capture.method().name());
    let stdout = io::stdout();
    let file = File::from(stdout.as_fd().try_clone_to_owned()?);
    let paint = options.color.paints(&stdout);
    let mut view = View::new(options, paint, symbols, Output::new(file)?);
    let mut traced = Traced { capture: &mut capture, view: &mut view };
    let end = live::show(&mut traced, stdout.as_fd(), options.lasting, named, &interrupt)
        .context("events can no longer be read")?;
    // Who does not want to wait for the rest may signal again.
    drop(interrupt);
    if end == End::Unread {
        live::written(&view.lines.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    live::finish(&mut traced, end).context("the last events cannot be read")?;
    if options.summary {
        view.summarize();
    }
    view.lines.close(AT_EXIT);
    live::written(&view.lines.output)?;
    if !options.quiet {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{}", last_words(&mut view, &stats));
    }
    Ok(ExitCode::SUCCESS)
}

/// Attaches the programs, in the namespace that is wanted.
fn open(options: &Options, stats: &Stats) -> anyhow::Result<EbpfCapture> {
    let path = options.netns.path().map(netns::resolve);
    let capture = netns::within(path.as_deref(), || -> anyhow::Result<_> {
        let own = netns::current().context("the namespace has no number")?;
        let capture = EbpfCapture::open(&settings(options, own), stats.clone())
            .map_err(|error| anyhow!("{error}; {}", error.remedy_without_netlink()))?;
        if kernel::sysctl("nf_conntrack_events") == Some(0) {
            warn!(
                "nf_conntrack_events is 0: the kernel tells of no changes, only of beginnings \
                 and ends; set it to 2 or 1"
            );
        }
        if options.netns != NetnsScope::All && kernel::conntrack_active() == Activity::Inactive {
            warn!(
                "nothing makes the kernel track connections in this network namespace, so there \
                 is nothing to trace; add a rule that needs it (`ct state`, NAT)"
            );
        }
        Ok(capture)
    });
    capture?.map_err(|error| anyhow!("connections cannot be traced: {error:#}. {INSTEAD}"))
}

fn settings(options: &Options, own_netns: u32) -> Settings {
    let wants = |kind| options.selection.wants(kind);
    // What was before an event is known from the others, shown or not.
    let mut mask = Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY;
    mask.set(Kinds::EXPECT, wants(Kind::Expect));
    Settings {
        mask,
        tracked: false,
        filter: options.selection.flows.pushed_down(),
        attach: options.attach,
        ring: options.ring_buffer,
        netns: (options.netns != NetnsScope::All).then_some(own_netns),
        own_netns,
        all_updates: false,
        traced: Some(Refusals {
            unconfirmed: wants(Kind::Refused),
            unallocated: wants(Kind::Full),
            required: !options.selection.kinds.is_empty(),
        }),
        retried: false,
    }
}

/// The names of the kernel's functions; none if they are hidden, which is said.
fn symbols() -> Symbols {
    let symbols = Symbols::read().unwrap_or_default();
    if symbols.is_empty() {
        warn!(
            "the kernel hides the addresses of its functions (kernel.kptr_restrict), so callers \
             have no names, and a refusal has no cause: run `sysctl kernel.kptr_restrict=1` and \
             give flowlog CAP_SYSLOG"
        );
    }
    symbols
}

/// A capture, and what is shown of it.
struct Traced<'a> {
    capture: &'a mut EbpfCapture,
    view: &'a mut View,
}

impl Live for Traced<'_> {
    fn wait(&mut self, limit: Duration) -> io::Result<()> {
        wait(self.capture, limit)
    }

    fn drain(&mut self) -> io::Result<Progress> {
        Ok(self.capture.drain_trace(BUDGET, self.view))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.capture.finish_trace(self.view);
        Ok(())
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

/// What became of all events; the last line has the sum.
fn last_words(view: &mut View, stats: &Stats) -> String {
    let mut words = String::new();
    let lost: Vec<_> = summary::named(&view.losses())
        .into_iter()
        .map(|(name, lost)| format!("{name} {lost}"))
        .collect();
    if !lost.is_empty() {
        words += &format!(
            "flowlog: lost by eBPF: {}; raise --ring-buffer-size, or narrow the trace\n",
            lost.join(", ")
        );
    }
    let forgotten = view.take_forgotten();
    if forgotten > 0 {
        words += &format!(
            "flowlog: of {forgotten} events nothing was known before: too many flows at once; \
             narrow the trace\n"
        );
    }
    words + &live::summary(&view.lines, stats)
}
