//! A Debian 12 to install packages in: debootstrapped once, from the mirror that this host's apt
//! uses, and kept in the target directory. Who uses it leaves it as it is.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cargo;
use crate::mirror::Mirrors;
use crate::say::note;

/// The release.
const SUITE: &str = "bookworm";
/// What is there besides the essential packages: what the package of flowlog depends on, and what
/// judges its files.
const INCLUDED: [&str; 5] = ["fish", "logrotate", "man-db", "systemd", "zsh"];

/// Its root directory.
///
/// # Errors
/// It is not there and cannot be made, which needs root.
pub(crate) fn root() -> Result<PathBuf> {
    let above = cargo::target()?.join("debian");
    let root = above.join(format!("{SUITE}-{}", INCLUDED.join("-")));
    if root.exists() {
        return Ok(root);
    }
    fs::create_dir_all(&above)?;
    let mirrors = Mirrors::of_apt()?;
    let mirror = mirrors.of(SUITE)?;
    // Beside its place, which it is renamed to when it is whole.
    let making = tempfile::Builder::new().prefix(".making-").tempdir_in(&above)?;
    let log = above.join("debootstrap.log");
    note!("making a Debian {SUITE}, which takes a minute or two");
    let output = File::create(&log)?;
    // What it mounts, and may leave mounted, is nobody else's.
    let mut command = Command::new("unshare");
    command.args(["--mount", "debootstrap", "--variant=minbase"]);
    command.arg(format!("--include={}", INCLUDED.join(",")));
    command.arg(SUITE).arg(making.path().join("root")).arg(mirror);
    command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    let status = command.status().context("cannot run debootstrap")?;
    ensure!(status.success(), "debootstrap failed, see {}", log.display());
    let renamed = fs::rename(making.path().join("root"), &root);
    // Somebody else may have been quicker; then his is as good.
    ensure!(root.exists(), "cannot make {}: {renamed:?}", root.display());
    Ok(root)
}
