//! `flowlog replay` (hidden): a recording through the stacks of a
//! configuration, for tests and measurements without a kernel.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::capture::replay::Replay;
use crate::capture::{Capture, Drained};
use crate::config;
use crate::engine::Source;
use crate::engine::recovery::Recovery;
use crate::kernel::TableFill;
use crate::plugin::nfct::Nfct;
use crate::stack::{Site, Stacks};
use crate::stats::Stats;
use crate::verb::run::open_spool;

/// Messages taken per batch.
const BUDGET: usize = 4096;

/// Builds the first source of `file` with its stacks on top of a recording.
///
/// # Errors
/// The configuration is refused, or a file cannot be opened.
pub fn source(file: &Path, recording: Vec<u8>, stats: &Stats) -> anyhow::Result<Source> {
    let outcome = config::load(file);
    let Some(config) = outcome.config else {
        let lines: Vec<String> = outcome.diagnostics.iter().map(ToString::to_string).collect();
        bail!("{}", lines.join("\n"));
    };
    let spool = open_spool(&config)?;
    let site = Site::of("host", stats, spool.as_ref());
    let first = &config.sources[0];
    Ok(Source {
        id: first.id.clone(),
        by: "from a recording".to_owned(),
        table: TableFill::open(),
        capture: capture(recording, stats),
        nfct: Nfct::new(first.nfct.clone(), stats.clone()),
        stacks: Stacks::start(&config, 0, site)?,
        place: None,
        activation: None,
        recovery: Recovery::default(),
    })
}

/// Records of the eBPF programs, or else netlink messages.
fn capture(recording: Vec<u8>, stats: &Stats) -> Box<dyn Capture> {
    #[cfg(feature = "ebpf")]
    if recording.starts_with(crate::capture::ebpf::replay::MAGIC) {
        use crate::capture::ebpf::replay::Replay;
        return Box::new(Replay::new(recording, stats.clone()));
    }
    Box::new(Replay::new(recording, stats.clone()))
}

/// Waits until no sink is behind: a recording comes faster than events do.
pub fn wait(stacks: &Stacks) {
    while stacks.are_behind() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Replays `recording` once.
///
/// # Errors
/// As [`source`], or the recording cannot be read.
pub fn run(file: &Path, recording: &Path) -> anyhow::Result<ExitCode> {
    let bytes = fs::read(recording)
        .with_context(|| format!("the recording {} cannot be read", recording.display()))?;
    let stats = Stats::default();
    let mut source = source(file, bytes, &stats)?;
    source.stacks.begin();
    while source.drain(BUDGET)?.drained == Drained::More {
        source.stacks.flush();
        wait(&source.stacks);
    }
    source.nfct.finish(&mut source.stacks);
    source.stacks.close();
    let mut stdout = io::stdout().lock();
    for line in stats.totals() {
        writeln!(stdout, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}
