//! A host without a kernel (`flowlog/examples/host`): flows of a realistic mix through the stacks of
//! a configuration, until the far sides have them, and what it has counted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::tests::lines::totals;
use ::tests::process::Guarded;
use anyhow::{Result, ensure};

use crate::interrupt;

/// How long a host may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

/// A host at work.
pub(super) struct Host {
    process: Guarded,
    output: PathBuf,
    code: Option<i32>,
}

impl Host {
    /// Starts it by a command, which replaces itself by it; its words are kept in `directory`.
    ///
    /// # Errors
    /// It cannot be run.
    pub(super) fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let output = directory.join("output");
        command.stdout(File::create(&output)?);
        command.stderr(File::create(directory.join("errors"))?);
        Ok(Self { process: Guarded::spawn(command)?, output, code: None })
    }

    /// Whether it has.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.code.is_none() {
            self.code = self.process.ended().ok().flatten().flatten();
        }
        self.code.is_some()
    }

    /// Waits until it has.
    ///
    /// # Errors
    /// It does not, or somebody has had enough.
    pub(super) fn wait_long(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.has_ended() {
            interrupt::check()?;
            ensure!(begin.elapsed() < PATIENCE, "the host does not end");
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What it has counted.
    ///
    /// # Errors
    /// It has failed; with what it said.
    pub(super) fn totals(&self) -> Result<BTreeMap<String, u64>> {
        let text = fs::read_to_string(&self.output)?;
        let errors = fs::read_to_string(self.output.with_file_name("errors"))?;
        ensure!(self.code == Some(0), "a host ended with {:?}: {errors}", self.code);
        Ok(totals(&text))
    }
}
