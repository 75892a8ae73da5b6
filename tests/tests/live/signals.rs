//! HUP, USR2 and TERM on a running daemon.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{self, ensure_equal, multiset, tagged, totals};
use tests::poll;

use super::{burst_lines, flowlog, uncounted};

const NEW: &str = "event_mask=1\nhash_enable=0";

/// logrotate renames and sends HUP: later lines go to a new file, none to neither.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn hup_opens_a_new_file() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = flowlog(single.namespace(), NEW)?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("lines before", |lines| lines.len() == 10)?;
    fs::rename(daemon.path("flows.log"), daemon.path("flows.log.1"))?;
    udp_burst(&single, 4000, 10, 10)?;
    daemon.process.signal(Signal::SIGHUP)?;
    poll::until("the new file", || Ok(daemon.path("flows.log").exists().then_some(())))?;
    udp_burst(&single, 4000, 20, 10)?;
    let finished = daemon.stop()?;
    let old = lines::parse(&finished.text("flows.log.1"))?;
    ensure!(old.len() >= 10 && finished.lines.len() >= 10, "{} lines in the old file", old.len());
    let all = multiset(old.iter().chain(&finished.lines));
    ensure_equal("both files", &burst_lines("NEW", 4000, 0..30), &all)
}

/// Where the new file cannot be opened the old one stays in use.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn hup_keeps_the_old_file_if_it_must() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = flowlog(single.namespace(), NEW)?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("lines before", |lines| lines.len() == 10)?;
    // A directory in its place refuses root too; the daemon's own log likewise.
    for name in ["flows.log", "daemon.log"] {
        fs::rename(daemon.path(name), daemon.path(&format!("{name}.1")))?;
        fs::create_dir(daemon.path(name))?;
    }
    daemon.process.signal(Signal::SIGHUP)?;
    poll::until("a warning in the old log", || {
        Ok(daemon.text("daemon.log.1").contains("flows.log").then_some(()))
    })?;
    udp_burst(&single, 4000, 10, 10)?;
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}", finished.code);
    let old = multiset(lines::parse(&finished.text("flows.log.1"))?);
    ensure_equal("the old file", &burst_lines("NEW", 4000, 0..20), &old)?;
    let totals = totals(&finished.text("daemon.log.1"));
    ensure!(totals.get("logemu.lines") == Some(&20), "{totals:?}");
    Ok(())
}

/// With a table: one `[UPDATE]` line for each live flow, with its counters, which start anew.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn usr2_tells_live_flows() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = flowlog(single.namespace(), "event_mask=5\nhash_enable=1")?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.process.signal(Signal::SIGUSR2)?;
    daemon.wait_lines("the live flows", |lines| lines.len() >= 10)?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.stop()?.lines;
    for (tag, packets) in [("UPDATE", 1), ("DESTROY", 0)] {
        let told = tagged(&lines, tag);
        let counted = told.iter().all(|line| line.numbers("PKTS") == [packets, 0]);
        ensure!(counted, "{tag} lines without PKTS={packets}: {told:?}");
        ensure_equal(tag, &burst_lines(tag, 4000, 0..10), &uncounted(told))?;
    }
    Ok(())
}

/// ulogd2 2.0.8 dies of it without a table, and where two stacks share a source.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn usr2_kills_nobody() -> Result<()> {
    let single = SingleNs::new()?;
    let shared = config("event_mask=5\nhash_enable=1", "sync=1").replace(
        "[ct1]",
        "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n\
         [emu2]\nfile=\"@DIR@/more.log\"\nsync=1\n[ct1]",
    );
    let alone = config("event_mask=5\nhash_enable=0", "sync=1");
    for (what, config) in [("two stacks", shared), ("no table", alone)] {
        let daemon = Launch::new(Program::Flowlog, single.namespace(), &config)?.start()?;
        daemon.process.signal(Signal::SIGUSR2)?;
        udp_burst(&single, 4000, 0, 10)?;
        daemon.process.signal(Signal::SIGUSR2)?;
        single.namespace().flush_conntrack()?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "{what}: exit {:?}", finished.code);
        let ends = uncounted(tagged(&finished.lines, "DESTROY"));
        ensure_equal(what, &burst_lines("DESTROY", 4000, 0..10), &ends)?;
    }
    Ok(())
}

/// What the kernel has queued is still logged, the totals are told, the pidfile vanishes.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn term_drains_and_tells_totals() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(NEW, "sync=0"))?;
    let daemon = launch.args(&["-p", "@DIR@/pid"]).start()?;
    ensure!(daemon.text("pid") == format!("{}\n", daemon.process.pid()), "the pidfile");
    daemon.process.freeze()?;
    udp_burst(&single, 4000, 0, 1000)?;
    daemon.process.signal(Signal::SIGTERM)?;
    daemon.process.thaw()?;
    let finished = daemon.wait()?;
    ensure!(finished.code == Some(0), "exit {:?}", finished.code);
    ensure!(!finished.path("pid").exists(), "the pidfile is left");
    ensure_equal("drained", &burst_lines("NEW", 4000, 0..1000), &multiset(&finished.lines))?;
    let totals = totals(&finished.log);
    for (name, value) in [("logemu.lines", 1000), ("netlink.messages", 1000), ("netlink.lost", 0)] {
        ensure!(totals.get(name) == Some(&value), "{name} is not {value}: {totals:?}");
    }
    Ok(())
}

/// With `sync=0` a line is in the file within a second all the same.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn unsynced_lines_are_soon_visible() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon =
        Launch::new(Program::Flowlog, single.namespace(), &config(NEW, "sync=0"))?.start()?;
    udp_burst(&single, 4000, 0, 1)?;
    // Twice the time that is promised, for a busy machine.
    poll::within(std::time::Duration::from_secs(2), "one line", || {
        Ok((daemon.lines()?.len() == 1).then_some(()))
    })
}
