//! The archive: installed as its INSTALL says, and its program where there is nothing else.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::config;
use tests::debian::{Debian, made};
use tests::lab::SingleNs;
use tests::lines::{self, ensure_equal, uncounted};
use tests::notify::{self, Notify};
use tests::poll;
use tests::process::Guarded;

/// Unpacks it into a directory, and returns the name of its own there.
fn unpack(into: &std::path::Path) -> Result<String> {
    let archive = made("FLOWLOG_ARCHIVE")?;
    let status = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).status()?;
    ensure!(status.success(), "tar failed");
    let mut entries = fs::read_dir(into)?;
    let name = entries.next().context("it is empty")??.file_name();
    ensure!(entries.next().is_none(), "it has more than one directory");
    Ok(name.to_string_lossy().into_owned())
}

/// Its commands are those lines that are set in.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn its_instructions_install_it() -> Result<()> {
    let debian = Debian::new()?;
    fs::create_dir(debian.path("/tmp/archive"))?;
    let name = unpack(&debian.path("/tmp/archive"))?;
    let install = debian.text(&format!("/tmp/archive/{name}/INSTALL"))?;
    let commands: Vec<_> = install.lines().filter(|line| line.starts_with("    ")).collect();
    ensure!(commands.len() > 10, "INSTALL has no commands");
    debian.run(&format!("cd /tmp/archive/{name}\n{}", commands.join("\n")))?;
    let said = debian.run("systemd-analyze verify /etc/systemd/system/flowlog.service")?;
    ensure!(said.is_empty(), "systemd-analyze verify:\n{said}");
    let owner = debian.run("stat -c '%U %G %a' /var/log/flowlog")?;
    ensure!(owner.trim() == "flowlog adm 2750", "the logs are of {owner}");
    debian.run("man --where flowlog-watch && flowlog --version")?;
    let said = debian.run("fish -c 'complete -C \"flowlog au\"'")?;
    ensure!(said.starts_with("audit"), "fish completes au as {said:?}");
    Ok(())
}

/// No loader, no library, no file but /etc/passwd for `-u` and /etc/group for its groups.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn its_program_runs_where_nothing_else_is() -> Result<()> {
    let root = TempDir::with_prefix("flowlog-test-")?;
    let place = TempDir::with_prefix("flowlog-test-")?;
    let name = unpack(place.path())?;
    for directory in ["etc", "proc", "logs"] {
        fs::create_dir(root.path().join(directory))?;
    }
    fs::copy(place.path().join(name).join("flowlog"), root.path().join("flowlog"))?;
    let configuration = config("event_mask=1\nhash_enable=0", "sync=1").replace("@DIR@", "/logs");
    fs::write(root.path().join("etc/flowlog.conf"), configuration)?;
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\nlogger:x:4711:4712::/:\n")?;
    fs::write(root.path().join("etc/group"), "root:x:0:\nlogger:x:4712:\nmore:x:4713:logger\n")?;
    let notify = Notify::bind(&root.path().join("notify"))?;
    let single = SingleNs::new()?;
    let script = "mount -t proc proc \"$1/proc\"; exec chroot \"$@\"";
    let mut command = single.namespace().command("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh"]).arg(root.path());
    command.args(["/flowlog", "run", "--capture", "netlink", "-u", "logger"]);
    let mut process = Guarded::spawn(command.env(notify::VARIABLE, "/notify"))?;
    poll::until("READY=1", || {
        let ended = process.ended()?;
        ensure!(ended.is_none(), "it ended with {ended:?}");
        Ok(notify.has("READY=1")?.then_some(()))
    })?;
    let same = |field: &str| Ok::<_, anyhow::Error>(process.status(field)?.replace('\t', " "));
    ensure!(same("Uid")? == "4711 4711 4711 4711", "uids {}", same("Uid")?);
    ensure!(same("Groups")?.trim() == "4712 4713", "groups {}", same("Groups")?);
    udp_burst(&single, 4000, 0, 50)?;
    process.signal(Signal::SIGTERM)?;
    let code = process.wait()?;
    ensure!(code == Some(0), "it ended with {code:?}");
    let lines = lines::parse(&fs::read_to_string(root.path().join("logs/flows.log"))?)?;
    ensure_equal("the log", &burst_lines("NEW", 4000, 0..50), &uncounted(&lines))
}
