//! What a logger costs, in instructions for each flow: run in a guest whose clock counts
//! instructions (`cargo xtask bench --instructions`), where a tick of busy time is ten million of
//! them, whoever executed them. Each logger logs the same load, alone; what the load itself costs
//! is measured without a logger and taken off.
//!
//! Prints one line of JSON for each logger.
//!
//! | module | its one job |
//! |---|---|
//! | [`running`] | a logger, a watch or a top at work |
//! | [`paced`] | the cost of looking on at 10,000 events per second, and to whom |

mod paced;
mod running;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::burst::udp_burst;
use tests::lab::SingleNs;

use self::running::{Running, Start};

/// Flows of one load.
const FLOWS: u32 = 50_000;
/// Loads for each logger; the first warms up and is not counted.
const ROUNDS: u32 = 2;
/// Packets of one flow that exists, for the cost of a packet.
const PACKETS: u32 = 50_000;
/// Instructions in a tick of /proc/stat: 10 ms, one a nanosecond.
const TICK: u64 = 10_000_000;
/// How long a logger may take for a load.
const LIMIT: Duration = Duration::from_secs(600);

/// Who logs.
struct Logger {
    name: &'static str,
    start: Start,
    /// Lines for each flow; 0: it is not asked for lines.
    lines: u64,
}

fn loggers() -> Vec<Logger> {
    let of = |name, start, lines| Logger { name, start, lines };
    vec![
        of("nobody", Start::Nobody, 0),
        of("netlink listener", Start::Listener, 0),
        of("ulogd2", Start::Ulogd("hash_enable=0"), 2),
        of("flowlog netlink", Start::Flowlog("capture=netlink\nhash_enable=0"), 2),
        of("flowlog kprobe", Start::Flowlog("capture=ebpf\nattach=kprobe\nhash_enable=0"), 2),
        of("flowlog fentry", Start::Flowlog("capture=ebpf\nattach=fentry\nhash_enable=0"), 2),
        of(
            "flowlog kprobe, one line",
            Start::Flowlog("capture=ebpf\nattach=kprobe\nhash_enable=1\nhash_max_entries=1000000"),
            1,
        ),
        of(
            "flowlog fentry, one line",
            Start::Flowlog("capture=ebpf\nattach=fentry\nhash_enable=1\nhash_max_entries=1000000"),
            1,
        ),
        of(
            "flowlog kprobe, all events",
            Start::Flowlog("capture=ebpf\nattach=kprobe\nhash_enable=0\nevent_mask=0x1f"),
            2,
        ),
        of(
            "flowlog fentry, all events",
            Start::Flowlog("capture=ebpf\nattach=fentry\nhash_enable=0\nevent_mask=0x1f"),
            2,
        ),
        of(
            "flowlog both, kprobe",
            Start::Flowlog("capture=both\nattach=kprobe\nhash_enable=0\nring_buffer_size=67108864"),
            2,
        ),
        of(
            "flowlog both, fentry",
            Start::Flowlog("capture=both\nattach=fentry\nhash_enable=0\nring_buffer_size=67108864"),
            2,
        ),
        of(
            "flowlog fentry, compared 0.2 s in 2",
            Start::Flowlog(
                "capture=ebpf\nattach=fentry\nhash_enable=0\nring_buffer_size=67108864\n\
                 crosscheck_every=2s\ncrosscheck_for=200ms\ncrosscheck_window_ms=100",
            ),
            2,
        ),
        of("flowlog watch, kprobe", Start::Watch("--capture ebpf --attach kprobe"), 2),
        of("flowlog watch, fentry", Start::Watch("--capture ebpf --attach fentry"), 2),
        of("flowlog watch, netlink", Start::Watch("--capture netlink"), 2),
        of("flowlog top, kprobe", Start::Top("--capture ebpf --attach kprobe"), 2),
        of("flowlog top, fentry", Start::Top("--capture ebpf --attach fentry"), 2),
    ]
}

/// What ran.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// All instructions for a flow's life.
    flow: f64,
    /// Those of the logger's process in user space.
    user: f64,
    /// All instructions for a packet of a flow that exists.
    packet: f64,
    /// Lines written, and lines that there should be.
    lines: u64,
    expected: u64,
}

fn main() -> Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let single = SingleNs::new()?;
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", 2)])?;
    // The table's limits are those of the host.
    fs::write("/proc/sys/net/netfilter/nf_conntrack_max", "1000000")?;
    fs::write("/sys/module/nf_conntrack/parameters/hashsize", "65536")?;
    let is_wanted = |name: &str| {
        wanted.is_empty() || name.ends_with("nobody") || wanted.iter().any(|w| name.contains(w))
    };
    for logger in loggers().iter().filter(|logger| is_wanted(logger.name)) {
        let cost = measure(&single, logger).with_context(|| logger.name)?;
        tell(json!({
            "logger": logger.name,
            "instructions_per_flow": cost.flow.round(),
            "of_it_in_user_space": cost.user.round(),
            "instructions_per_packet": cost.packet.round(),
            "lines": cost.lines,
            "expected": cost.expected,
        }));
    }
    paced::measure(&single, is_wanted, tell)?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "it is what the program is for")]
fn tell(line: Value) {
    println!("{line}");
}

fn measure(single: &SingleNs, logger: &Logger) -> Result<Cost> {
    let running = Running::start(single, logger.start)?;
    let mut cost = Cost::default();
    for round in 0..=ROUNDS {
        let (busy, user) = (busy()?, running.user()?);
        udp_burst(single, 20_000, round * FLOWS, FLOWS)?;
        single.namespace().flush_conntrack()?;
        running.settle()?;
        if round > 0 {
            let flows = f64::from(FLOWS) * f64::from(ROUNDS);
            cost.flow += (self::busy()? - busy) as f64 / flows;
            cost.user += (running.user()? - user) as f64 / flows;
        }
    }
    cost.packet = packet(single)?;
    let loads = u64::from(FLOWS) * u64::from(ROUNDS + 1);
    // The flow of the packets too.
    single.namespace().flush_conntrack()?;
    running.settle()?;
    cost.expected = logger.lines * (loads + 1);
    cost.lines = running.stop()?;
    Ok(cost)
}

/// Sends packets of one flow.
fn packet(single: &SingleNs) -> Result<f64> {
    use std::net::UdpSocket;
    single.namespace().enter(|| {
        let socket = UdpSocket::bind("198.18.0.1:30000")?;
        socket.connect("198.19.0.1:9")?;
        socket.send(b"x")?;
        // The sender alone is busy, so the time that passes is what it executes.
        let begin = Instant::now();
        for _ in 0..PACKETS {
            socket.send(b"x")?;
        }
        Ok(begin.elapsed().as_nanos() as f64 / f64::from(PACKETS))
    })
}

/// Instructions that were not idle so far.
fn busy() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no processors in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("{line}: too short");
    };
    Ok((user + nice + system + irq + softirq) * TICK)
}
