//! `cargo xtask bench`: flowlog, ulogd2 and `conntrack -E` on the same traffic, each in turn in a
//! fresh namespace, several rounds interleaved so that a disturbance of the machine meets all of
//! them; the memory of a live flow; and the replay benchmark, without a kernel.
//!
//! | module | its one job |
//! |---|---|
//! | [`fleet`] | many hosts and one ClickHouse |
//! | [`instructions`] | exact costs, in a guest that counts instructions |
//! | [`listener`] | one program that listens: started, drained, ended, what it saw |
//! | [`load`] | one run: a namespace, its listeners, the traffic |
//! | [`memory`] | what a live flow costs |
//! | [`replay`] | recorded messages without a kernel |
//! | [`report`] | medians, the tables, the targets |
//! | [`machine`] | where it was measured |

mod fleet;
mod instructions;
mod listener;
mod load;
mod machine;
mod memory;
mod replay;
mod report;

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

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// New UDP flows that each listener gets, and their ends
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    flows: u32,
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
    let flowlog = cargo::flowlog()?;
    let replay = cargo::replay()?;
    if let Some(code) = privilege::elevate(&[(cargo::FLOWLOG, &flowlog), (cargo::REPLAY, &replay)])?
    {
        return Ok(code);
    }
    interrupt::watch()?;
    leftovers::sweep();
    room_for(args.flows)?;
    let begin = Instant::now();
    let programs = Programs::new(flowlog)?;
    let measured = Measured {
        flows: args.flows,
        rounds: args.rounds,
        cases: cases(&programs, args)?,
        memory: memory::measure(&programs, args.flows)?,
        replay: replay::measure(&replay)?,
    };
    let report = report::markdown(&measured, &machine::describe()?);
    say!("measured in {:.0} s\n\n{report}", begin.elapsed().as_secs_f64());
    if let Some(file) = &args.out {
        fs::write(file, &report).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
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
    let report = fleet::measure(&host, &fleet)?;
    say!("{report}");
    if let Some(file) = &args.out {
        fs::write(file, &report).with_context(|| file.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs all cases, round by round.
fn cases(programs: &Programs, args: &Args) -> Result<Vec<(Case, Vec<Run>)>> {
    let mut cases: Vec<_> = Case::all().into_iter().map(|case| (case, Vec::new())).collect();
    for round in 1..=args.rounds {
        for (case, runs) in &mut cases {
            interrupt::check()?;
            let run = load::run(programs, case, args.flows)
                .with_context(|| format!("measuring {}", case.name()))?;
            say!("round {round} of {}: {}: {}", args.rounds, case.name(), run.words());
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
