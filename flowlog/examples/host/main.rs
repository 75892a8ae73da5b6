//! A host of a fleet, without a kernel: flows of a realistic mix, each at its end, through the
//! stacks of a configuration. `host CONFIG SEED FLOWS RATE`: so many flows, so many a second; with
//! rate 0 as fast as they go. Ends when the far sides have them, and prints the totals.
//! `cargo xtask bench --fleet` runs a thousand of them, `cargo xtask bench --sinks` one for each
//! sink.
//!
//! | `total host.…` | milliseconds |
//! |---|---|
//! | `mix` | processor time of making the flows once more, for nobody; with rate 0 |
//! | `made` | until all flows were in the stacks |
//! | `arrived` | until no far side was to take any more |
//! | `closed` | the same, and what it took to close files, transactions, connections |
//! | `cpu` | processor time, `mix` aside, that of making the flows for the stacks included |

use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use flowlog::config;
use flowlog::plugin::Downstream as _;
use flowlog::plugin::output::Output;
use flowlog::plugin::ship::Spool;
use flowlog::stack::{Site, Stacks};
use flowlog::stats::{Measure, SinkStats, Stats};

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
/// How often they are looked at there by a host that is alone, and how long what gathers may take to
/// be handed over.
const LOOK: Duration = Duration::from_millis(5);
const GATHER: Duration = Duration::from_millis(200);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, seed, flows, rate] = arguments.as_slice() else {
        anyhow::bail!("usage: host CONFIG SEED FLOWS RATE");
    };
    let (seed, flows, rate) = (seed.parse()?, flows.parse()?, rate.parse()?);
    let mix = if rate > 0.0 { Duration::ZERO } else { making(seed, flows)? };
    let stats = Stats::default();
    let mut stacks = stacks(Path::new(file), &stats)?;
    stacks.begin();
    let begin = Instant::now();
    make(&mut stacks, seed, flows, rate);
    let made = begin.elapsed();
    let look = if rate > 0.0 { TICK } else { LOOK };
    let arrived = wait(&mut stacks, look).duration_since(begin);
    let closing = Instant::now();
    stacks.close();
    let closed = arrived + closing.elapsed();
    let cpu = processor_time()? - mix;
    let mut stdout = std::io::stdout().lock();
    for line in stats.totals() {
        writeln!(stdout, "{line}")?;
    }
    let times =
        [("mix", mix), ("made", made), ("arrived", arrived), ("closed", closed), ("cpu", cpu)];
    for (name, time) in times {
        writeln!(stdout, "total host.{name}: {} ms", time.as_millis())?;
    }
    Ok(())
}

/// Time that this process has had of processors.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// What it takes to make the flows: all that this process has done so far.
fn making(seed: u64, flows: u64) -> anyhow::Result<Duration> {
    let mut mix = mix::Mix::new(seed, SAID);
    for _ in 0..flows {
        std::hint::black_box(mix.next());
    }
    processor_time()
}

/// The stacks of the configuration's first source.
fn stacks(file: &Path, stats: &Stats) -> anyhow::Result<Stacks> {
    let outcome = config::load(file);
    let config = outcome.config.with_context(|| format!("{:#?}", outcome.diagnostics))?;
    let spool = config.ships().then(|| Spool::open(&config.spool)).transpose()?;
    Stacks::start(&config, 0, Site::of("host", stats, spool.as_ref()))
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
            while left(stacks) > AHEAD || has_no_room(stacks) {
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

/// Records that have not arrived. What an archive holds until its file is closed has.
fn left(stacks: &Stacks) -> u64 {
    let outputs = stacks.each_sink().filter_map(|(_, output)| match output {
        Output::Shipped(shipment) => Some(shipment.stats()),
        _ => None,
    });
    let of = |stats: &SinkStats| {
        let taken = stats.get(Measure::Records);
        let untaken = stats.get(Measure::Spooled).saturating_sub(taken);
        stats.waiting().records + stats.kept().records.min(untaken)
    };
    outputs.map(of).sum()
}

/// A quarter of what may wait in memory does: the spool does not keep up.
fn has_no_room(stacks: &Stacks) -> bool {
    stacks.each_sink().any(|(_, output)| {
        let (bytes, max) = output.fill();
        bytes > max / 4
    })
}

/// Waits until all has arrived, and returns when it had.
fn wait(stacks: &mut Stacks, look: Duration) -> Instant {
    let begin = Instant::now();
    let mut arrived = begin;
    while begin.elapsed() < PATIENCE {
        if left(stacks) > 0 {
            arrived = Instant::now();
        } else if begin.elapsed() > GATHER {
            break;
        }
        sleep(look);
        stacks.flush();
    }
    arrived
}
