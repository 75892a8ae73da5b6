//! Many hosts and one ClickHouse: each host is a process with an identity and a spool of its own,
//! which ships flows of a realistic mix to a server started for it. What a flow costs, and what
//! gives in first when there are many hosts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::tests::clickhouse::Server;
use ::tests::lab::SingleNs;
use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::host::Host;
use super::listener::memory;
use super::machine;
use crate::interrupt;
use crate::say::say;

/// Flows of one host that has nothing else to do.
const ALONE: u64 = 1_000_000;
/// Hosts that are started at once.
const WAVE: u32 = 25;
/// Memory that a host may take, bytes: itself, and a spool in memory that is not emptied.
const HOST: u64 = 9 << 20;
const SPOOL: u64 = 4 << 20;
/// What is to be left: the server and all others want some.
const SPARE: u64 = 6 << 30;
/// How long hosts may take once all flows are made.
const PATIENCE: Duration = Duration::from_secs(180);

/// How large the fleet is.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    /// Hosts.
    pub(super) hosts: u32,
    /// Flows a second of each.
    pub(super) rate: u32,
    /// For how long.
    pub(super) seconds: u32,
    /// What they wait for more, a run for each.
    pub(super) lingers: Vec<u32>,
}

/// Measures, and returns the report.
///
/// # Errors
/// Something cannot be run, or flows are missing.
pub(super) fn measure(program: &Path, fleet: &Fleet) -> Result<String> {
    room_for(fleet.hosts)?;
    let mut report = format!("Machine: {}.\n\n", machine::describe()?);
    report += &alone(program)?;
    report += &format!(
        "\n{} hosts of {} flows a second for {} s, their spools in memory:\n\n\
         | linger | flows made | arrived | behind at the end s | inserts | CPU of a core: server \
         | hosts | most connections | most parts | failed attempts | disk bytes per flow |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        fleet.hosts, fleet.rate, fleet.seconds
    );
    for linger in &fleet.lingers {
        interrupt::check()?;
        say!("{} hosts, linger={linger}", fleet.hosts);
        report += &many(program, fleet, *linger)?;
    }
    Ok(report)
}

fn room_for(hosts: u32) -> Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let line = line.context("no MemAvailable")?;
    let available: u64 = line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
    // A spool's file is larger than what is in it, by its log too.
    let wanted = u64::from(hosts) * (HOST + 2 * SPOOL) + SPARE;
    ensure!(
        available > wanted,
        "{hosts} hosts may take {} MiB of memory, and {} are there; take fewer with --hosts",
        wanted >> 20,
        available >> 20
    );
    Ok(())
}

/// What one host and its server cost, and how large a flow is.
fn alone(program: &Path) -> Result<String> {
    let single = SingleNs::untracked()?;
    let server = Server::with_table(single.namespace())?;
    let site = Site::new(&single)?;
    say!("one host");
    let json = site.config(0, "json1:JSON", "[json1]\nschema=full\nfile=\"@DIR@/flows.json\"\n")?;
    let mut host = site.start(program, &json, 0, ALONE / 10, 0)?;
    host.wait_long()?;
    let json = host.totals()?;
    let before = server.process()?.cpu_time()?;
    let mut host = site.start(program, &site.clickhouse(1, 1)?, 1, ALONE, 0)?;
    host.wait_long()?;
    let cpu = server.process()?.cpu_time()? - before;
    let totals = host.totals()?;
    ensure!(totals["clickhouse.records"] == ALONE, "{totals:?}");
    server.ask("OPTIMIZE TABLE flowlog.flow FINAL")?;
    let disk = server.bytes_on_disk()?;
    let seconds = totals["host.arrived"] as f64 / 1e3;
    let per = |bytes: u64, records: u64| bytes as f64 / records as f64;
    let mut text = "| one host, as fast as it goes | |\n|---|--:|\n".to_owned();
    for (name, value) in [
        ("flows a second, all acknowledged", ALONE as f64 / seconds),
        ("CPU of the host, µs per flow", totals["host.cpu"] as f64 * 1e3 / ALONE as f64),
        ("CPU of the server, µs per flow", cpu.as_secs_f64() * 1e6 / ALONE as f64),
        ("JSON with schema=full, bytes per flow", per(json["json.bytes"], json["json.records"])),
        ("sent to ClickHouse, bytes per flow", per(totals["clickhouse.bytes"], ALONE)),
        ("on its disk after merges, bytes per flow", per(disk, ALONE)),
    ] {
        let _infallible = writeln!(text, "| {name} | {value:.1} |");
    }
    Ok(text)
}

/// One run of all hosts: a row of the table.
fn many(program: &Path, fleet: &Fleet, linger: u32) -> Result<String> {
    let Fleet { hosts, rate, seconds, lingers: _ } = fleet;
    let (hosts, rate, seconds) = (*hosts, *rate, *seconds);
    let flows = u64::from(rate) * u64::from(seconds);
    let single = SingleNs::untracked()?;
    let server = Server::with_table(single.namespace())?;
    let site = Site::new(&single)?;
    let mut running = Vec::new();
    let begin = Instant::now();
    for number in 0..hosts {
        let config = site.clickhouse(number, linger)?;
        running.push(site.start(program, &config, number, flows, rate)?);
        if number % WAVE == WAVE - 1 {
            interrupt::check()?;
            sleep(Duration::from_millis(100));
        }
    }
    let mut most = Most::default();
    let last = Instant::now() + Duration::from_secs(seconds.into());
    let mut cpu = Duration::ZERO;
    while running.iter_mut().any(|host| !host.has_ended()) {
        interrupt::check()?;
        ensure!(last.elapsed() < PATIENCE, "hosts do not end");
        most.look(&server);
        cpu = server.process()?.cpu_time()?;
        sleep(Duration::from_secs(1));
    }
    let took = begin.elapsed();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for host in &running {
        for (name, value) in host.totals()? {
            *sums.entry(name).or_default() += value;
        }
    }
    let made = flows * u64::from(hosts);
    let rows = server.number("SELECT uniqExact(time, hash) FROM flowlog.flow")?;
    let inserts =
        server.number("SELECT max(value) FROM system.events WHERE event = 'InsertQuery'")?;
    server.ask("OPTIMIZE TABLE flowlog.flow FINAL")?;
    let disk = server.bytes_on_disk()? as f64 / rows.max(1) as f64;
    let of_a_core = |time: Duration| time.as_secs_f64() / took.as_secs_f64();
    Ok(format!(
        "| {linger}s | {made} | {rows} | {:.0} | {inserts} | {:.2} | {:.2} | {} | {} | {} | {disk:.1} |\n",
        last.elapsed().as_secs_f64(),
        of_a_core(cpu),
        of_a_core(Duration::from_millis(sums["host.cpu"])),
        most.connections,
        most.parts,
        sums["clickhouse.errors"],
    ))
}

/// The most that was seen of what a server has.
#[derive(Clone, Copy, Debug, Default)]
struct Most {
    connections: u64,
    parts: u64,
}

impl Most {
    /// A server that has no time to answer has none to be asked.
    fn look(&mut self, server: &Server<'_>) {
        let connections =
            server.number("SELECT value FROM system.metrics WHERE metric = 'HTTPConnection'");
        let parts =
            server.number("SELECT count() FROM system.parts WHERE active AND table = 'flow'");
        self.connections = self.connections.max(connections.unwrap_or_default());
        self.parts = self.parts.max(parts.unwrap_or_default());
    }
}

/// Where hosts are.
struct Site<'s> {
    single: &'s SingleNs,
    dir: TempDir,
}

impl<'s> Site<'s> {
    fn new(single: &'s SingleNs) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-fleet-").tempdir_in(memory())?;
        Ok(Self { single, dir })
    }

    fn clickhouse(&self, number: u32, linger: u32) -> Result<PathBuf> {
        let keys = format!("[ch1]\nhostname=host{number}\nlinger={linger}\n");
        self.config(number, "ch1:CLICKHOUSE", &keys)
    }

    /// A configuration of a host; `@DIR@` is its directory.
    fn config(&self, number: u32, sink: &str, keys: &str) -> Result<PathBuf> {
        // One host alone may have much that waits.
        let spool = if number < 2 { 1 << 30 } else { SPOOL };
        let dir = self.dir.path().join(number.to_string());
        fs::create_dir_all(&dir)?;
        let text = format!(
            "[global]\nspool_dir=\"@DIR@/spool\"\nspool_max_bytes={spool}\nstack=ct1:NFCT,{sink}\n[ct1]\nhash_enable=0\n{keys}"
        );
        let file = dir.join("flowlog.conf");
        fs::write(&file, text.replace("@DIR@", &dir.to_string_lossy()))?;
        fs::write(dir.join("machine-id"), format!("{:032x}\n", u128::from(number) + 1))?;
        Ok(file)
    }

    /// Starts a host that is another one: it has its own /etc/machine-id.
    fn start(
        &self,
        program: &Path,
        config: &Path,
        number: u32,
        flows: u64,
        rate: u32,
    ) -> Result<Host> {
        const BECOME: &str = "mount --bind \"$1\" /etc/machine-id && shift && exec \"$@\"";
        let dir = config.parent().context("a file has a directory")?;
        let mut command = self.single.namespace().command("unshare");
        command.args(["--mount", "sh", "-c", BECOME, "sh"]).arg(dir.join("machine-id"));
        command.arg(program).arg(config).arg((number + 1).to_string());
        command.arg(flows.to_string()).arg(rate.to_string());
        Host::start(&mut command, dir)
    }
}
