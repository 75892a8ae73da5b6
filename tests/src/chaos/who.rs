//! Asks `flowlog who` for flows that were made. It may find one, or say that it does not know; it
//! must never say that there was none.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use crate::burst::destination;
use crate::daemon::Program;

/// A question: a flow, and the second in which it was made where the clock was right then.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The number of the flow.
    pub flow: u32,
    /// When it was made, since the epoch.
    pub at: Option<Duration>,
    /// The archive has records of it.
    pub logged: bool,
}

/// The answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How often it was found, for sure.
    pub found: u32,
    /// How often `who` said that it does not know all.
    pub incomplete: u32,
    /// What it says of that, once each.
    pub reasons: BTreeSet<String>,
    /// The flows that were denied or where something went wrong, and what was said.
    pub wrong: Vec<(u32, String)>,
}

/// The most reasons that are reported.
const REASONS: usize = 4;

/// Asks for each of these flows in these directories.
///
/// # Errors
/// flowlog cannot be run.
pub fn ask(questions: &[Question], archives: &[&Path]) -> Result<Answers> {
    let program = Program::Flowlog.path()?;
    let mut answers = Answers::default();
    for question in questions {
        let to = destination(question.flow).to_string();
        let mut command = Command::new(&program);
        command.args(["who", &to, "--proto", "udp"]).env("TZ", "UTC");
        if let Some(at) = question.at {
            command.args(["--at", &second(at)?]);
        }
        let output = command.args(archives).output().context("flowlog who")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code();
        // A reply goes the other way, so this is the destination.
        let is_shown = said.contains(&format!("→ {to} "));
        match code {
            Some(0) if is_shown => answers.found += 1,
            Some(3) if is_shown || !question.logged => {
                answers.incomplete += 1;
                if answers.reasons.len() < REASONS {
                    answers.reasons.extend(said.lines().last().map(str::to_owned));
                }
            }
            _ => {
                let also = String::from_utf8_lossy(&output.stderr);
                let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
                let logged = if question.logged { "which has it" } else { "which lacks it" };
                let words = format!(
                    "exit {code:?} of flowlog {}, {logged}: {} {}",
                    words.join(" "),
                    said.lines().last().unwrap_or_default(),
                    also.lines().last().unwrap_or_default()
                );
                answers.wrong.push((question.flow, words));
            }
        }
    }
    Ok(answers)
}

/// A second, as `date` writes it in UTC.
fn second(at: Duration) -> Result<String> {
    let when = format!("@{}", at.as_secs());
    let output = Command::new("date").args(["-u", "-d", &when, "+%F %T"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The time since the epoch.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_as_who_takes_it() -> Result<()> {
        assert_eq!(second(Duration::from_secs(1_795_973_672))?, "2026-11-29 17:34:32");
        Ok(())
    }
}
