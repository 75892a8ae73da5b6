//! The service under systemd itself: sandboxed, watched, its log rotated, upgraded and removed.

use anyhow::{Context, Result, ensure};
use tests::booted::Booted;
use tests::debian::Debian;
use tests::lab::SingleNs;
use tests::poll;

use super::service::{LOG, NEEDED, flows, wait_lines};

const UNIT: &str = "flowlog.service";

/// Boots with the package, and enables the service as an administrator does.
fn enabled<'d>(debian: &'d Debian, single: &SingleNs) -> Result<Booted<'d>> {
    let booted = Booted::new(debian, single.namespace())?;
    let state = booted.property(UNIT, "ActiveState")?;
    ensure!(state == "inactive", "nobody enabled it, and it is {state}");
    let journal = || booted.run(&format!("journalctl --no-pager -u {UNIT}")).unwrap_or_default();
    booted.run(&format!("systemctl enable --now {UNIT}")).with_context(journal)?;
    Ok(booted)
}

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn it_logs_in_its_sandbox() -> Result<()> {
    let (debian, single) = (Debian::with_package()?, SingleNs::new()?);
    let booted = enabled(&debian, &single)?;
    let user = debian.run("id -u flowlog")?;
    let ids = booted.status(UNIT, "Uid")?;
    ensure!(ids.split_whitespace().all(|id| id == user.trim()), "uids {ids}, not {user}");
    for set in ["CapEff", "CapPrm", "CapAmb", "CapBnd"] {
        let held = u64::from_str_radix(&booted.status(UNIT, set)?, 16)?;
        ensure!(held == NEEDED, "{set} is {held:#x}, not {NEEDED:#x}");
    }
    ensure!(booted.status(UNIT, "NoNewPrivs")? == "1", "new privileges can be had");
    ensure!(booted.status(UNIT, "Seccomp")? == "2", "system calls are not filtered");
    let pid = booted.property(UNIT, "MainPID")?;
    let inside = format!("nsenter --target={pid} --mount --root --wd=/proc/{pid}/root --");
    booted.run(&format!("{inside} touch /var/log/flowlog/here"))?;
    let (written, _) = booted.try_run(&format!("{inside} touch /var/log/elsewhere"))?;
    ensure!(!written, "it can write outside its directory");
    flows(&single, 4000)?;
    wait_lines(&debian, LOG, 4000)?;
    // Upgraded, it is started anew; removed, it is gone.
    booted.run("dpkg --install /run/flowlog.deb")?;
    poll::until("the new one", || {
        let new = booted.property(UNIT, "MainPID")?;
        Ok((new != "0" && new != pid).then_some(()))
    })?;
    flows(&single, 4001)?;
    wait_lines(&debian, LOG, 4001)?;
    booted.run("dpkg --purge flowlog")?;
    let state = booted.property(UNIT, "ActiveState")?;
    ensure!(state == "inactive", "purged, and it is {state}");
    Ok(())
}

/// logrotate, with the file that is installed: the old file is whole, later lines are in a new one
/// of the same owner, none in neither.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn its_log_is_rotated() -> Result<()> {
    let (debian, single) = (Debian::with_package()?, SingleNs::new()?);
    // Nothing is there yet, and nobody to be told.
    debian.run("logrotate --force /etc/logrotate.d/flowlog")?;
    let booted = enabled(&debian, &single)?;
    flows(&single, 4000)?;
    wait_lines(&debian, LOG, 4000)?;
    booted.run("logrotate --force /etc/logrotate.d/flowlog")?;
    let pid = booted.property(UNIT, "MainPID")?;
    let opened = format!("journalctl -u {UNIT} | grep -qF '{LOG} opened anew'");
    poll::until("the new file", || Ok(booted.try_run(&opened)?.0.then_some(())))?;
    flows(&single, 4001)?;
    wait_lines(&debian, LOG, 4001)?;
    wait_lines(&debian, &format!("{LOG}.1"), 4000)?;
    let owner = debian.run(&format!("stat -c '%U %G %a' {LOG}"))?;
    ensure!(owner.trim() == "flowlog adm 640", "the new log is of {owner}");
    booted.run(&format!("systemctl reload {UNIT}"))?;
    ensure!(booted.property(UNIT, "MainPID")? == pid, "it was started anew");
    Ok(())
}

/// A daemon that stands still is ended and started anew, and goes on logging.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn it_is_watched() -> Result<()> {
    let (debian, single) = (Debian::with_package()?, SingleNs::new()?);
    debian.run(&format!(
        "mkdir /etc/systemd/system/{UNIT}.d\n\
         printf '[Service]\\nWatchdogSec=2s\\n' > /etc/systemd/system/{UNIT}.d/soon.conf"
    ))?;
    let booted = enabled(&debian, &single)?;
    let pid = booted.property(UNIT, "MainPID")?;
    booted.run(&format!("sleep 5; kill -STOP {pid}"))?;
    ensure!(booted.property(UNIT, "NRestarts")? == "0", "it was ended while it worked");
    poll::until("its successor", || {
        let (restarts, state) =
            (booted.property(UNIT, "NRestarts")?, booted.property(UNIT, "SubState")?);
        Ok((restarts == "1" && state == "running").then_some(()))
    })?;
    flows(&single, 4000)?;
    wait_lines(&debian, LOG, 4000)
}
