//! The guest tests: one test program on several kernels, each booted once. Guests run side by
//! side, so the output of each is shown when it has ended.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cargo::{self, cargo};
use crate::interrupt;
use crate::say::say;
use crate::step::Steps;
use crate::vm::{Ending, Guest, Machine, kernel};

/// The kernels, and whether each must be had: the oldest and the newest are where a change would
/// show first, but the archive need not have them.
const KERNELS: [(&str, bool); 4] = [("6.12", true), ("6.1", true), ("7.2", false), ("5.10", false)];
/// What `--full` adds: a kernel whose locks are larger, so that its structures lie otherwise.
const FULL: [(&str, bool); 1] = [("6.1-rt", true)];
/// The kernel that all tests are run on, also without `--full`.
const WHOLE: &str = "6.12";
/// Without `--full` these are run on the others: whether the probes attach, find what they read, and
/// miss nothing. What flowlog makes of it is the same on all kernels.
const BRIEF: [&str; 11] = [
    "attach::",
    "causes::",
    "clash::",
    "differential::",
    "kernel::",
    "layout::",
    "load::",
    "missed::",
    "refusals::",
    "selfcheck::",
    "softirq::",
];
/// How long a guest may take. Its processor is emulated, on a host that may be busy.
const LIMIT: Duration = Duration::from_mins(40);
/// The guest's shell runs it with the arguments of libtest. A guest is slow, and what is measured
/// against a time should not wait for another test.
/// libtest says how long each took with an option that is not stable yet.
const COMMAND: &str = "FLOWLOG_BIN=/host/flowlog RUST_TEST_THREADS=1 RUSTC_BOOTSTRAP=1 exec ./guest \
                       -Zunstable-options --report-time \"$@\"";

/// A kernel to be booted.
struct Kernel {
    series: String,
    directory: PathBuf,
}

/// How its tests ended.
struct Outcome {
    series: String,
    output: Vec<u8>,
    ending: Result<Ending>,
    time: Duration,
}

/// Runs them on all kernels, or on those that are named.
///
/// # Errors
/// The test program or flowlog does not build, or somebody wants an end.
pub(super) fn run(steps: &mut Steps, named: &[String], full: bool, args: &[String]) -> Result<()> {
    steps.run("guest tests, build", &mut cargo(&cargo::GUEST_TESTS))?;
    interrupt::check()?;
    let place = tempfile::Builder::new().prefix("flowlog-guests-").tempdir()?;
    for (program, name) in [(cargo::flowlog()?, "flowlog"), (cargo::guest_tests()?, "guest")] {
        fs::copy(&program, place.path().join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    let kernels = Mutex::new(kernels(steps, named, full)?);
    let next = || kernels.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let all = full || !named.is_empty() || !args.is_empty();
    let command = |series: &str| -> Vec<String> {
        let words =
            ["sh", "-c", COMMAND, "guest"].into_iter().chain(args.iter().map(String::as_str));
        let brief = BRIEF.into_iter().filter(|_| !all && series != WHOLE);
        words.chain(brief).map(str::to_owned).collect()
    };
    // Each has two processors, but they are seldom both busy.
    let side_by_side = thread::available_parallelism()?.get().min(KERNELS.len());
    thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        for _ in 0..side_by_side {
            let (sender, next, command, place) = (sender.clone(), &next, &command, place.path());
            scope.spawn(move || {
                while let Some(kernel) = next() {
                    let command = command(&kernel.series);
                    let sent = sender.send(one(kernel, place, &command));
                    if sent.is_err() || interrupt::asked() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        outcomes.into_iter().for_each(|outcome| record(steps, outcome));
    });
    interrupt::check()
}

/// The kernels that can be had. What cannot is recorded.
fn kernels(steps: &mut Steps, named: &[String], full: bool) -> Result<VecDeque<Kernel>> {
    let mut kernels = VecDeque::new();
    for (series, required) in wanted(named, full) {
        match kernel::provide(&series) {
            Ok(directory) => kernels.push_back(Kernel { series, directory }),
            Err(error) => {
                interrupt::check()?;
                steps.absent(&name(&series), required, &format!("{error:#}"));
            }
        }
    }
    Ok(kernels)
}

/// The series to test, and whether each is required: what is asked for by name is.
fn wanted(named: &[String], full: bool) -> Vec<(String, bool)> {
    if !named.is_empty() {
        return named.iter().map(|series| (series.clone(), true)).collect();
    }
    let more = FULL.into_iter().filter(|_| full);
    let all = KERNELS.into_iter().chain(more);
    all.map(|(series, required)| (series.to_owned(), required)).collect()
}

/// Boots one guest and waits for its end.
fn one(kernel: Kernel, place: &Path, command: &[String]) -> Outcome {
    let Kernel { series, directory } = kernel;
    say!("\n── {}: begun, its output comes at its end", name(&series));
    let guest = Guest {
        kernel: &directory,
        machine: Machine::default(),
        directory: Some(place),
        command,
        out: None,
        limit: LIMIT,
    };
    let begin = Instant::now();
    let mut output = Vec::new();
    let ending = guest.run(&mut output);
    Outcome { series, output, ending, time: begin.elapsed() }
}

fn record(steps: &mut Steps, outcome: Outcome) {
    let Outcome { series, output, ending, time } = outcome;
    add(steps, &name(&series), &output, &ending, LIMIT, time);
}

/// Adds what was run in a guest that had so long for it.
pub(super) fn add(
    steps: &mut Steps,
    name: &str,
    output: &[u8],
    ending: &Result<Ending>,
    limit: Duration,
    time: Duration,
) {
    let mut output = String::from_utf8_lossy(output).into_owned();
    match ending {
        Ok(ending) => output.extend(ending.words(limit)),
        Err(error) => output += &format!("{error:#}"),
    }
    let ok = matches!(ending, Ok(Ending::Exit(0)));
    steps.add(name, ok, output.trim_end(), time);
}

fn name(series: &str) -> String {
    format!("guest tests on {series}")
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn what_is_named_is_required() {
        let named = ["7.2".to_owned()];
        assert_eq!(wanted(&named, true), [("7.2".to_owned(), true)]);
        assert_eq!(wanted(&[], true).len(), wanted(&[], false).len() + 1);
        let all = wanted(&[], false);
        let required = |series: &str| all.iter().find(|(s, _)| s == series).unwrap().1;
        assert!(required("6.1") && required("6.12") && !required("5.10") && !required("7.2"));
    }
}
