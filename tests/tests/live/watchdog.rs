//! The watchdog of systemd: told while the engine turns, and not a moment longer.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::poll;

const PING: &str = "WATCHDOG=1";
/// How long the daemon may be silent, by the environment that systemd gives it.
const LIMIT: Duration = Duration::from_secs(1);
/// More lines than a pipe holds, 64 KiB.
const FLOWS: u32 = 2000;

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

/// A sink that takes nothing more is a pipe that nobody reads: the engine waits for it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_daemon_that_is_stuck_does_not() -> Result<()> {
    let single = SingleNs::new()?;
    let config = config("event_mask=1\nhash_enable=0", "").replace("flows.log", "pipe");
    let launch = launch(&single, &config)?;
    let pipe = launch.dir().join("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o666))?;
    // Both ends, or its opening would wait for the daemon's.
    let both = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(&pipe)?;
    let daemon = launch.start()?;
    wait_pings(&daemon, 1)?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    poll::until("silence", || {
        daemon.notify.words()?;
        sleep(2 * LIMIT);
        Ok(daemon.notify.words()?.is_empty().then_some(()))
    })?;
    let mut lines = 0;
    let mut read = [0; 65536];
    poll::until("all lines", || {
        if let Ok(length) = (&both).read(&mut read) {
            lines += read[..length].iter().filter(|&&byte| byte == b'\n').count();
        }
        Ok((lines == FLOWS as usize).then_some(()))
    })?;
    wait_pings(&daemon, 1)?;
    ensure!(daemon.stop()?.code == Some(0), "it has not ended well");
    Ok(())
}
