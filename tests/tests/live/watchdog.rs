//! The watchdog of systemd: told while the engine turns, and not a moment longer.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::poll;
use tests::stopped::Stopped;

const PING: &str = "WATCHDOG=1";
/// How long the daemon may be silent, by the environment that systemd gives it.
const LIMIT: Duration = Duration::from_secs(1);
const FLOWS: u32 = 200;

fn launch<'n>(single: &'n SingleNs, config: &str) -> Result<Launch<'n>> {
    let launch = Launch::new(Program::Flowlog, single.namespace(), config)?;
    Ok(launch.environment("WATCHDOG_USEC", &LIMIT.as_micros().to_string()))
}

fn wait_pings(daemon: &Daemon, number: usize) -> Result<()> {
    let mut pings = 0;
    poll::until("the watchdog's word", || {
        pings += daemon.notify.words()?.iter().filter(|word| *word == PING).count();
        Ok((pings >= number).then_some(()))
    })
}

/// On an idle host too, and no more often than it is asked for.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_daemon_at_work_tells_it() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &config("event_mask=1\nhash_enable=0", "sync=1"))?.start()?;
    wait_pings(&daemon, 1)?;
    let begin = Instant::now();
    wait_pings(&daemon, 4)?;
    let elapsed = begin.elapsed();
    ensure!(elapsed >= LIMIT * 3 / 2, "4 pings in {elapsed:?}, more than two each {LIMIT:?}");
    ensure!(daemon.stop()?.code == Some(0), "it has not ended well");
    Ok(())
}

/// Not while the thread that reads events stands still, whatever the others do.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_daemon_that_is_stuck_does_not() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &config("event_mask=1\nhash_enable=0", "sync=1"))?.start()?;
    wait_pings(&daemon, 1)?;
    let stopped = Stopped::of(&daemon)?;
    daemon.notify.words()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    sleep(2 * LIMIT);
    let words = daemon.notify.words()?;
    ensure!(words.is_empty(), "{words:?}");
    drop(stopped);
    wait_pings(&daemon, 1)?;
    daemon.wait_lines("all lines", |lines| lines.len() == FLOWS as usize)?;
    ensure!(daemon.stop()?.code == Some(0), "it has not ended well");
    Ok(())
}
