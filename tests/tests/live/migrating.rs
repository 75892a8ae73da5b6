//! docs/migrating.md: its commands make a configuration of flowlog out of ulogd2's, and compare the
//! logs of both.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::daemon::{Daemon, Finished, Program, config};
use tests::lab::Lab;
use tests::page::Page;
use tests::traffic;

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_page_finds_what_only_one_of_them_has() -> Result<()> {
    let lab = Lab::new()?;
    let settings = "event_mask=5\nhash_enable=0\nnetlink_socket_buffer_size=8388608\n\
                    netlink_socket_buffer_maxsize=33554432";
    let [ulogd, flowlog] = [Program::Ulogd, Program::Flowlog]
        .map(|program| Daemon::start(program, lab.router(), &config(settings, "")));
    let (ulogd, flowlog) = (ulogd?, flowlog?);
    let flows = traffic::mix(&lab, 46_000)?;
    lab.router().expire_conntrack()?;
    flowlog.wait_lines("both lines of each", |lines| lines.len() >= 2 * flows.len())?;
    let (ulogd, flowlog) = (ulogd.stop()?, flowlog.stop()?);
    ensure!(ulogd.lines.len() == 2 * flows.len(), "{} lines of ulogd2", ulogd.lines.len());
    let different = compare(&ulogd, &flowlog)?;
    ensure!(different.is_empty(), "{different}");
    // As if ulogd2 had lost one.
    let text = ulogd.text("flows.log");
    let (first, rest) = text.split_once('\n').context("no line")?;
    fs::write(ulogd.path("flows.log"), rest)?;
    let different = compare(&ulogd, &flowlog)?;
    let lost = first.split_once(" [").map(|(_, event)| format!("\t[{event}\n"));
    ensure!(lost.as_ref() == Some(&different), "lost {lost:?}, found {different}");
    Ok(())
}

/// What the page's commands print of both logs.
fn compare(ulogd: &Finished, flowlog: &Finished) -> Result<String> {
    let page = Page::read("migrating.md")?;
    let place = tempfile::tempdir()?;
    let command = page.block("sh", "comm")?;
    let [ulogd, flowlog] = [ulogd, flowlog].map(|log| log.path("flows.log"));
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).current_dir(place.path());
    run(shell.env("ulogd", ulogd).env("flowlog", flowlog))
}

/// The paths in the copy are flowlog's own, and flowlog takes it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_page_makes_a_configuration() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    let theirs = config("event_mask=5\nhash_enable=0", "sync=1")
        .replace("@DIR@/flows.log", "/var/log/ulog/syslogemu.log")
        .replace("@DIR@/daemon.log", "syslog");
    fs::write(path("ulogd.conf"), theirs)?;
    let page = Page::read("migrating.md")?;
    let in_place = |words| -> Result<String> {
        let command = page.block("sh", words)?;
        let command = command.replace("/etc/", &format!("{}/", place.path().display()));
        run(Command::new("sh").args(["-ec", &command]))
    };
    in_place("sed 's#")?;
    ensure!(in_place("uniq -d")?.is_empty(), "both write the same file");
    let ours = fs::read_to_string(path("flowlog.conf"))?;
    ensure!(ours.contains("file=\"/var/log/flowlog/syslogemu.log\"\n"), "{ours}");
    let mut check = Command::new(Program::Flowlog.path()?);
    let found = check.args(["check", "--json", "-c"]).arg(path("flowlog.conf")).output()?;
    let found: serde_json::Value = serde_json::from_slice(&found.stdout)?;
    ensure!(found["configuration"].as_array().is_some_and(Vec::is_empty), "{found}");
    // Files elsewhere stay what they were, and are found.
    let elsewhere = ours.replace("/var/log/flowlog/", "/srv/");
    ["ulogd.conf", "flowlog.conf"].iter().try_for_each(|name| fs::write(path(name), &elsewhere))?;
    ensure!(in_place("uniq -d")? == "file=\"/srv/syslogemu.log\"\n", "not found");
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let done = command.env("LC_ALL", "C").output()?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?)
}
