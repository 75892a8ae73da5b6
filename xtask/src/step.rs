//! One step of a longer task: a command whose output is passed on, whose test results are counted
//! and whose time is taken, and the summary of all steps.

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
        self.0.push(Step { name: name.to_owned(), ok, counts, time: begin.elapsed() });
        Ok(())
    }

    /// Says how each step ended and what all of it means.
    pub(crate) fn summary(&self) -> ExitCode {
        say!("\n── summary");
        let width = self.0.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
        for Step { name, ok, counts, time } in &self.0 {
            let state = if *ok { "ok    " } else { "FAILED" };
            let line = format!(
                "{state}  {name:<width$}  {:>6.1} s  {}",
                time.as_secs_f64(),
                counts.words()
            );
            say!("{}", line.trim_end());
        }
        if self.0.iter().all(|step| step.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// How many tests did not run.
    pub(crate) fn ignored(&self) -> u64 {
        self.0.iter().map(|step| step.counts.ignored).sum()
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
    use super::Counts;

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
