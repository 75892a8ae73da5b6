//! `cargo xtask dist`: what administrators install, in target/dist: a package for Debian 12 and
//! later, and an archive with a static program for everybody else.
//!
//! | module | its one job |
//! |---|---|
//! | [`tools`] | what making them needs, installed |
//! | [`version`] | the one version, and the time that everything made here bears |
//! | [`documents`] | manual pages and completions |
//! | [`deb`] | the package, by cargo-deb |
//! | [`glibc`] | whether the program runs on Debian 12 |
//! | [`archive`] | the archive |

mod archive;
mod deb;
mod documents;
mod glibc;
mod tools;
mod version;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use self::version::Version;
use crate::say::{note, say};
use crate::{cargo, packages, setup};

/// What was made.
#[derive(Debug)]
pub(crate) struct Products {
    /// The package.
    pub(crate) deb: PathBuf,
    /// The archive.
    pub(crate) archive: PathBuf,
}

/// How they are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// As they are released, with the feature `kafka-tls`.
    Released,
    /// As fast as it goes, for tests, and put elsewhere: without that feature, for which OpenSSL
    /// is built twice, and with nothing optimized in the archive's program, which would take as long
    /// as all the rest.
    Quick,
}

impl Build {
    /// Has cargo build so. OpenSSL would have the time of its build in it.
    fn shape(self, version: &Version, command: &mut Command) {
        if self == Self::Released {
            version.stamp(command.args(["--features", "kafka-tls"]));
        }
    }
}

/// Makes both and names them.
///
/// # Errors
/// As [`make`].
pub(crate) fn run() -> Result<ExitCode> {
    if !provide(Build::Released)? {
        return Ok(ExitCode::FAILURE);
    }
    let Products { deb, archive } = make(Build::Released)?;
    for file in [deb, archive] {
        say!("{:>9} KiB  {}", fs::metadata(&file)?.len() / 1024, file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Sees to it that everything needed is there. Returns whether it is; if not, what is to be done
/// has been said.
///
/// # Errors
/// An installation failed.
pub(crate) fn provide(how: Build) -> Result<bool> {
    let lists: &[_] = match how {
        Build::Released => &[packages::DIST, packages::OPENSSL],
        Build::Quick => &[packages::DIST],
    };
    Ok(packages::provide(lists)? && setup::provide()? && tools::provide()?)
}

/// Builds and packs.
///
/// # Errors
/// Something does not build, or would not run where it is to be installed.
pub(crate) fn make(how: Build) -> Result<Products> {
    let into = cargo::target()?.join(match how {
        Build::Released => "dist",
        Build::Quick => "dist-quick",
    });
    fs::create_dir_all(&into).with_context(|| into.display().to_string())?;
    let version = Version::read()?;
    let documents = documents::write()?;
    Ok(Products {
        deb: deb::make(how, &version, &into)?,
        archive: archive::make(how, &version, &documents, &into)?,
    })
}

/// Runs a command that must succeed, its words on standard error.
fn succeed(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let line = format!("{} {}", program.to_string_lossy(), words.join(" "));
    note!("{line}");
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    ensure!(status.with_context(|| format!("cannot run {line}"))?.success(), "{line} failed");
    Ok(())
}

/// What a command that must succeed says.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies a file into a directory.
fn copy(file: &Path, into: &Path) -> Result<()> {
    let name = file.file_name().with_context(|| file.display().to_string())?;
    fs::copy(file, into.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}
