//! A host of a fleet, without a kernel: flows of a realistic mix, each at its end, through the
//! stacks of a configuration. `host CONFIG SEED FLOWS RATE`: so many flows, so many a second; with
//! rate 0 as fast as they go. Ends when the far sides have them, and prints the totals.
//! `cargo xtask bench --fleet` runs a thousand of them.

use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use flowlog::config;
use flowlog::plugin::Downstream as _;
use flowlog::plugin::output::Output;
use flowlog::plugin::ship::Spool;
use flowlog::stack::{Site, Stack, Stacks};
use flowlog::stats::Stats;

#[path = "../archive/mix.rs"]
mod mix;

/// How often flows come, where there is a rate.
const TICK: Duration = Duration::from_millis(50);
/// Flows between two looks at the sinks, where there is none, and the rate that their times say.
const BATCH: u64 = 1024;
const SAID: f64 = 10_000.0;
/// Flows that may wait for the far side where there is no rate, so that the spool is not measured
/// only.
const AHEAD: u64 = 500_000;
/// How long the far sides may take at the end.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, seed, flows, rate] = arguments.as_slice() else {
        anyhow::bail!("usage: host CONFIG SEED FLOWS RATE");
    };
    let (seed, flows, rate) = (seed.parse()?, flows.parse()?, rate.parse()?);
    let stats = Stats::default();
    let mut stacks = stacks(Path::new(file), &stats)?;
    stacks.begin();
    let begin = Instant::now();
    make(&mut stacks, seed, flows, rate);
    let made = begin.elapsed();
    wait(&mut stacks);
    let arrived = begin.elapsed();
    stacks.close();
    let cpu: Duration =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into();
    let mut stdout = std::io::stdout().lock();
    for line in stats.totals() {
        writeln!(stdout, "{line}")?;
    }
    for (name, time) in [("made", made), ("arrived", arrived), ("cpu", cpu)] {
        writeln!(stdout, "total host.{name}: {} ms", time.as_millis())?;
    }
    Ok(())
}

/// The stacks of the configuration, whatever their source.
fn stacks(file: &Path, stats: &Stats) -> anyhow::Result<Stacks> {
    let outcome = config::load(file);
    let config = outcome.config.with_context(|| format!("{:#?}", outcome.diagnostics))?;
    let spool = config.ships().then(|| Spool::open(&config.spool)).transpose()?;
    let site = Site { host: "host", stats, spool: spool.as_ref() };
    let stacks = config.stacks.iter().map(|stack| Stack::start(stack, site));
    Ok(Stacks(stacks.collect::<anyhow::Result<_>>()?))
}

fn make(stacks: &mut Stacks, seed: u64, flows: u64, rate: f64) {
    let mut mix = mix::Mix::new(seed, if rate > 0.0 { rate } else { SAID });
    let begin = Instant::now();
    let mut made = 0;
    while made < flows {
        let due = if rate > 0.0 {
            sleep(TICK);
            (begin.elapsed().as_secs_f64() * rate) as u64
        } else {
            while left(stacks) > AHEAD {
                sleep(Duration::from_millis(1));
                stacks.flush();
            }
            made + BATCH
        };
        for _ in made..due.min(flows) {
            stacks.push(&mix.next());
        }
        made = due.min(flows).max(made);
        stacks.flush();
    }
}

/// Records that have not arrived.
fn left(stacks: &Stacks) -> u64 {
    let outputs = stacks.each_sink().filter_map(|(_, output)| match output {
        Output::Shipped(shipment) => Some(shipment.tally()),
        _ => None,
    });
    outputs.map(|tally| tally.waiting().records + tally.kept().records).sum()
}

/// Waits until all has arrived.
fn wait(stacks: &mut Stacks) {
    let begin = Instant::now();
    // What gathers is handed over within a tick or two.
    sleep(4 * TICK);
    stacks.flush();
    sleep(TICK);
    while left(stacks) > 0 && begin.elapsed() < PATIENCE {
        sleep(TICK);
        stacks.flush();
    }
}
