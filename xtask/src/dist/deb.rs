//! The package: flowlog/Cargo.toml tells cargo-deb what is in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::version::Version;
use super::{Build, glibc, output, succeed};
use crate::cargo::{self, cargo, workspace};

/// Makes it in a directory.
///
/// # Errors
/// flowlog does not build, would not run on Debian 12, or cannot be packed.
pub(super) fn make(how: Build, version: &Version, into: &Path) -> Result<PathBuf> {
    let program = cargo::target()?.join("release/flowlog");
    let words = ["build", "--release", "--locked", "--package", "flowlog"];
    let mut build = cargo(&words);
    how.shape(version, &mut build);
    succeed(&mut build)?;
    glibc::check(&program)?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let file = into.join(format!("flowlog_{}_{}.deb", version.debian, architecture.trim()));
    let words = ["deb", "--no-build", "--locked", "--strip", "--deb-version", &version.debian];
    let mut command = cargo(&words);
    command.arg("--output").arg(&file).current_dir(workspace().join("flowlog"));
    succeed(version.stamp(&mut command))?;
    Ok(file)
}
