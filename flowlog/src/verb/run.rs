//! `flowlog run`: configuration → sources and stacks → the engine. Everything
//! that can be refused is refused before the daemon says that it runs.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tracing::{debug, error, info, warn};

use crate::activate::Activation;
use crate::capture::netlink::{self, NetlinkCapture};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, Config};
use crate::daemon::background::{Readiness, Role, fork_to_background};
use crate::daemon::pidfile::Pidfile;
use crate::daemon::priority::set_nice;
use crate::daemon::privileges;
use crate::engine::{Engine, Source};
use crate::event::Kinds;
use crate::kernel::{self, Activity};
use crate::log::{self, notice};
use crate::netns;
use crate::plugin::nfct::Nfct;
use crate::stack::{Stack, Stacks};
use crate::stats::Stats;

/// Nice value where the configuration names none.
const NICE: i32 = -10;
/// How long the dump at start may keep the daemon from saying that it runs.
const SETTLE: Duration = Duration::from_secs(10);

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
    /// Instead of `network_namespace_path`, for all sources.
    pub netns: Option<PathBuf>,
    /// As `activate=1`, for all sources.
    pub activate: bool,
}

/// What is held while the daemon runs.
struct Running {
    sources: Vec<Source>,
    /// Rules that make the kernel track connections; they go with the process.
    _activations: Vec<Activation>,
    stats: Stats,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What could not be started, or a source that cannot go on.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let outcome = config::load(&options.file);
    let Some(mut config) = outcome.config else {
        refuse(&outcome.diagnostics)?;
        return Ok(ExitCode::from(2));
    };
    override_by(&mut config, options);
    let user = options.user.as_deref().map(privileges::look_up).transpose()?;
    let readiness = if options.daemon {
        match fork_to_background()? {
            Role::Parent(code) => return Ok(code),
            Role::Daemon(readiness) => Some(readiness),
        }
    } else {
        None
    };
    log::start(&config.log, config.loglevel, options.verbose)?;
    let pidfile = options.pidfile.as_deref().map(Pidfile::create).transpose()?;
    for diagnostic in &outcome.diagnostics {
        warn!("{diagnostic}");
    }
    prioritize(config.nice);
    let mut running = start(&config)?;
    for source in &mut running.sources {
        source.settle(SETTLE).context("events cannot be read")?;
    }
    if let Some(user) = &user {
        for source in &mut running.sources {
            source.stacks.give_to(user.uid, user.gid);
        }
        privileges::drop_to(user)?;
    }
    let result = serve(running, readiness);
    drop(pidfile);
    if let Err(error) = &result {
        error!("{error:#}");
    }
    result.map(|()| ExitCode::SUCCESS)
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

/// Tells all that is wrong, on standard error.
fn refuse(diagnostics: &[Diagnostic]) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    for diagnostic in diagnostics {
        let kind = if diagnostic.severity == Severity::Error { "" } else { "warning: " };
        writeln!(stderr, "{kind}{diagnostic}")?;
    }
    Ok(())
}

fn override_by(config: &mut Config, options: &Options) {
    if let Some(level) = options.loglevel {
        config.loglevel = level;
    }
    for source in &mut config.sources {
        if let Some(netns) = &options.netns {
            source.netns = Some(netns.clone());
        }
        source.activate |= options.activate;
    }
}

/// Opens every source and every file.
fn start(config: &Config) -> anyhow::Result<Running> {
    let stats = Stats::default();
    let host = nix::unistd::gethostname().context("the host has no name")?;
    let host = host.to_string_lossy();
    let mut activations = Vec::new();
    let mut sources = Vec::new();
    for (index, source) in config.sources.iter().enumerate() {
        let stacks = config
            .stacks
            .iter()
            .filter(|stack| stack.source == index)
            .map(|stack| Stack::start(stack, &host, &stats))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if stacks.is_empty() {
            continue;
        }
        let path = source.netns.as_deref().map(netns::resolve);
        let (capture, activation) = netns::within(path.as_deref(), || open(source, &stats))?
            .with_context(|| format!("[{}] cannot be started", source.id))?;
        activations.extend(activation);
        sources.push(Source {
            id: source.id.clone(),
            capture: Box::new(capture),
            nfct: Nfct::new(source.nfct.clone(), stats.clone()),
            stacks: Stacks(stacks),
        });
    }
    Ok(Running { sources, _activations: activations, stats })
}

/// Opens a source in the current namespace, and says what is amiss there.
fn open(
    source: &config::Source,
    stats: &Stats,
) -> anyhow::Result<(NetlinkCapture, Option<Activation>)> {
    if source.set_sysctls {
        set_sysctls(&source.id);
    }
    let activation = source.activate.then(Activation::hold).transpose()?;
    if activation.is_none() && kernel::conntrack_active() == Activity::Inactive {
        warn!(
            "[{}] nothing makes the kernel track connections in this network namespace, so \
             there is nothing to log; add a rule that needs it (`ct state`, NAT), or set \
             activate=1",
            source.id
        );
    }
    let settings = netlink::Settings {
        groups: source.nfct.groups(),
        buffer: source.buffer.0,
        buffer_max: source.buffer.1,
        reliable: source.reliable,
        filter: source.nfct.filter.clone(),
    };
    let capture = NetlinkCapture::open(&settings, stats.clone()).map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM) => "it needs CAP_NET_ADMIN: run it as root",
            Some(libc::EPROTONOSUPPORT) => "the kernel has no nfnetlink: load nf_conntrack_netlink",
            _ => "see `flowlog check`",
        };
        anyhow!("conntrack events cannot be had over netlink: {error}; {remedy}")
    })?;
    warn_of_old_flows(source);
    Ok((capture, activation))
}

fn set_sysctls(id: &str) {
    for (name, result) in kernel::set_sysctls() {
        match result {
            Ok(()) => info!("[{id}] {name} has been set to 1"),
            Err(error) => warn!("[{id}] {name} cannot be set to 1: {error}; set it with sysctl"),
        }
    }
}

/// Flows from before the first listener have no event extension, unless
/// nf_conntrack_events was 1 (net/netfilter/nf_conntrack_ecache.c, 6.18).
fn warn_of_old_flows(source: &config::Source) {
    let wants_end = source.nfct.mask.contains(Kinds::DESTROY) && source.nfct.poll.is_none();
    let events = kernel::sysctl("nf_conntrack_events");
    if events == Some(0) {
        warn!(
            "[{}] nf_conntrack_events is 0: the kernel reports no events at all; set it to 1, \
             or set_sysctls=1 in [{}]",
            source.id, source.id
        );
    }
    let old = kernel::conntrack_count().unwrap_or(0);
    if !wants_end || events != Some(2) || old == 0 {
        return;
    }
    let what_is_done = match (source.nfct.hash, source.nfct.redump) {
        (Some(_), Some(period)) => {
            format!("a dump every {} s finds and logs it", period.as_secs())
        }
        (Some(_), None) => "redump_interval=0 leaves it unlogged".to_owned(),
        (None, _) => "with hash_enable=0 it goes unlogged".to_owned(),
    };
    warn!(
        "[{}] {old} flows exist already; with nf_conntrack_events=2 the kernel does not report \
         the end of flows that are older than the first listener: {what_is_done}. Set \
         nf_conntrack_events=1 at boot, or set_sysctls=1 in [{}]",
        source.id, source.id
    );
}

/// Says that the daemon runs, and runs it.
fn serve(running: Running, readiness: Option<Readiness>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Running { sources, _activations, stats } = running;
        let names: Vec<String> = sources.iter().map(|source| source.id.clone()).collect();
        let engine = Engine::new(sources, stats)?;
        notice!("flowlog {} runs over netlink: {}", env!("CARGO_PKG_VERSION"), names.join(", "));
        if let Some(readiness) = readiness {
            log::detach();
            readiness.ready()?;
        }
        // Without systemd there is nobody to tell, which is no fault.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        engine.run().await.context("events can no longer be read")
    })
}

/// The configuration that is read when none is named.
pub fn default_file() -> PathBuf {
    let own = Path::new("/etc/flowlog.conf");
    if own.exists() { own.to_owned() } else { PathBuf::from("/etc/ulogd.conf") }
}
