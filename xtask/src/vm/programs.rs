//! The host's programs that make and run a guest, and those that go into it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::note;
use crate::packages::find;
use crate::privilege::is_root;

/// Program and Debian package.
const NEEDED: [(&str, &str); 9] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("dash", "dash"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
    ("xz", "xz-utils"),
];

/// Sees to it that every program is there: installs what is missing as root. Returns whether all
/// are; if not, the command that installs them has been said.
///
/// # Errors
/// The installation failed.
pub(super) fn provide() -> Result<bool> {
    let missing = NEEDED.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(true);
    }
    let words = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !is_root() {
        note(format_args!("programs are missing; run, and try again:\n  sudo {words}"));
        return Ok(false);
    }
    note(&words);
    apt_get(&["update"])?;
    let install = ["install", "-y", "--no-install-recommends"];
    apt_get(&[install.as_slice(), &packages].concat())?;
    Ok(true)
}

fn apt_get(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-q=2").args(words).env("DEBIAN_FRONTEND", "noninteractive");
    // Standard output belongs to the command in the guest.
    let status = command.stdout(Stdio::null()).status().context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get {} failed", words.join(" "));
    Ok(())
}
