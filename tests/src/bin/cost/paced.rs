//! What it costs to look on at 10,000 events per second, and what that does to a daemon on the
//! same host. The guest's processor executes 10^9 instructions per second of the guest's time, so
//! a hundredth of its time is a hundredth of such a core.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::lab::SingleNs;

use crate::TICK;
use crate::running::{Running, Start};

/// Connections that are refused in each period: the entry begins with the SYN and ends with the
/// reset, two events.
const REFUSED: u32 = 50;
const PERIOD: Duration = Duration::from_millis(10);
/// How long, so that there are 10,000 events per second.
const SECONDS: u32 = 10;
const EVENTS: u64 = 10_000 * SECONDS as u64;
/// Nobody listens there.
const CLOSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

const DAEMON: Start = Start::Flowlog("capture=ebpf\nattach=fentry\nhash_enable=0\nnetns=all");

/// Who runs, the daemon first.
const CASES: [(&str, Start, Start); 9] = [
    ("paced: nobody", Start::Nobody, Start::Nobody),
    ("paced: watch, fentry", Start::Nobody, Start::Watch("--capture ebpf --attach fentry")),
    ("paced: watch, kprobe", Start::Nobody, Start::Watch("--capture ebpf --attach kprobe")),
    ("paced: watch, netlink", Start::Nobody, Start::Watch("--capture netlink")),
    ("paced: top, fentry", Start::Nobody, Start::Top("--capture ebpf --attach fentry")),
    ("paced: top, kprobe", Start::Nobody, Start::Top("--capture ebpf --attach kprobe")),
    ("paced: daemon", DAEMON, Start::Nobody),
    ("paced: daemon, beside it watch", DAEMON, Start::Watch("--capture ebpf --attach fentry")),
    ("paced: daemon, beside it top", DAEMON, Start::Top("--capture ebpf --attach fentry")),
];

/// Measures all cases, or those that are wanted.
pub(crate) fn measure(
    single: &SingleNs,
    is_wanted: impl Fn(&str) -> bool,
    mut tell: impl FnMut(Value),
) -> Result<()> {
    for (name, daemon, other) in CASES.into_iter().filter(|(name, ..)| is_wanted(name)) {
        tell(case(single, name, daemon, other).context(name)?);
    }
    Ok(())
}

fn case(single: &SingleNs, name: &str, daemon: Start, other: Start) -> Result<Value> {
    let daemon = Running::start(single, daemon)?;
    let other = Running::start(single, other)?;
    // What is only done once is done.
    load(single, 2)?;
    std::thread::sleep(Duration::from_secs(2));
    let (begin, idle) = (Instant::now(), idle()?);
    let ran = [daemon.ran()?, other.ran()?];
    load(single, SECONDS)?;
    let ran = [daemon.ran()? - ran[0], other.ran()? - ran[1]];
    let busy = begin.elapsed().as_nanos() as u64 - (self::idle()? - idle);
    let elapsed = begin.elapsed();
    ensure!(elapsed < Duration::from_secs(SECONDS.into()) + 2 * PERIOD, "behind: {elapsed:?}");
    std::thread::sleep(Duration::from_secs(3));
    let (written, counted) = (daemon.stop()?, other.stop()?);
    let per_event = |instructions: u64| (instructions as f64 / EVENTS as f64).round();
    Ok(json!({
        "paced": name,
        "instructions_per_event": per_event(busy),
        "of_the_daemon": per_event(ran[0]),
        "of_the_other": per_event(ran[1]),
        "lines_of_the_daemon": written,
        "events_of_the_other": counted,
        "events": EVENTS + 2 * 10_000,
    }))
}

/// Makes 10,000 events in each of so many seconds.
fn load(single: &SingleNs, seconds: u32) -> Result<()> {
    single.namespace().enter(|| {
        let begin = Instant::now();
        for period in 1..=seconds * 100 {
            for _ in 0..REFUSED {
                ensure!(TcpStream::connect(CLOSED).is_err(), "somebody listens on {CLOSED}");
            }
            std::thread::sleep((PERIOD * period).saturating_sub(begin.elapsed()));
        }
        Ok(())
    })
}

/// How long the processor has been idle, nanoseconds, in ticks that the kernel computes from exact
/// times.
fn idle() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no processors in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    let [_, _, _, idle, iowait, ..] = ticks[..] else { anyhow::bail!("{line}: too short") };
    Ok((idle + iowait) * TICK)
}
