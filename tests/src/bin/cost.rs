//! What a logger costs, in instructions for each flow: run in a guest whose clock counts
//! instructions (`cargo xtask bench --instructions`), where a tick of busy time is ten million of
//! them, whoever executed them. Each logger logs the same load, alone; what the load itself costs
//! is measured without a logger and taken off.
//!
//! Prints one line of JSON for each logger.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::process::Guarded;

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
    /// Keys of `[ct1]`; none: not a daemon of ours.
    start: Start,
    /// Lines for each flow; 0: it is not asked for lines.
    lines: u64,
}

enum Start {
    Nobody,
    Listener,
    Ulogd(&'static str),
    Flowlog(&'static str),
}

const ROOMY: &str = "netlink_socket_buffer_size=134217728\nnetlink_socket_buffer_maxsize=134217728";

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
    for logger in loggers() {
        if !wanted.is_empty() && logger.name != "nobody" && !wanted.iter().any(|w| w == logger.name)
        {
            continue;
        }
        let cost = measure(&single, &logger).with_context(|| logger.name)?;
        let line = json!({
            "logger": logger.name,
            "instructions_per_flow": cost.flow.round(),
            "of_it_in_user_space": cost.user.round(),
            "instructions_per_packet": cost.packet.round(),
            "lines": cost.lines,
            "expected": cost.expected,
        });
        #[expect(clippy::print_stdout, reason = "it is what the program is for")]
        {
            println!("{line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A logger at work.
enum Running {
    Nobody,
    Listener(Guarded),
    Daemon(Box<Daemon>),
}

impl Running {
    fn start(single: &SingleNs, logger: &Logger) -> Result<Self> {
        let namespace = single.namespace();
        let daemon = |program, keys: &str| -> Result<Self> {
            let mask = if keys.contains("event_mask") { "" } else { "event_mask=5" };
            let text = config(&format!("{keys}\n{mask}\n{ROOMY}"), "");
            let launch = Launch::new(program, namespace, &text)?.as_configured();
            Ok(Self::Daemon(Box::new(launch.start()?)))
        };
        match logger.start {
            Start::Nobody => Ok(Self::Nobody),
            Start::Listener => {
                let mut command = namespace.command("conntrack");
                command.args(["-E", "-e", "NEW,DESTROY", "-b", "134217728"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let process = Guarded::spawn(&mut command)?;
                std::thread::sleep(Duration::from_secs(1));
                Ok(Self::Listener(process))
            }
            Start::Ulogd(keys) => daemon(Program::Ulogd, keys),
            Start::Flowlog(keys) => daemon(Program::Flowlog, keys),
        }
    }

    /// Bytes that it has written.
    fn written(&self) -> u64 {
        let Self::Daemon(daemon) = self else { return 0 };
        fs::metadata(daemon.path("flows.log")).map_or(0, |file| file.len())
    }

    /// Instructions of its own so far, in user space.
    fn user(&self) -> Result<u64> {
        let pid = match self {
            Self::Nobody => return Ok(0),
            Self::Listener(process) => process.pid(),
            Self::Daemon(daemon) => daemon.process.pid(),
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit_once(") ").context("no name in stat")?.1;
        let utime = after_name.split(' ').nth(11).context("no utime in stat")?;
        Ok(utime.parse::<u64>()? * TICK)
    }

    /// Waits until nothing is written any more.
    fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        let mut last = self.written();
        let mut quiet = 0;
        while quiet < 5 {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.written();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            ensure!(begin.elapsed() < LIMIT, "still writing after {LIMIT:?}");
        }
        Ok(())
    }

    fn stop(self) -> Result<u64> {
        match self {
            Self::Nobody => Ok(0),
            Self::Listener(mut process) => {
                process.signal(Signal::SIGTERM)?;
                process.wait()?;
                Ok(0)
            }
            Self::Daemon(daemon) => {
                let flows = daemon.path("flows.log");
                daemon.process.signal(Signal::SIGTERM)?;
                // The file goes with the daemon's directory, so it is counted before.
                std::thread::sleep(Duration::from_secs(3));
                let lines = Command::new("wc").arg("-l").arg(flows).output()?;
                let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
                let lines = lines.split_whitespace().next().context("wc says nothing")?;
                Ok(lines.parse()?)
            }
        }
    }
}

fn measure(single: &SingleNs, logger: &Logger) -> Result<Cost> {
    let running = Running::start(single, logger)?;
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
