//! `sync=1`: what has been taken from the kernel is on disk before more is taken. The system
//! calls tell it, seen by strace.

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Program, config};
use tests::lab::SingleNs;
use tests::lines::multiset;
use tests::poll;
use tests::process::Guarded;

const FLOWS: u32 = 3000;

/// What the system calls of a daemon did to its log file.
#[derive(Debug, Default)]
struct Calls {
    /// Times that events were received.
    batches: usize,
    writes: usize,
    syncs: usize,
    /// Events were received while lines were written and not yet on disk.
    late: usize,
    /// Lines were written and not yet on disk at the end.
    unsynced: bool,
}

impl Calls {
    /// From strace's output with the paths of descriptors (`-y`).
    fn parse(trace: &str) -> Self {
        let mut calls = Self::default();
        for line in trace.lines() {
            let result = line.rsplit("= ").next().and_then(|word| word.split(' ').next());
            let succeeded = result.and_then(|word| word.parse::<i64>().ok()).is_some_and(|n| n > 0);
            let on_log = line.contains("flows.log>");
            if line.contains("recvmmsg(") && succeeded {
                calls.batches += 1;
                calls.late += usize::from(calls.unsynced);
            } else if line.contains("write(") && on_log && succeeded {
                calls.writes += 1;
                calls.unsynced = true;
            } else if line.contains("fdatasync(") && on_log {
                calls.syncs += 1;
                calls.unsynced = false;
            }
        }
        calls
    }
}

/// The calls of a daemon with this `sync` under a load.
fn traced(sync: &str) -> Result<Calls> {
    let single = SingleNs::new()?;
    let text = config("event_mask=1\nhash_enable=0", sync);
    let daemon = Daemon::start(Program::Flowlog, single.namespace(), &text)?;
    let trace = daemon.path("trace").display().to_string();
    let mut command = single.namespace().command("strace");
    let pid = daemon.process.pid().to_string();
    command.args([
        "-y",
        "-s",
        "8",
        "-e",
        "trace=recvmmsg,write,fdatasync",
        "-o",
        &trace,
        "-p",
        &pid,
    ]);
    let mut strace = Guarded::spawn(&mut command)?;
    poll::until("strace", || Ok((daemon.process.status("TracerPid")? != "0").then_some(())))?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("all flows", |lines| lines.len() == FLOWS as usize)?;
    let finished = daemon.stop()?;
    strace.wait()?;
    let lines: usize = multiset(&finished.lines).values().sum();
    ensure!(lines == FLOWS as usize, "{lines} lines");
    Ok(Calls::parse(&finished.text("trace")))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn lines_are_on_disk_before_more_is_taken() -> Result<()> {
    let calls = traced("sync=1")?;
    ensure!(calls.late == 0 && !calls.unsynced, "{calls:?}");
    ensure!(calls.writes > 0 && calls.syncs >= calls.writes, "{calls:?}");
    // Many lines share a write, or the disk would set the pace.
    ensure!(calls.writes * 10 < FLOWS as usize, "{calls:?}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn without_it_nothing_waits_for_the_disk() -> Result<()> {
    let calls = traced("sync=0")?;
    ensure!(calls.syncs == 0 && calls.writes > 0, "{calls:?}");
    Ok(())
}
