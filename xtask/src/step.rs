//! One step of a longer task: a command whose output is passed on, whose test results are counted
//! and whose time is taken, or what took its place; and the summary of all steps.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::say::say;

/// How tests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

#[derive(Debug)]
struct Step {
    name: String,
    ok: bool,
    counts: Counts,
    time: Duration,
    /// Why it could not be taken.
    absent: Option<String>,
}

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<Step>);

impl Steps {
    /// Runs a command. That it fails is remembered, and the steps after it still run, because
    /// one run should tell all that is wrong.
    ///
    /// # Errors
    /// It cannot be run at all.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> Result<()> {
        say!("\n── {name}");
        let begin = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let mut counts = Counts::default();
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n'))
        {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            say!("{line}");
            counts.add(&line);
        }
        let ok = child.wait()?.success();
        let (name, time) = (name.to_owned(), begin.elapsed());
        self.0.push(Step { name, ok, counts, time, absent: None });
        Ok(())
    }

    /// Adds tests that were run where all that they need is, and shows their output. One that is
    /// ignored there would run nowhere, so that is a failure.
    pub(crate) fn add(&mut self, name: &str, ok: bool, output: &str, time: Duration) {
        say!("\n── {name}\n{output}");
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add(line));
        let ok = ok && counts.ignored == 0;
        self.0.push(Step { name: name.to_owned(), ok, counts, time, absent: None });
    }

    /// Adds what could not be run, and why. That is a failure if it is required, and told in any
    /// case.
    pub(crate) fn absent(&mut self, name: &str, required: bool, why: &str) {
        say!("\n── {name}\nnot available: {why}");
        let (name, absent) = (name.to_owned(), Some(why.to_owned()));
        let (ok, counts, time) = (!required, Counts::default(), Duration::ZERO);
        self.0.push(Step { name, ok, counts, time, absent });
    }

    /// Says how each step ended and what all of it means.
    pub(crate) fn summary(&self) -> ExitCode {
        say!("\n── summary");
        let width = self.0.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        for step in &self.0 {
            say!("{}", step.line(width).trim_end());
        }
        let absent = self.0.iter().filter(|step| step.absent.is_some());
        let absent: Vec<_> = absent.map(|step| step.name.as_str()).collect();
        if !absent.is_empty() {
            say!("{} NOT run, because not available: {}", absent.len(), absent.join(", "));
        }
        if self.0.iter().all(|step| step.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// How many tests did not run.
    pub(crate) fn ignored(&self) -> u64 {
        self.0.iter().map(|step| step.counts.ignored).sum()
    }
}

impl Step {
    /// Its line in the summary.
    fn line(&self, width: usize) -> String {
        let Self { name, ok, counts, time, absent } = self;
        let (time, words) = (time.as_secs_f64(), counts.words());
        match absent {
            None if *ok => format!("ok      {name:<width$}  {time:>6.1} s  {words}"),
            None => format!("FAILED  {name:<width$}  {time:>6.1} s  {words}"),
            Some(why) if *ok => format!("absent  {name:<width$}  not available: {why}"),
            Some(why) => format!("FAILED  {name:<width$}  not available: {why}"),
        }
    }
}

impl Counts {
    /// Adds what a line of libtest says, such as
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let result = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in result.split("; ") {
            match part.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                Some((Ok(number), "ignored")) => self.ignored += number,
                _ => {}
            }
        }
    }

    fn words(self) -> String {
        let Self { passed, failed, ignored } = self;
        if self == Self::default() {
            String::new()
        } else {
            format!("{passed} passed, {failed} failed, {ignored} ignored")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitCode;
    use std::time::Duration;

    use super::{Counts, Steps};

    #[test]
    fn what_is_absent_fails_only_if_it_is_required() {
        let mut steps = Steps::default();
        steps.add("guest", true, "test result: ok. 3 passed; 0 failed", Duration::from_secs(2));
        steps.absent("new", false, "no mirror for 7.2");
        assert_eq!(steps.0[0].line(5), "ok      guest     2.0 s  3 passed, 0 failed, 0 ignored");
        assert_eq!(steps.0[1].line(5), "absent  new    not available: no mirror for 7.2");
        assert_eq!(steps.summary(), ExitCode::SUCCESS);
        steps.absent("old", true, "no mirror for 6.1");
        assert_eq!(steps.0[2].line(5), "FAILED  old    not available: no mirror for 6.1");
        assert_eq!(steps.summary(), ExitCode::FAILURE);
    }

    #[test]
    fn what_is_ignored_where_everything_is_there_is_a_failure() {
        let mut steps = Steps::default();
        let result = "test result: ok. 3 passed; 0 failed; 1 ignored";
        steps.add("guest", true, result, Duration::ZERO);
        assert_eq!(steps.0[0].line(5), "FAILED  guest     0.0 s  3 passed, 0 failed, 1 ignored");
    }

    #[test]
    fn results_of_several_test_binaries_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 4, failed: 2, ignored: 1 });
        assert_eq!(counts.words(), "4 passed, 2 failed, 1 ignored");
    }
}
