//! An environment of Python with those who read Parquet files besides flowlog, in cargo's target
//! directory. It is made once, from PyPI or what pip is configured to use instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cargo;
use crate::say::say;

/// What tests ask for the environment's interpreter.
pub(crate) const PYTHON: &str = "FLOWLOG_PYTHON";
/// What is installed.
const PACKAGES: [&str; 2] = ["duckdb==2.0.0", "pyarrow==26.0.1"];
/// Written when all of them are: an environment without it is made anew.
const COMPLETE: &str = "complete";

/// Provides it, and returns its interpreter.
///
/// # Errors
/// It cannot be made.
pub(crate) fn provide() -> Result<PathBuf> {
    let directory = cargo::target()?.join("python");
    let python = directory.join("bin/python3");
    let wanted = PACKAGES.join("\n");
    let complete = directory.join(COMPLETE);
    if python.exists() && std::fs::read_to_string(&complete).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    say!("Python with {}", PACKAGES.join(" and "));
    run(Command::new("virtualenv").args(["--quiet", "--clear"]).arg(&directory))?;
    run(pip(&python).args(PACKAGES))?;
    std::fs::write(&complete, wanted).with_context(|| complete.display().to_string())?;
    Ok(python)
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
