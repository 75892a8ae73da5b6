//! `flowlog run`: configuration → sources and stacks → the engine. Everything
//! that can be refused is refused before the daemon says that it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use tracing::{debug, warn};

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, CaptureChoice, Config, NetnsScope, untold_by_netlink};
use crate::daemon::background::{Readiness, Role, Stage, fork_to_background};
use crate::daemon::pidfile::Pidfile;
use crate::daemon::priority::set_nice;
use crate::daemon::privileges;
use crate::engine::recovery::Recovery;
use crate::engine::{self, Engine, Source};
use crate::heap;
use crate::log::{self, notice};
use crate::metrics::server::{self, Bound};
use crate::plugin::nfct::Nfct;
use crate::plugin::ship::{self, Spool};
use crate::source;
use crate::source::place::Place;
use crate::stack::{Site, Stacks};
use crate::stats::Stats;
use crate::verb::reopening::{self, When};
use crate::zone;

/// Nice value where the configuration names none.
const NICE: i32 = -10;
/// How long opening the sources, and then their dumps at start, may be tried again before the
/// daemon says that it runs: all sources together, however many there are.
const SETTLE: Duration = Duration::from_secs(10);
/// How long opening one of them may be tried again, though others have used all of that time.
const SETTLE_LEAST: Duration = Duration::from_secs(1);

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The configuration file.
    pub file: PathBuf,
    /// Go to the background.
    pub daemon: bool,
    /// Become this user.
    pub user: Option<String>,
    /// Where to write the pid.
    pub pidfile: Option<PathBuf>,
    /// Copy messages to standard error.
    pub verbose: bool,
    /// Instead of `loglevel`.
    pub loglevel: Option<u8>,
    /// Instead of `netns`, for all sources.
    pub netns: Option<NetnsScope>,
    /// Instead of `capture`, for all sources.
    pub capture: Option<CaptureChoice>,
    /// As `activate=1`, for all sources.
    pub activate: bool,
}

/// What is held while the daemon runs.
struct Running {
    sources: Vec<Source>,
    /// Where records wait, if a stack needs that.
    spool: Option<Spool>,
    /// What the captures need while they run.
    capabilities: CapsHashSet,
    /// Which sources are captured by what, for the message at start.
    by: String,
    stats: Stats,
}

/// Runs the daemon until a signal ends it. What stops its start, or ends it, is
/// reported to `logfile` and on standard error.
///
/// # Errors
/// The kernel has no resources for another process.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut outcome = config::load(&options.file);
    let overridden = outcome.config.as_mut().map(|config| override_by(config, options));
    if let (Some(config), Some(Ok(()))) = (outcome.config, overridden.clone()) {
        return run_configured(&config, options, &outcome.diagnostics);
    }
    // Standard error has what is wrong, whether or not there is a log.
    if let Some((target, level)) = &outcome.log
        && let Err(error) = log::start(target, options.loglevel.unwrap_or(*level), false)
    {
        log::say(&format!("flowlog: {error:#}"));
    }
    refuse(&outcome.diagnostics);
    if let Some(Err(why)) = overridden {
        log::report_failure(&format!("flowlog: {why}"), &why);
    }
    Ok(ExitCode::from(2))
}

/// Runs the daemon, in the background if that is asked for.
fn run_configured(
    config: &Config,
    options: &Options,
    diagnostics: &[Diagnostic],
) -> anyhow::Result<ExitCode> {
    let readiness = if options.daemon {
        match fork_to_background()? {
            Role::Parent(code) => return Ok(code),
            Role::Daemon(readiness) => Some(readiness),
        }
    } else {
        None
    };
    let result = log::start(&config.log, config.loglevel, options.verbose)
        .and_then(|()| start_and_serve(config, options, diagnostics, readiness));
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::report_failure(&format!("flowlog: {error:#}"), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    })
}

fn start_and_serve(
    config: &Config,
    options: &Options,
    diagnostics: &[Diagnostic],
    mut readiness: Option<Readiness>,
) -> anyhow::Result<()> {
    zone::follow().context("the time zone cannot be followed; raise the limit of tasks")?;
    // Before rights are kept beyond the change of the user: it needs none.
    heap::give_back_regularly();
    let user = options.user.as_deref().map(privileges::look_up).transpose()?;
    let _pidfile = options.pidfile.as_deref().map(Pidfile::create).transpose()?;
    for diagnostic in diagnostics {
        warn!("{diagnostic}");
    }
    if options.capture == Some(CaptureChoice::Netlink) {
        // Of the file's own words this is said when it is read.
        for text in config.sources.iter().filter_map(|s| untold_by_netlink(s.event_mask)) {
            warn!("{text}");
        }
    }
    let mut at = |stage| readiness.iter_mut().for_each(|readiness| readiness.at(stage));
    at(Stage::Outputs);
    // While ports below 1024 can be had.
    let bound = config.metrics.map(server::bind).transpose()?;
    prioritize(config.nice);
    let mut running = start(config, user.as_ref())?;
    at(Stage::Table);
    engine::settle(&mut running.sources, SETTLE);
    at(Stage::Privileges);
    if let Some(user) = &user {
        for source in &running.sources {
            source.stacks.give_to(user.uid, user.gid);
        }
        if let Some(spool) = &running.spool {
            spool.give_to(user.uid, user.gid);
        }
        warn_of_outputs(config, user);
        privileges::drop_to(user, &running.capabilities)?;
    }
    running.sources.iter().for_each(say_what_cannot_be_entered);
    serve(running, bound, readiness)
}

/// Says that a named namespace which is made anew will be out of reach.
fn say_what_cannot_be_entered(source: &Source) {
    let Some(place) = &source.place else { return };
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false) {
        warn!(
            "[{}] flowlog runs without CAP_SYS_ADMIN from now on: should network namespace {} be \
             removed and made anew, it cannot be entered, and /healthz will name it; run flowlog \
             without -u to have it entered, or restart flowlog then",
            source.id,
            place.path().display()
        );
    }
}

/// Says which outputs `user` could not open anew.
fn warn_of_outputs(config: &Config, user: &privileges::Target) {
    match reopening::refused(config, user, When::Started) {
        Ok(refused) => refused.iter().for_each(|refused| {
            warn!("{}; {}", refused.what, refused.remedy);
        }),
        // Then it cannot become that user either, which says more.
        Err(error) => debug!("what {user} may write cannot be looked at: {error}"),
    }
}

/// Goes before ordinary work, if that is allowed.
fn prioritize(nice: Option<i32>) {
    let Err(error) = set_nice(nice.unwrap_or(NICE)) else { return };
    match nice {
        Some(nice) => {
            warn!("the priority `nice={nice}` cannot be had: {error}; it needs CAP_SYS_NICE");
        }
        None => debug!("the priority cannot be raised: {error}"),
    }
}

/// Reports all that is wrong.
fn refuse(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let text = diagnostic.to_string();
        match diagnostic.severity {
            Severity::Error => log::report_failure(&text, &text),
            _ => log::report_warning(&format!("warning: {text}"), &text),
        }
    }
}

fn override_by(config: &mut Config, options: &Options) -> Result<(), String> {
    if let Some(level) = options.loglevel {
        config.loglevel = level;
    }
    for source in &mut config.sources {
        source.override_capture(options.capture, options.netns.clone())?;
        source.activate |= options.activate;
    }
    Ok(())
}

/// Opens every source and every file.
fn start(config: &Config, user: Option<&privileges::Target>) -> anyhow::Result<Running> {
    let stats = Stats::default();
    let host = nix::unistd::gethostname().context("the host has no name")?;
    let host = host.to_string_lossy();
    let mut capabilities = CapsHashSet::new();
    let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Only what is wrong by itself keeps the other stacks from running.
    let open = || Spool::open_or_await(&config.spool, reopening::on_damage(config, user));
    let spool = config.ships().then(open).transpose()?;
    let site = Site::of(&host, &stats, spool.as_ref());
    let mut sources = Vec::new();
    let begin = Instant::now();
    for (index, source) in config.sources.iter().enumerate() {
        let stacks = Stacks::start(config, index, site)?;
        if stacks.0.is_empty() {
            continue;
        }
        let patience = SETTLE.saturating_sub(begin.elapsed()).max(SETTLE_LEAST);
        let opened = source::open(source, &stats, patience)?;
        let place = Place::of(source, &opened, &stats);
        capabilities.extend(opened.capabilities);
        by.entry(opened.by.clone()).or_default().push(source.id.clone());
        sources.push(Source {
            id: source.id.clone(),
            by: opened.by,
            table: opened.table,
            capture: opened.capture,
            nfct: Nfct::new(opened.nfct, stats.clone()),
            stacks,
            place,
            activation: opened.activation,
            recovery: Recovery::default(),
        });
    }
    let by: Vec<_> = by.iter().map(|(by, ids)| format!("{by}: {}", ids.join(", "))).collect();
    let by = by.join("; ");
    Ok(Running { sources, spool, capabilities, by, stats })
}

/// Opens the spool, if a stack needs it; for a verb that somebody waits for.
///
/// # Errors
/// It cannot be used.
pub(super) fn open_spool(config: &Config) -> Result<Option<Spool>, ship::Failure> {
    config.ships().then(|| Spool::open(&config.spool)).transpose()
}

/// Says that the daemon runs, and runs it.
fn serve(
    running: Running,
    bound: Option<Bound>,
    readiness: Option<Readiness>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Running { sources, by, stats, .. } = running;
        let serve = |bound| server::serve(bound, stats.readings());
        let questions = bound.map(serve).transpose()?;
        let engine = Engine::new(sources, stats, questions)?;
        notice!("flowlog {} runs {by}", env!("CARGO_PKG_VERSION"));
        if let Some(readiness) = readiness {
            log::detach();
            readiness.ready()?;
        }
        log::settle();
        engine.ready();
        engine.run().await;
        Ok(())
    })
}

/// The configuration that is read when none is named.
pub fn default_file() -> PathBuf {
    let own = Path::new("/etc/flowlog.conf");
    if own.exists() { own.to_owned() } else { PathBuf::from("/etc/ulogd.conf") }
}
