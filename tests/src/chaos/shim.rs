//! Faults inside the daemon's process: a library that LD_PRELOAD puts before libc steps the wall
//! clock and has dumps and syncs fail. It is compiled from `shim.c` beside this file, and reads
//! what to do from a file that both map.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The variable that names the control file.
pub const CONTROL: &str = "FLOWLOG_CHAOS_CONTROL";
const SOURCE: &str = include_str!("shim.c");
/// Where the fields of `struct control` are, and its size.
const CLOCK: u64 = 0;
const FAILING_DUMPS: u64 = 8;
const FAILED_DUMPS: u64 = 12;
const FAILING_SYNCS: u64 = 16;
const FAILED_SYNCS: u64 = 20;
const SIZE: u64 = 24;

/// The compiled library and its control file.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    path: PathBuf,
    control: File,
}

impl Shim {
    /// Compiles it into this directory.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(directory: &Path) -> Result<Self> {
        let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let output = command.output().context("cc: apt-get install gcc")?;
        ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        let path = directory.join("shim.control");
        let control = File::options().read(true).write(true).create_new(true).open(&path)?;
        control.set_len(SIZE)?;
        Ok(Self { library, path, control })
    }

    /// What goes into `LD_PRELOAD`.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// What goes into [`CONTROL`].
    pub fn control(&self) -> &Path {
        &self.path
    }

    /// Moves the wall clock of the daemon by a number of seconds from the real one.
    ///
    /// # Errors
    /// The control file cannot be written.
    pub fn step_clock(&self, seconds: i64) -> Result<()> {
        Ok(self.control.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), CLOCK)?)
    }

    /// Has the next reads of dumps fail with ENOBUFS.
    ///
    /// # Errors
    /// As [`Shim::step_clock`].
    pub fn fail_dumps(&self, times: u32) -> Result<()> {
        Ok(self.control.write_all_at(&times.to_ne_bytes(), FAILING_DUMPS)?)
    }

    /// Has the next syncs of files fail with EIO.
    ///
    /// # Errors
    /// As [`Shim::step_clock`].
    pub fn fail_syncs(&self, times: u32) -> Result<()> {
        Ok(self.control.write_all_at(&times.to_ne_bytes(), FAILING_SYNCS)?)
    }

    /// How many dumps and syncs have failed so far.
    ///
    /// # Errors
    /// The control file cannot be read.
    pub fn failed(&self) -> Result<(u32, u32)> {
        let number = |at| -> Result<u32> {
            let mut bytes = [0; 4];
            self.control.read_exact_at(&mut bytes, at)?;
            Ok(u32::from_ne_bytes(bytes))
        };
        Ok((number(FAILED_DUMPS)?, number(FAILED_SYNCS)?))
    }

    /// What a process sees under it: the wall clock in seconds, as `date` prints it.
    #[cfg(test)]
    fn date(&self) -> Result<i64> {
        let mut command = Command::new("date");
        command.arg("+%s").env("LD_PRELOAD", &self.library).env(CONTROL, &self.path);
        let output = command.output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_process_lives_in_another_time() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let shim = Shim::build(directory.path())?;
        for seconds in [0, 172_800, -3600] {
            shim.step_clock(seconds)?;
            let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() as i64;
            let seen = shim.date()?;
            assert!((seen - real - seconds).abs() <= 2, "{seconds}: {seen} at {real}");
        }
        assert_eq!(shim.failed()?, (0, 0));
        Ok(())
    }

    #[test]
    fn a_sync_fails_as_often_as_asked() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let shim = Shim::build(directory.path())?;
        shim.fail_syncs(1)?;
        let sync = || -> Result<bool> {
            let mut command = Command::new("dd");
            command.args(["if=/dev/zero", "count=1", "conv=fdatasync", "status=none"]);
            command.arg(format!("of={}", directory.path().join("file").display()));
            command.env("LD_PRELOAD", shim.library()).env(CONTROL, shim.control());
            Ok(command.output()?.status.success())
        };
        assert!(!sync()?);
        assert!(sync()?);
        assert_eq!(shim.failed()?, (0, 1));
        Ok(())
    }
}
