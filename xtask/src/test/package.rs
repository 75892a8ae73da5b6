//! The tests of what administrators install: it is made as `cargo xtask dist` makes it, and
//! installed in a Debian of its own; and in one of a guest, because the service is to capture by
//! eBPF in its sandbox, which this host's kernel may not allow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::guests;
use crate::cargo::cargo;
use crate::dist::{Build, Products};
use crate::say::say;
use crate::step::Steps;
use crate::vm::{Ending, Guest, Machine, kernel};
use crate::{debian, dist, interrupt};

/// The test program, and where it finds what it tests; `tests::debian` knows them too.
const TESTS: [&str; 5] = ["test", "--package", "tests", "--test", "package"];
const DEB: &str = "FLOWLOG_DEB";
const ARCHIVE: &str = "FLOWLOG_ARCHIVE";
const ROOT: &str = "FLOWLOG_DEBIAN";
/// What the guest runs, its kernel, its memory in MiB, which has the whole system, and its time.
const SERVICE: &str = include_str!("service.sh");
const KERNEL: &str = "6.12";
const MEMORY: u32 = 3072;
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What the service has no use for.
const LEFT_OUT: [&str; 6] = [
    "./usr/share/doc",
    "./usr/share/fish",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/cache/apt",
    "./var/lib/apt/lists",
];

/// Makes the package and the archive, and runs their tests. Without root they are listed only.
///
/// # Errors
/// The tests cannot be run, or somebody wants an end.
pub(super) fn run(how: Build, root: bool, steps: &mut Steps, args: &[String]) -> Result<()> {
    if !root {
        return steps.run("package tests, not run", cargo(&TESTS).arg("--").args(args));
    }
    let made = make(how);
    interrupt::check()?;
    let (products, system) = match made {
        Ok(Some(made)) => made,
        Ok(None) => {
            steps.absent("package tests", true, "the tools above are missing");
            return Ok(());
        }
        Err(error) => {
            steps.absent("package tests", true, &format!("{error:#}"));
            return Ok(());
        }
    };
    let mut command = cargo(&TESTS);
    command.args(["--features", "package", "--"]).args(args);
    command.env(DEB, &products.deb).env(ARCHIVE, products.archive).env(ROOT, &system);
    steps.run("package tests", &mut command)?;
    interrupt::check()?;
    if !args.is_empty() {
        // It is none of the tests that they name.
        return Ok(());
    }
    let name = format!("the service by eBPF on {KERNEL}");
    say!("\n── {name}: begun, its output comes at its end");
    let begin = Instant::now();
    let mut output = Vec::new();
    let ending = service(&products.deb, &system, &mut output);
    guests::add(steps, &name, &output, &ending, LIMIT, begin.elapsed());
    interrupt::check()
}

/// Makes what is tested, and the system to test it in; nothing if its tools cannot be had.
fn make(how: Build) -> Result<Option<(Products, PathBuf)>> {
    say!("\n── package and archive");
    if !dist::provide(how)? {
        return Ok(None);
    }
    Ok(Some((dist::make(how)?, debian::root()?)))
}

/// Boots a guest with the system and the package, and has its systemd start the service.
fn service(deb: &Path, system: &Path, output: &mut Vec<u8>) -> Result<Ending> {
    let place = tempfile::Builder::new().prefix("flowlog-service-").tempdir()?;
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(place.path().join("system.tar"));
    tar.args(LEFT_OUT.map(|path| format!("--exclude={path}"))).arg("--directory").arg(system);
    let mut gzip = Command::new("gzip");
    for command in [tar.arg("."), gzip.arg("-1").arg(place.path().join("system.tar"))] {
        ensure!(command.status()?.success(), "{command:?} failed");
    }
    fs::copy(deb, place.path().join("flowlog.deb")).context("the package cannot be copied")?;
    fs::write(place.path().join("service.sh"), SERVICE)?;
    let guest = Guest {
        kernel: &kernel::provide(KERNEL)?,
        machine: Machine { memory: MEMORY, ..Machine::default() },
        directory: Some(place.path()),
        command: &["sh", "./service.sh"].map(str::to_owned),
        out: None,
        limit: LIMIT,
    };
    guest.run(output)
}
