//! The programs that tests and benchmarks run, and the Debian packages that have them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::privilege::is_root;
use crate::say::say;

/// Program and package.
const NEEDED: [(&str, &str); 6] = [
    ("ulogd", "ulogd2"),
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("strace", "strace"),
];

/// Where a program is. The PATH of a user often lacks the directories of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Sees to it that every program is there: installs what is missing as root. Returns whether all
/// are; if not, the command that installs them has been said.
///
/// # Errors
/// The installation failed.
pub(crate) fn provide() -> Result<bool> {
    let missing: Vec<_> = NEEDED.into_iter().filter(|(name, _)| find(name).is_none()).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    say!("missing programs: {}", programs.join(", "));
    if find("apt-get").is_none() {
        say!("they are in Debian's packages {}; install their like here", packages.join(", "));
        return Ok(false);
    }
    if !is_root() {
        say!(
            "run, and try again:\n  sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
        return Ok(false);
    }
    install(&packages)?;
    for program in programs {
        ensure!(find(program).is_some(), "{program} is still missing after the installation");
    }
    Ok(true)
}

/// Installs packages without starting their services: ulogd2's would log beside the tests.
fn install(packages: &[&str]) -> Result<()> {
    let _masked = packages.contains(&"ulogd2").then(Masked::new);
    apt(&["update"])?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    apt(&words)
}

fn apt(words: &[&str]) -> Result<()> {
    say!("apt-get {}", words.join(" "));
    let mut command = Command::new("apt-get");
    // In runlevel 1, single user, init scripts of packages are not started.
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    let status = command.status().context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get {} failed", words.join(" "));
    Ok(())
}

/// Keeps systemd from starting the service of ulogd2 while this lives; nothing where there is no
/// systemd.
struct Masked;

impl Masked {
    fn new() -> Self {
        systemctl("mask");
        Self
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        systemctl("unmask");
    }
}

fn systemctl(verb: &str) {
    if Path::new("/run/systemd/system").exists() {
        // Not fatal: at worst the service runs, on a configuration that logs no connections.
        let _ = Command::new("systemctl").args([verb, "--runtime", "ulogd2.service"]).status();
    }
}
