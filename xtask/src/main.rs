//! Development tasks, run as `cargo xtask VERB`. Each verb is a module; what several of them need
//! stands beside: [`cargo`] builds, [`packages`] and [`setup`] install what is missing,
//! [`mirror`] knows where apt has it from, [`debian`] makes a system to install in,
//! [`privilege`] becomes root, [`interrupt`] hears Ctrl-C, [`leftovers`] removes namespaces whose
//! maker was killed.

mod bench;
mod cargo;
mod chaos;
mod debian;
mod demo;
mod dist;
mod interrupt;
mod leftovers;
mod lint;
mod mirror;
mod packages;
mod pictures;
mod privilege;
mod python;
mod run;
mod say;
mod setup;
mod step;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of flowlog
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build flowlog and run it on this host, or on a demonstration network
    Run(run::Args),
    /// Run all tests, installing the programs that they need
    Test(test::Args),
    /// Install what building the eBPF programs needs; the others begin with it
    Setup,
    /// Check formatting, lints and documentation
    Lint,
    /// Compare flowlog with ulogd2 and conntrack on the same traffic
    Bench(bench::Args),
    /// Let flowlog run with all its sinks while faults happen at random, and judge it
    Chaos(chaos::Args),
    /// Make the Debian package and the static archive, in target/dist
    Dist,
    /// Draw the pictures of docs/pictures from runs in a virtual machine
    Pictures(pictures::Args),
    /// Run a command on another kernel, in a virtual machine
    Vm(vm::Args),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Setup => setup::run(),
        Verb::Lint => lint::run(),
        Verb::Bench(args) => bench::run(&args),
        Verb::Chaos(args) => chaos::run(&args),
        Verb::Dist => dist::run(),
        Verb::Pictures(args) => pictures::run(&args),
        Verb::Vm(args) => vm::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
