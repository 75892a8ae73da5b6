//! Log files that are removed, replaced, or cannot be synced: noticed, opened anew, counted.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Finished, Launch, Program};
use tests::lab::SingleNs;
use tests::lines::{lost, parse, tagged};
use tests::poll;

use super::readers::{config, health, stop, total, wait_lines};
use super::{burst_lines, uncounted};

/// What noticing may take, and what a busy machine adds.
const NOTICE: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(2);

fn start(single: &SingleNs) -> Result<Daemon> {
    let emu = "file=\"@DIR@/log/flows.log\"\nsync=1";
    let json = "file=\"@DIR@/flows.json\"";
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(emu, json))?;
    fs::create_dir(launch.dir().join("log"))?;
    launch.start()
}

/// Waits for what has to be noticed in time.
fn noticed(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    poll::until(what, || Ok(done().then_some(())))?;
    ensure!(begin.elapsed() < NOTICE + BUSY, "{what} took {:?}", begin.elapsed());
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_log_file_that_was_removed_is_made_again() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = start(&single)?;
    let log = daemon.path("log/flows.log");
    udp_burst(&single, 4000, 0, 10)?;
    wait_lines(&daemon, "log/flows.log", 10)?;
    fs::remove_file(&log)?;
    udp_burst(&single, 4000, 10, 10)?;
    noticed("the file", || log.exists())?;
    daemon.wait_log("flows.log was removed: flowlog makes it anew")?;
    udp_burst(&single, 4000, 20, 10)?;
    wait_lines(&daemon, "flows.json", 30)?;
    let finished = stop(daemon)?;
    ensure!(total(&finished, "logemu.replaced_files")? == 1, "{}", finished.log);
    let lines = parse(&finished.text("log/flows.log"))?;
    let kept = tagged(&lines, "NEW").len() as u64;
    // Those that came before are there too, if the file was removed before they counted.
    let repeated = total(&finished, "logemu.repeated_lines")?;
    ensure!((20..=20 + repeated).contains(&kept), "{kept} lines, {repeated} of them repeated");
    for (what, lines) in [("lines", 30), ("lost_lines", 0), ("unsure_lines", 0)] {
        ensure!(total(&finished, &format!("logemu.{what}"))? == lines, "{what}: {}", finished.log);
    }
    Ok(())
}

/// Lines wait for the directory, and none of them is lost.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_directory_that_was_removed_is_awaited() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = start(&single)?;
    let directory = daemon.path("log");
    fs::remove_dir_all(&directory)?;
    noticed("the warning", || daemon.log().contains("flows.log cannot be written: No such file"))?;
    udp_burst(&single, 4000, 0, 100)?;
    wait_lines(&daemon, "flows.json", 100)?;
    let said = health(single.namespace())?;
    ensure!(said.contains("flows.log cannot be written"), "{said}");
    fs::create_dir(&directory)?;
    wait_lines(&daemon, "log/flows.log", 100)?;
    ensure!(health(single.namespace())? == "ok\n");
    let finished = stop(daemon)?;
    ensure!(total(&finished, "logemu.lines")? == 100, "{}", finished.log);
    ensure!(total(&finished, "logemu.replaced_files")? == 1, "{}", finished.log);
    ensure!(total(&finished, "logemu.lost_lines")? == 0, "{}", finished.log);
    Ok(())
}

/// A shim for libc's fdatasync: it fails once with EIO where the file of that name is.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd) {
    const char *trigger = getenv("EIO_TRIGGER");
    if (trigger && unlink(trigger) == 0) { errno = EIO; return -1; }
    return syscall(SYS_fdatasync, fd);
}
"#;

/// The kernel reports an error of the disk once: the batch is written once more, not counted.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_sync_that_fails_is_not_taken_for_written() -> Result<()> {
    let emu = "file=\"@DIR@/flows.log\"\nsync=1";
    let json = "file=\"@DIR@/flows.json\"";
    let finished = with_a_sync_that_fails((emu, json), "flows.log", "flows.json")?;
    let written = uncounted(tagged(&finished.lines, "NEW"));
    for line in burst_lines("NEW", 4000, 0..20).into_keys() {
        ensure!(written.contains_key(&line), "missing: {line}");
    }
    let twice = finished.lines.len() as u64 - 20;
    ensure!(twice > 0 && total(&finished, "logemu.repeated_lines")? == twice, "{twice} twice");
    ensure!(total(&finished, "logemu.lines")? == 20, "{}", finished.log);
    ensure!(total(&finished, "logemu.lost_lines")? == 0, "{}", finished.log);
    Ok(())
}

/// The same with JSON.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_sync_of_json_that_fails_is_not_taken_for_written() -> Result<()> {
    let emu = "file=\"@DIR@/flows.log\"";
    let json = "file=\"@DIR@/flows.json\"\nsync=1";
    let finished = with_a_sync_that_fails((emu, json), "flows.json", "flows.log")?;
    let text = finished.text("flows.json");
    let mut records: Vec<&str> = text.lines().collect();
    let made = records.len() as u64;
    // A record has an id, and one that is there twice is the same.
    records.sort_unstable();
    records.dedup();
    ensure!(records.len() == 20, "{} records", records.len());
    let twice = made - 20;
    ensure!(twice > 0 && total(&finished, "json.repeated_records")? == twice, "{twice} twice");
    ensure!(total(&finished, "json.records")? == 20, "{}", finished.log);
    ensure!(total(&finished, "json.lost_records")? == 0, "{}", finished.log);
    Ok(())
}

/// Makes 20 flows; one sync of `synced` fails, and none of `other`.
fn with_a_sync_that_fails(
    (emu, json): (&str, &str),
    synced: &str,
    other: &str,
) -> Result<Finished> {
    let single = SingleNs::new()?;
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(emu, json))?;
    let (source, shim) = (launch.dir().join("shim.c"), launch.dir().join("shim.so"));
    let trigger = launch.dir().join("eio");
    fs::write(&source, SHIM)?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&shim, &source]).status();
    ensure!(built?.success(), "apt-get install gcc");
    let daemon = launch
        .environment("LD_PRELOAD", &shim.to_string_lossy())
        .environment("EIO_TRIGGER", &trigger.to_string_lossy())
        .start()?;
    udp_burst(&single, 4000, 0, 10)?;
    wait_lines(&daemon, synced, 10)?;
    fs::write(&trigger, "")?;
    udp_burst(&single, 4000, 10, 1)?;
    daemon.wait_log(&format!("{synced} cannot be written: Input/output error"))?;
    udp_burst(&single, 4000, 11, 9)?;
    wait_lines(&daemon, other, 20)?;
    daemon.wait_log(&format!("{synced} can be written again"))?;
    stop(daemon)
}

/// Said at the start; and when the file is rotated and removed all the same, lines wait, and
/// are counted.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_file_that_the_user_cannot_open_anew_is_named_at_the_start() -> Result<()> {
    let single = SingleNs::new()?;
    let emu = "file=\"@DIR@/log/flows.log\"";
    let json = "file=\"@DIR@/flows.json\"";
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(emu, json))?;
    fs::create_dir(launch.dir().join("log"))?;
    fs::set_permissions(launch.dir().join("log"), Permissions::from_mode(0o755))?;
    let check = Command::new(Program::Flowlog.path()?)
        .args(["check", "-u", "nobody", "-c"])
        .arg(launch.dir().join("ulogd.conf"))
        .output()?;
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(said.contains("log/flows.log cannot be opened anew by nobody"), "{said}");
    ensure!(!said.contains("flows.json cannot be opened anew"), "{said}");
    let daemon = launch.args(&["-u", "nobody"]).start()?;
    daemon.wait_log("log/flows.log cannot be opened anew by nobody")?;
    udp_burst(&single, 4000, 0, 10)?;
    wait_lines(&daemon, "log/flows.log", 10)?;
    let old = daemon.path("log/flows.log.1");
    fs::rename(daemon.path("log/flows.log"), &old)?;
    daemon.process.signal(Signal::SIGHUP)?;
    daemon.wait_log("the old file stays in use")?;
    noticed("that it was renamed", || daemon.log().contains("the renamed file stays in use"))?;
    udp_burst(&single, 4000, 10, 10)?;
    wait_lines(&daemon, "log/flows.log.1", 20)?;
    fs::remove_file(&old)?;
    noticed("that it was removed", || daemon.log().contains("flows.log was removed"))?;
    udp_burst(&single, 4000, 20, 10)?;
    wait_lines(&daemon, "flows.json", 30)?;
    ensure!(health(single.namespace())?.contains("flows.log cannot be written"));
    let finished = stop(daemon)?;
    let (lines, gone) = (total(&finished, "logemu.lines")?, total(&finished, "logemu.lost_lines")?);
    ensure!(lines == 20 && gone == 10, "{lines} written, {gone} lost\n{}", finished.log);
    ensure!(lost(&finished.lines) == 0);
    Ok(())
}
