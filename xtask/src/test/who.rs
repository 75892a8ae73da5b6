//! `flowlog who` over a day of 50 million flows, and DuckDB's answers to the same questions: the
//! benchmark `who`, which makes the archive below TMPDIR and removes it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cargo::{self, cargo};
use crate::packages::find;
use crate::say::note;
use crate::step::Steps;

const FLOWS: &str = "50000000";
/// Of PyPI.
const DUCKDB: &str = "duckdb";

/// Runs it.
///
/// # Errors
/// DuckDB cannot be had, or cargo cannot be started.
pub(super) fn run(steps: &mut Steps) -> Result<()> {
    let modules = modules()?;
    let words = ["bench", "--package", "flowlog", "--bench", "who", "--", FLOWS];
    let mut command = cargo(&words);
    command.env("FLOWLOG_PYTHON", python()?).env("PYTHONPATH", modules);
    steps.run("flowlog who, 50 million flows, against DuckDB", &mut command)
}

fn python() -> Result<PathBuf> {
    find("python3").context("python3 is missing")
}

/// The directory of DuckDB's module, which pip makes where it is missing.
fn modules() -> Result<PathBuf> {
    let modules = cargo::target()?.join("duckdb");
    if has_duckdb(&modules)? {
        return Ok(modules);
    }
    note!("pip install {DUCKDB}");
    let mut pip = Command::new(python()?);
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&modules);
    let status = pip.arg(DUCKDB).status().context("pip cannot be started")?;
    ensure!(status.success() && has_duckdb(&modules)?, "pip could not install {DUCKDB}");
    Ok(modules)
}

fn has_duckdb(modules: &Path) -> Result<bool> {
    let mut command = Command::new(python()?);
    command.args(["-c", "import duckdb"]).env("PYTHONPATH", modules).stderr(Stdio::null());
    Ok(command.status().context("python3 cannot be started")?.success())
}
