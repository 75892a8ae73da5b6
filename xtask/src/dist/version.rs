//! The version that is packed: that of Cargo.toml, which the package's changelog must have too.
//! The time of its entry there is that of everything that is made, so that it can be made again.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::output;
use crate::cargo::workspace;

/// The variable that names the time, as <https://reproducible-builds.org/specs/> has it.
const EPOCH: &str = "SOURCE_DATE_EPOCH";
const CHANGELOG: &str = "conf/debian/changelog";

/// The version, and its time.
#[derive(Debug)]
pub(super) struct Version {
    /// As Cargo.toml has it.
    pub(super) number: &'static str,
    /// With the revision of the package, as its changelog has it.
    pub(super) debian: String,
    /// Seconds since 1970.
    time: String,
}

impl Version {
    /// Reads it.
    ///
    /// # Errors
    /// The changelog has no entry for this version.
    pub(super) fn read() -> Result<Self> {
        // All packages of the workspace have the same.
        let number = env!("CARGO_PKG_VERSION");
        let debian = field("Version")?;
        let upstream = debian.rsplit_once('-').map(|(upstream, _revision)| upstream);
        ensure!(
            upstream == Some(number),
            "{CHANGELOG} begins with {debian}, but Cargo.toml says {number}: add an entry"
        );
        let time = std::env::var(EPOCH).or_else(|_unset| field("Timestamp"))?;
        time.parse::<u64>().with_context(|| format!("{EPOCH}={time} is no number of seconds"))?;
        Ok(Self { number, debian, time })
    }

    /// Has a command take the time for now.
    pub(super) fn stamp<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(EPOCH, &self.time)
    }

    /// The time as an option of tar.
    pub(super) fn mtime(&self) -> String {
        format!("--mtime=@{}", self.time)
    }
}

/// What the newest entry of the changelog says.
fn field(name: &str) -> Result<String> {
    let mut command = Command::new("dpkg-parsechangelog");
    command.args(["-l", CHANGELOG, "-S", name]).current_dir(workspace());
    Ok(output(&mut command)?.trim().to_owned())
}
