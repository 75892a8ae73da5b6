//! `cargo xtask chaos`: flowlog with all its sinks under random faults, see `tests::chaos`. This is
//! only what builds and starts it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cargo::Profile;
use crate::packages::{BUILD, LAB, TESTS};
use crate::run::duration;
use crate::step::Steps;
use crate::{cargo, interrupt, leftovers, packages, privilege, python, setup};

/// What `cargo xtask chaos` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long flows are made: 90s, 10m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "10m")]
    time: Duration,
    /// What decides the faults; each seed has its own schedule. Without it one is made up
    #[arg(long)]
    seed: Option<u64>,
    /// Flows a second
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Only these kinds of faults, joined by commas, such as stall-reader,full-disk
    #[arg(long, value_name = "LIST")]
    faults: Option<String>,
    /// Only these sinks, joined by commas, such as emu,sqlite,parquet
    #[arg(long, value_name = "LIST")]
    sinks: Option<String>,
    /// Keep the logs of flowlog in this directory
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

/// The programs that it needs.
struct Programs {
    chaos: PathBuf,
    flowlog: PathBuf,
    kafka: PathBuf,
    python: PathBuf,
}

impl Programs {
    /// Builds what the environment does not name.
    fn built(profile: Profile) -> Result<Self> {
        let python = match std::env::var_os(python::PYTHON) {
            Some(python) => python.into(),
            None => python::provide()?,
        };
        let [chaos, kafka] = cargo::chaos(profile)?;
        Ok(Self { chaos, flowlog: cargo::flowlog()?, kafka, python })
    }

    fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            (cargo::CHAOS, &self.chaos),
            (cargo::FLOWLOG, &self.flowlog),
            (cargo::KAFKA, &self.kafka),
            (python::PYTHON, &self.python),
        ]
    }

    /// The command of a run.
    fn command(&self, time: Duration, seed: u64, rate: u32) -> Command {
        let mut command = Command::new(&self.chaos);
        command.args(["--for", &time.as_secs().to_string(), "--seed", &seed.to_string()]);
        command.args(["--rate", &rate.to_string()]).arg("--mock").arg(&self.kafka);
        command.envs(self.environment());
        command
    }
}

/// Runs it. The exit code says whether every promise was kept.
///
/// # Errors
/// Something does not build.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !packages::provide(&[LAB, TESTS, BUILD])? || !setup::for_build()? {
        return Ok(ExitCode::FAILURE);
    }
    let programs = Programs::built(Profile::Release)?;
    if let Some(code) = privilege::elevate(&programs.environment())? {
        return Ok(code);
    }
    interrupt::watch()?;
    leftovers::sweep();
    let seed = args.seed.unwrap_or_else(any_seed);
    let mut command = programs.command(args.time, seed, args.rate);
    for (name, value) in [("--faults", &args.faults), ("--sinks", &args.sinks)] {
        command.args(value.iter().flat_map(|value| [name, value]));
    }
    if let Some(directory) = &args.keep {
        command.args([OsString::from("--keep"), directory.into()]);
    }
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    leftovers::sweep();
    Ok(privilege::code(status.code()))
}

/// Another one each time; the report has it.
fn any_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::from(since.unwrap_or_default().subsec_nanos())
}

/// The seed of the run in `cargo xtask test`.
const SEED: u64 = 13;
/// Flows a second there: what a small machine can do beside its other work.
const RATE: u32 = 1000;

/// A run as a step of the tests, as root: a minute, or five with `full`.
///
/// # Errors
/// Something does not build.
pub(crate) fn step(full: bool, steps: &mut Steps) -> Result<()> {
    let time = Duration::from_secs(if full { 300 } else { 60 });
    let mut command = Programs::built(Profile::Tests)?.command(time, SEED, RATE);
    steps.run(&format!("chaos, seed {SEED}, {} s", time.as_secs()), &mut command)
}
