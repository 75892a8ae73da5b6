//! The package's way in and out: installed, removed, installed again, purged.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use tests::debian::Debian;

const CONFFILES: [&str; 3] =
    ["/etc/flowlog.conf", "/etc/logrotate.d/flowlog", "/etc/sysctl.d/99-nf_conntrack_acct.conf"];
const LOGS: &str = "/var/log/flowlog";
/// What stays behind: the user, and what systemd and dpkg remember.
const STAYS: [&str; 7] = [
    "/etc/.pwd.lock",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/var/cache/",
    "/var/lib/",
];

/// Every file but those in memory.
fn files(debian: &Debian) -> Result<BTreeSet<String>> {
    let list = debian.run("find / -xdev -path /mnt -prune -o -print")?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Owner, group and mode of a file.
fn owned(debian: &Debian, file: &str) -> Result<String> {
    Ok(debian.run(&format!("stat -c '%U %G %a' {file}"))?.trim().to_owned())
}

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn an_administrator_finds_it_ready_but_not_enabled() -> Result<()> {
    let debian = Debian::with_package()?;
    let user = debian.run("getent passwd flowlog")?;
    let fields: Vec<_> = user.trim().split(':').collect();
    ensure!(fields[2].parse::<u32>()? < 1000, "no user of the system: {user}");
    ensure!(fields[6].ends_with("/nologin"), "a user who can log in: {user}");
    ensure!(owned(&debian, LOGS)? == "flowlog adm 2750", "{}", owned(&debian, LOGS)?);
    let conffiles = debian.run("dpkg-query --show --showformat='${Conffiles}' flowlog")?;
    let mut conffiles: Vec<_> =
        conffiles.lines().filter_map(|line| line.split_whitespace().next()).collect();
    conffiles.sort_unstable();
    ensure!(conffiles == CONFFILES, "the conffiles are {conffiles:?}");
    let (_, state) = debian.try_run("systemctl is-enabled flowlog")?;
    ensure!(state.trim() == "disabled", "the service is {state}");
    let check = debian.command("flowlog").args(["check", "-c", "/etc/flowlog.conf"]).output()?;
    ensure!(check.status.code() != Some(2), "its own configuration is wrong: {check:?}");
    Ok(())
}

/// Removed, everything is as before but the configuration and the logs; purged, these are gone too.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn it_goes_as_it_came() -> Result<()> {
    let debian = Debian::new()?;
    let before = files(&debian)?;
    debian.install()?;
    let files_of_it = files(&debian)?;
    ensure!(files_of_it.contains("/usr/sbin/flowlog"), "nothing was installed");
    debian.run(&format!(
        "echo '# by the administrator' >> /etc/flowlog.conf\n\
         echo a line > {LOGS}/flowlog.log\n\
         systemctl enable flowlog"
    ))?;
    debian.run("dpkg --remove flowlog")?;
    ensure!(!debian.path("/usr/sbin/flowlog").exists(), "it was not removed");
    for file in CONFFILES.into_iter().chain(["/var/log/flowlog/flowlog.log"]) {
        ensure!(debian.path(file).exists(), "{file} went with the package");
    }
    debian.install()?;
    ensure!(debian.text("/etc/flowlog.conf")?.contains("# by the administrator"), "overwritten");
    let state = debian.run("systemctl is-enabled flowlog")?;
    ensure!(state.trim() == "enabled", "what was enabled is {state}");
    debian.run("dpkg --purge flowlog")?;
    let stays = |file: &&String| !STAYS.iter().any(|stays| file.starts_with(stays));
    let left: Vec<_> = files(&debian)?.difference(&before).filter(stays).cloned().collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    debian.run("getent passwd flowlog").context("the user's number would become another's")?;
    ensure!(!debian.path(LOGS).exists(), "the logs are still there");
    // What comes afterwards finds nothing in its way.
    debian.install()?;
    ensure!(!debian.text("/etc/flowlog.conf")?.contains("administrator"), "it was not purged");
    let (_, state) = debian.try_run("systemctl is-enabled flowlog")?;
    ensure!(state.trim() == "disabled", "the service is {state}");
    ensure!(owned(&debian, LOGS)? == "flowlog adm 2750", "{}", owned(&debian, LOGS)?);
    ensure!(fs::metadata(debian.path("/usr/sbin/flowlog"))?.mode() & 0o6000 == 0, "setuid");
    Ok(())
}
