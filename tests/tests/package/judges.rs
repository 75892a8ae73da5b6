//! What systemd and Debian's lintian say.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::debian::{Debian, made};

use super::unit::FILE;

/// The exposure that systemd may find at most.
const EXPOSURE: f64 = 2.0;

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn systemd_understands_the_unit() -> Result<()> {
    let debian = Debian::with_package()?;
    let said = debian.run(&format!("systemd-analyze verify {FILE}"))?;
    ensure!(said.is_empty(), "systemd-analyze verify:\n{said}");
    // A fault is told: the line above does not pass for want of judgement.
    let wrong = format!("sed s/RestrictRealtime/RestrictRealTime/ {FILE} > /run/wrong.service");
    let (_, said) =
        debian.try_run(&format!("{wrong}; systemd-analyze verify /run/wrong.service"))?;
    ensure!(said.contains("RestrictRealTime"), "it takes a wrong key:\n{said}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn the_unit_is_sandboxed() -> Result<()> {
    let debian = Debian::with_package()?;
    let said = debian.run(&format!("systemd-analyze security --offline=true --no-pager {FILE}"))?;
    let (_, level) = said.rsplit_once("flowlog.service: ").context("no level")?;
    let level: f64 = level.split(' ').next().unwrap_or_default().parse().context("no number")?;
    ensure!(level <= EXPOSURE, "the exposure is {level}, above {EXPOSURE}:\n{said}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn lintian_finds_nothing() -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--info"]);
    let output = lintian.arg(made("FLOWLOG_DEB")?).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "lintian:\n{said}");
    Ok(())
}
