//! Chaos: flowlog with every sink that runs on one machine, under a load whose flows are all known,
//! while faults of all kinds happen at random from a seed. In the end the books are closed: what
//! was made is logged or counted as lost, nothing is there twice, `flowlog who` denies no flow, and
//! the daemon has neither grown nor stood still.
//!
//! | module | its one job |
//! |---|---|
//! | [`schedule`] | which fault happens to what and when, from a seed |
//! | [`random`] | the numbers of a seed |
//! | `lab` | everything there is: namespace, disks, readers, servers, flowlog |
//! | [`faults`] | what begins and ends each fault |
//! | [`stacks`] | the sinks, and the configuration with them |
//! | [`load`] | the flows |
//! | [`peer`], [`framing`] | readers of pipes and sockets |
//! | [`mod@file`], `store` | outputs that are files, and directories of them |
//! | `servers`, `broker` | servers, and garbage in their place |
//! | `disk`, `names`, `inner`, [`shim`] | full disks, silent name servers, a namespace made anew, another clock |
//! | [`record`], [`received`], `rows` | what a sink has of which flow |
//! | [`probe`] | a look at the daemon each second |
//! | [`counters`] | what flowlog says that it has lost; the names of its metrics |
//! | [`ledger`] | the books |
//! | [`who`] | questions to `flowlog who` |
//! | [`verdict`], [`report`] | which promise was kept, and what else to tell |

mod broker;
pub mod counters;
pub mod disk;
pub mod faults;
pub mod file;
pub mod framing;
mod inner;
mod lab;
pub mod ledger;
pub mod load;
mod names;
pub mod peer;
pub mod probe;
pub mod random;
pub mod received;
pub mod record;
pub mod report;
mod rows;
pub mod schedule;
mod servers;
pub mod shim;
pub mod stacks;
mod store;
pub mod verdict;
mod verdict_of;
pub mod who;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::faults::Happened;
use self::lab::Lab;
use self::report::Report;
use self::schedule::{Kind, Planned, plan};
use self::stacks::Stack;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long flows are made.
    pub time: Duration,
    /// What decides the faults.
    pub seed: u64,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// The stacks.
    pub stacks: Vec<Stack>,
    /// Flows a second.
    pub rate: u32,
    /// The program of Kafka's brokers.
    pub mock: PathBuf,
    /// Where the logs of the daemon and the configuration are kept; nothing: nowhere.
    pub keep: Option<PathBuf>,
    /// Whether somebody wants it to end at once.
    pub asked: fn() -> bool,
}

/// How long the main thread rests.
const TURN: Duration = Duration::from_millis(20);
/// All that waits must be delivered so soon after the last fault.
const DELIVERED: Duration = Duration::from_secs(120);

/// Runs it as root, in mounts of its own ([`disk::own_mounts`]), and judges. `say` gets a line for
/// what happens.
///
/// # Errors
/// The lab cannot be built. What flowlog does wrong is in the report.
pub fn run(options: &Options, say: &mut dyn FnMut(String)) -> Result<Report> {
    let directory = tempfile::Builder::new().prefix("flowlog-chaos-").tempdir()?;
    // The database server works as another user.
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let single = lab::namespace()?;
    let mut lab = Lab::build(
        single.namespace(),
        &options.stacks,
        options.rate,
        &options.mock,
        directory.path(),
    )?;
    let warm = warm_up(options.time);
    let sinks: Vec<_> = options.stacks.iter().map(|stack| stack.name).collect();
    let span = warm..options.time.saturating_sub(Duration::from_secs(2));
    let plan = plan(options.seed, &span, &options.kinds, &sinks);
    say(format!("seed {}: {} faults in {} s", options.seed, plan.len(), options.time.as_secs()));
    lab.start()?;
    let mut stage = Stage { lab, happened: Vec::new(), say };
    let finished = stage.perform(&plan, warm, options);
    ensure!(!(options.asked)(), "interrupted");
    if let Err(error) = &finished {
        (stage.say)(format!("the run ends early: {error:#}"));
    }
    stage.mend();
    let Stage { lab, happened, say } = stage;
    let report = verdict_of::close(lab, options, happened, warm, say);
    if let Some(keep) = &options.keep {
        kept(directory.path(), keep)?;
    }
    report
}

/// A fifth of the time, at most 20 s: all readers and servers stand still once in it, so that what
/// grows with a buffer has grown.
fn warm_up(time: Duration) -> Duration {
    (time / 5).min(Duration::from_secs(20))
}

/// Copies the logs of the daemons and the configuration.
fn kept(directory: &Path, keep: &Path) -> Result<()> {
    fs::create_dir_all(keep).with_context(|| keep.display().to_string())?;
    for entry in fs::read_dir(directory)?.flatten() {
        let is_log = entry.path().extension() == Some("log".as_ref());
        if is_log && entry.path().is_file() {
            fs::copy(entry.path(), keep.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The lab, and what has happened in it so far.
struct Stage<'n, 's> {
    lab: Lab<'n>,
    happened: Vec<Happened>,
    say: &'s mut dyn FnMut(String),
}

impl Stage<'_, '_> {
    /// Lets all faults happen. An error ends the run.
    fn perform(&mut self, plan: &[Planned], warm: Duration, options: &Options) -> Result<()> {
        let stalled = self.stall_all(warm)?;
        let mut plan = stalled.iter().chain(plan).peekable();
        while self.lab.now() < options.time && !(options.asked)() {
            let now = self.lab.now();
            let due = |one: &Happened| one.ended.is_none() && one.began + one.fault.length <= now;
            if let Some(at) = self.happened.iter().position(due) {
                self.end(at);
            } else if let Some(fault) = plan.next_if(|fault| fault.at <= now) {
                self.begin(fault.clone());
            } else {
                sleep(TURN);
            }
            self.lab.tick()?;
        }
        Ok(())
    }

    /// All readers and servers stand still in the warm-up.
    fn stall_all(&self, warm: Duration) -> Result<Vec<Planned>> {
        let at = warm / 8;
        let length = warm / 2;
        let names = self.lab.stack_names();
        let mut all = Vec::new();
        for kind in [Kind::StallReader, Kind::StopServer] {
            let there = kind.targets().iter().filter(|target| names.contains(target));
            all.extend(there.map(|&target| Planned { at, length, kind, target, detail: 0 }));
        }
        Ok(all)
    }

    fn begin(&mut self, fault: Planned) {
        let began = self.lab.now();
        let (kind, target) = (fault.kind, fault.target);
        (self.say)(format!("{:7.1} s  {kind} {target}", began.as_secs_f64()));
        let failed = self.lab.begin(&fault).err().map(|error| faults::brief(&error));
        // What could not begin has nothing to end.
        let ended = failed.is_some().then(|| self.lab.now());
        self.happened.push(Happened { fault, began, ended, failed });
    }

    fn end(&mut self, at: usize) {
        let fault = self.happened[at].fault.clone();
        let failed = self.lab.end(&fault).err().map(|error| faults::brief(&error));
        self.happened[at].ended = Some(self.lab.now());
        self.happened[at].failed = failed;
    }

    /// Ends all faults that are still on.
    fn mend(&mut self) {
        for at in 0..self.happened.len() {
            if self.happened[at].ended.is_none() {
                self.end(at);
            }
        }
    }
}
