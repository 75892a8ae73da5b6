//! `cargo xtask bench`: flowlog, ulogd2 and `conntrack -E` on the same traffic, each in turn in a
//! fresh namespace, several rounds interleaved so that a disturbance of the machine meets all of
//! them; the memory of a live flow; and the replay benchmark, without a kernel.
//!
//! | module | its one job |
//! |---|---|
//! | [`mod@fleet`] | many hosts and one ClickHouse |
//! | [`host`] | one host without a kernel |
//! | [`instructions`] | exact costs, in a guest that counts instructions |
//! | [`listener`] | one program that listens: started, drained, ended, what it saw |
//! | [`load`] | one run: a namespace, its listeners, the traffic |
//! | [`memory`] | what a live flow costs |
//! | [`replay`] | recorded messages without a kernel |
//! | [`report`] | medians, the tables, the targets |
//! | [`mod@sinks`] | every sink on the same flows, and ulogd2's beside flowlog's |
//! | [`machine`] | where it was measured |

mod fleet;
mod host;
mod instructions;
mod listener;
mod load;
mod machine;
mod memory;
mod replay;
mod report;
mod sinks;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use ::tests::lab::SingleNs;
use anyhow::{Context as _, Result, ensure};

use self::listener::Programs;
use self::load::{Case, Run};
use crate::say::say;
use crate::{cargo, interrupt, leftovers, packages, privilege, setup};

/// Flows that each listener gets.
const FLOWS: u32 = 200_000;

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// New UDP flows that each listener gets, and their ends; 200,000 by default, with --sinks flows
    /// of the mix that each sink gets, 1,000,000
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    flows: Option<u32>,
    /// Times that each case is run; the median of each number is told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Also write the report into this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Count instructions for each flow in a guest instead, of every logger
    #[arg(long, conflicts_with_all = ["flows", "rounds", "out"])]
    instructions: bool,
    /// The kernel of that guest
    #[arg(long, value_name = "SERIES", default_value = "6.12", requires = "instructions")]
    kernel: String,
    /// Replay flows into each sink in turn instead, each to a real server, and have flowlog and
    /// ulogd2 write into the same databases and collectors
    #[arg(long, conflicts_with_all = ["rounds", "instructions", "fleet"])]
    sinks: bool,
    /// Have many hosts ship to one ClickHouse instead
    #[arg(long, conflicts_with_all = ["flows", "rounds", "instructions"])]
    fleet: bool,
    /// Hosts of that fleet
    #[arg(long, default_value_t = 1000, requires = "fleet", value_parser = clap::value_parser!(u32).range(1..))]
    hosts: u32,
    /// Flows a second of each of them
    #[arg(long, default_value_t = 20, requires = "fleet", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long they make flows, seconds
    #[arg(long, default_value_t = 60, requires = "fleet", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// What they wait for more, seconds; a run for each
    #[arg(long, value_delimiter = ',', default_value = "1,10,30", requires = "fleet")]
    linger: Vec<u32>,
}

/// Everything that was measured.
struct Measured {
    flows: u32,
    rounds: u32,
    /// The runs of each case.
    cases: Vec<(Case, Vec<Run>)>,
    memory: Vec<memory::PerFlow>,
    replay: replay::Replay,
}

/// Measures, prints the report and writes it.
///
/// # Errors
/// Something that is measured cannot be run, or the machine does not allow the load.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !packages::provide(&[packages::TESTS, packages::LAB])? || !setup::for_build()? {
        return Ok(ExitCode::FAILURE);
    }
    if args.instructions {
        if !packages::provide(&[packages::TESTS, packages::LAB, packages::GUESTS])? {
            return Ok(ExitCode::FAILURE);
        }
        interrupt::watch()?;
        return instructions::run(&args.kernel);
    }
    if args.fleet {
        return fleet(args);
    }
    if args.sinks {
        return sinks(args);
    }
    let flows = args.flows.unwrap_or(FLOWS);
    let flowlog = cargo::flowlog()?;
    let replay = cargo::replay()?;
    if let Some(code) = privilege::elevate(&[(cargo::FLOWLOG, &flowlog), (cargo::REPLAY, &replay)])?
    {
        return Ok(code);
    }
    interrupt::watch()?;
    leftovers::sweep();
    room_for(flows)?;
    let begin = Instant::now();
    let programs = Programs::new(flowlog)?;
    let measured = Measured {
        flows,
        rounds: args.rounds,
        cases: cases(&programs, flows, args.rounds)?,
        memory: memory::measure(&programs, flows)?,
        replay: replay::measure(&replay)?,
    };
    let report = report::markdown(&measured, &machine::describe()?);
    say!("measured in {:.0} s\n", begin.elapsed().as_secs_f64());
    tell(&report, args)
}

/// Prints a report, and writes it.
fn tell(report: &str, args: &Args) -> Result<ExitCode> {
    say!("{report}");
    if let Some(file) = &args.out {
        fs::write(file, report).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every sink.
fn sinks(args: &Args) -> Result<ExitCode> {
    let programs = sinks::Programs::built()?;
    if let Some(code) = privilege::elevate(&programs.environment())? {
        return Ok(code);
    }
    interrupt::watch()?;
    leftovers::sweep();
    let flows = args.flows.unwrap_or(sinks::FLOWS);
    tell(&sinks::measure(&programs, flows)?, args)
}

/// Many hosts and one ClickHouse.
fn fleet(args: &Args) -> Result<ExitCode> {
    let host = cargo::host()?;
    if let Some(code) = privilege::elevate(&[(cargo::HOST, &host)])? {
        return Ok(code);
    }
    interrupt::watch()?;
    leftovers::sweep();
    let Args { hosts, rate, seconds, ref linger, .. } = *args;
    let fleet = fleet::Fleet { hosts, rate, seconds, lingers: linger.clone() };
    tell(&fleet::measure(&host, &fleet)?, args)
}

/// Runs all cases, round by round.
fn cases(programs: &Programs, flows: u32, rounds: u32) -> Result<Vec<(Case, Vec<Run>)>> {
    let mut cases: Vec<_> = Case::all().into_iter().map(|case| (case, Vec::new())).collect();
    for round in 1..=rounds {
        for (case, runs) in &mut cases {
            interrupt::check()?;
            let run = load::run(programs, case, flows)
                .with_context(|| format!("measuring {}", case.name()))?;
            say!("round {round} of {rounds}: {}: {}", case.name(), run.words());
            runs.push(run);
        }
    }
    Ok(cases)
}

/// The load must fit into the table of the kernel, which is one for all namespaces.
fn room_for(flows: u32) -> Result<()> {
    /// Flows of others that may be there.
    const SPARE: u64 = 1000;
    let single = SingleNs::new()?;
    let room: u64 = single.namespace().sysctl("net/netfilter/nf_conntrack_max")?.parse()?;
    let wanted = u64::from(flows) + SPARE;
    ensure!(
        room >= wanted,
        "net.netfilter.nf_conntrack_max is {room}, too small for {flows} flows; run \
         `sysctl -w net.netfilter.nf_conntrack_max={wanted}`, or take fewer with --flows"
    );
    Ok(())
}
