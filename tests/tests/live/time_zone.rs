//! The local time zone of lines: followed while the daemon runs, and `TZ` as libc takes it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::poll;

/// Minutes of a day.
const DAY: i32 = 24 * 60;

/// A stack that writes ulogd2's JSON beside the lines.
fn lines_and_json() -> String {
    config("event_mask=1\nhash_enable=0", "sync=1")
        .replace("[ct1]", "stack=ct1:NFCT,json1:JSON\n[json1]\nfile=\"@DIR@/json\"\nsync=1\n[ct1]")
}

/// A host whose /etc/localtime is the link `localtime` in the directory of the daemon.
fn on_host_of(launch: Launch<'_>) -> Launch<'_> {
    let dir = launch.dir().display().to_string();
    // /etc as it is, with one link of its own.
    let script = format!(
        "mkdir {dir}/etc && cp -a /etc/. {dir}/etc && ln -sf {dir}/localtime {dir}/etc/localtime && \
         mount --bind {dir}/etc /etc && unset TZ && exec \"$@\""
    );
    launch.wrapped_by(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}

fn link(dir: &Path, zone: &str) -> Result<()> {
    let new = dir.join("localtime.new");
    symlink(format!("/usr/share/zoneinfo/{zone}"), &new)?;
    Ok(fs::rename(new, dir.join("localtime"))?)
}

/// The offset in the last record of ulogd2's JSON; libc writes none for UTC.
fn offset(daemon: &Daemon) -> Result<Option<String>> {
    let text = daemon.text("json");
    let Some(line) = text.lines().next_back() else { return Ok(None) };
    let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { return Ok(None) };
    let time = record["timestamp"].as_str().context("no timestamp")?;
    Ok(Some(time.get(19..).unwrap_or_default().to_owned()))
}

fn minutes(clock: &str) -> Result<i32> {
    let (hours, minutes) = clock.split_once(':').context("no time")?;
    Ok(hours.parse::<i32>()? * 60 + minutes.parse::<i32>()?)
}

/// Waits until new records have that offset; then the last line of LOGEMU is `ahead` minutes ahead
/// of UTC too.
fn until_offset(single: &SingleNs, daemon: &Daemon, expected: &str, ahead: i32) -> Result<()> {
    poll::until(&format!("records with offset {expected:?}"), || {
        single.namespace().flush_conntrack()?;
        udp_burst(single, 4000, 0, 1)?;
        Ok((offset(daemon)?.as_deref() == Some(expected)).then_some(()))
    })?;
    let text = daemon.text("flows.log");
    let clock = text.lines().next_back().and_then(|line| line.get(7..12)).context("no line")?;
    let output = Command::new("date").args(["-u", "+%H:%M"]).output()?;
    let now = minutes(String::from_utf8(output.stdout)?.trim())?;
    let behind = (now + ahead - minutes(clock)?).rem_euclid(DAY);
    ensure!(behind <= 1, "the line is {behind} minutes behind: {clock}");
    Ok(())
}

/// /etc/localtime is replaced while it runs: followed at HUP, and without it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn another_zone_of_the_host_is_followed() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = Launch::new(Program::Flowlog, single.namespace(), &lines_and_json())?;
    link(launch.dir(), "Asia/Tokyo")?;
    let daemon = on_host_of(launch).start()?;
    until_offset(&single, &daemon, "+0900", 540)?;
    link(&daemon.path(""), "Asia/Kathmandu")?;
    daemon.process.signal(Signal::SIGHUP)?;
    until_offset(&single, &daemon, "+0545", 345)?;
    daemon.wait_log("the time zone has changed")?;
    // It is looked for twice a minute.
    link(&daemon.path(""), "Etc/UTC")?;
    until_offset(&single, &daemon, "", 0)?;
    ensure!(daemon.stop()?.code == Some(0), "it failed");
    Ok(())
}

/// `TZ` with names that libc knows, and one that it does not.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn tz_is_taken_as_libc_takes_it() -> Result<()> {
    let single = SingleNs::new()?;
    for (tz, expected, ahead) in [
        ("posix/Asia/Tokyo", "+0900", 540),
        (":posix/Asia/Tokyo", "+0900", 540),
        ("JST-9", "+0900", 540),
        ("<-03>3", "-0300", -180),
        ("/usr/share/zoneinfo/Asia/Kathmandu", "+0545", 345),
        ("", "", 0),
        ("Nowhere/Zone", "", 0),
    ] {
        let launch = Launch::new(Program::Flowlog, single.namespace(), &lines_and_json())?;
        let daemon = launch.time_zone(tz).start()?;
        until_offset(&single, &daemon, expected, ahead).context(tz)?;
        let finished = daemon.stop()?;
        let unknown = " <6> the time zone TZ=Nowhere/Zone is not known, and UTC is used";
        let warned = finished.log.contains(unknown);
        ensure!(warned == (tz == "Nowhere/Zone"), "TZ={tz}:\n{}", finished.log);
    }
    Ok(())
}
