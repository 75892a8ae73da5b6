//! `flowlog who` over a day of 50 million flows, and DuckDB's answers to the same questions: the
//! benchmark `who`, which makes the archive below TMPDIR and removes it.

use anyhow::Result;

use crate::cargo::cargo;
use crate::python;
use crate::step::Steps;

const FLOWS: &str = "50000000";

/// Runs it.
///
/// # Errors
/// DuckDB cannot be had, or cargo cannot be started.
pub(super) fn run(steps: &mut Steps) -> Result<()> {
    let words = ["bench", "--package", "flowlog", "--bench", "who", "--", FLOWS];
    let mut command = cargo(&words);
    command.env(python::PYTHON, python::provide()?);
    steps.run("flowlog who, 50 million flows, against DuckDB", &mut command)
}
