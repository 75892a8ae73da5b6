//! `cargo xtask test`: all tests, with the programs they need. Those on this host's kernel need
//! root; without it they are counted as ignored and the last line says so. Those on other kernels
//! run in guests, see [`guests`]; what is installed is tested in a Debian of its own, see
//! [`package`].

mod guests;
mod kafka_tls;
mod package;
mod who;

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::{self, cargo};
use crate::dist::Build;
use crate::packages::{DEBIAN, GUESTS, LAB, TESTS};
use crate::privilege::{by_hand, is_root};
use crate::say::say;
use crate::step::Steps;
use crate::{chaos, interrupt, leftovers, packages, python, setup, vm};

/// Cases of each property with `--full`; proptest's own default is 256.
const FULL_CASES: &str = "20000";

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what takes long: property tests with many cases, the replay benchmark once,
    /// `flowlog who` over 50 million flows, five minutes of chaos instead of one, KAFKA over TLS,
    /// for which OpenSSL is built, all guest tests on each kernel instead of 6.12 only, and those on
    /// a PREEMPT_RT one. All is built as it is released: without this option the compiler optimizes less
    #[arg(long)]
    full: bool,
    /// Only the tests on other kernels
    #[arg(long, conflicts_with = "full")]
    guests_only: bool,
    /// Only the tests of the package and the archive
    #[arg(long, conflicts_with_all = ["guests_only", "kernels"])]
    package_only: bool,
    /// Run the guest tests on this kernel only, such as 6.12, or 6.1-rt for PREEMPT_RT; may be
    /// given several times
    #[arg(long = "kernel", value_name = "SERIES", value_parser = vm::series)]
    kernels: Vec<String>,
    /// For the test programs: a part of a test's name, or flags of libtest
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs all tests, also after one has failed.
///
/// # Errors
/// What the tests need cannot be had.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !packages::provide(&[LAB, TESTS, GUESTS, DEBIAN])? || !setup::provide()? {
        return Ok(ExitCode::FAILURE);
    }
    // Ctrl-C ends the step that runs; what it leaves behind is then removed here.
    interrupt::watch()?;
    let mut steps = Steps::default();
    let root = is_root();
    if root {
        leftovers::sweep();
    }
    let outcome = all(args, root, &mut steps);
    if root {
        leftovers::sweep();
    }
    let code = steps.summary();
    outcome?;
    if !root && !args.guests_only {
        say!(
            "the live tests were NOT run, because they need root: {} tests ignored; run\n  {}",
            steps.ignored(),
            by_hand("test")
        );
    }
    Ok(code)
}

fn all(args: &Args, root: bool, steps: &mut Steps) -> Result<()> {
    let how = if args.full {
        Build::Released
    } else {
        cargo::build_quickly();
        Build::Quick
    };
    if args.package_only {
        return package::run(how, root, steps, &args.args);
    }
    if std::env::var_os(cargo::FLOWLOG).is_none() {
        steps.run("release build", &mut cargo(&["build", "--release", "--package", "flowlog"]))?;
        interrupt::check()?;
    }
    if !args.guests_only {
        host(args, root, steps)?;
        package::run(how, root, steps, &args.args)?;
    }
    guests::run(steps, &args.kernels, args.full, &args.args)
}

/// The tests on this host's kernel, and those that need none.
fn host(args: &Args, root: bool, steps: &mut Steps) -> Result<()> {
    let flowlog = cargo::flowlog()?;
    let with_args = |words: &[&str]| {
        let mut command = cargo(words);
        command.arg("--").args(&args.args);
        command
    };
    let mut plain = with_args(&["test", "--workspace", "--exclude", "tests"]);
    steps.run("tests without root", &mut plain)?;
    interrupt::check()?;
    // Their other program is for guests.
    let mut words = vec!["test", "--package", "tests", "--lib", "--test", "live"];
    if root {
        words.extend(["--features", "live"]);
    }
    let name = if root { "live tests" } else { "live tests, not run" };
    let mut live = with_args(&words);
    live.env(cargo::FLOWLOG, &flowlog);
    if root {
        live.env(python::PYTHON, python::provide()?);
    }
    steps.run(name, &mut live)?;
    interrupt::check()?;
    // A part of a test's name means a test.
    if root && args.args.is_empty() {
        chaos::step(args.full, steps)?;
        interrupt::check()?;
    }
    if args.full {
        let mut many = with_args(&["test", "--release", "--package", "flowlog"]);
        steps.run("property tests, many cases", many.env("PROPTEST_CASES", FULL_CASES))?;
        interrupt::check()?;
        let bench = ["bench", "--package", "flowlog", "--bench", "replay"];
        steps.run("replay benchmark", &mut cargo(&bench))?;
        interrupt::check()?;
        who::run(steps)?;
        interrupt::check()?;
        kafka_tls::run(root, steps)?;
        interrupt::check()?;
    }
    Ok(())
}
