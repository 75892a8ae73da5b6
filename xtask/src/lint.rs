//! `cargo xtask lint`: formatting, lints and documentation, each without a warning. The eBPF
//! programs are for a target of their own, so their lints come from the toolchain that builds
//! them.

use std::env::consts::ARCH;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::cargo::{cargo, target, workspace};
use crate::packages::{self, find};
use crate::privilege::is_root;
use crate::say::say;
use crate::setup;
use crate::step::Steps;
use crate::toolchain::{self, Toolchain};

/// The package whose program is for the other target.
const EBPF: &str = "flowlog-ebpf";
/// All features but `kafka-tls` of flowlog, for which OpenSSL would be built: `test --full` has its
/// lints.
const FEATURES: &str = "flowlog/ebpf-log,tests/guest,tests/kafka-tls,tests/live,tests/package";
/// Debian's clippy for its compiler of the eBPF programs.
const CLIPPY: &str = "rust-web-clippy";

/// Runs every check, also after one has failed.
///
/// # Errors
/// cargo cannot be run.
pub(crate) fn run() -> Result<ExitCode> {
    let missing: Vec<_> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter_map(|(verb, component)| (!has(verb)).then_some(component))
        .collect();
    if !missing.is_empty() {
        say!("missing: run `rustup component add {}` and try again", missing.join(" "));
        return Ok(ExitCode::FAILURE);
    }
    if !setup::provide()? {
        return Ok(ExitCode::FAILURE);
    }
    let toolchain = Toolchain::find().context("the compiler of the eBPF programs is gone")?;
    if !provide_clippy(&toolchain)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut steps = Steps::default();
    steps.run("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = |words: &[&str]| {
        let mut command = cargo(&["clippy"]);
        command.args(words).args(["--", "-D", "warnings"]);
        command
    };
    let all = ["--workspace", "--exclude", EBPF, "--all-targets", "--features", FEATURES];
    steps.run("lints", &mut clippy(&all))?;
    let without = ["--package", "flowlog", "--no-default-features", "--all-targets"];
    steps.run("lints without eBPF", &mut clippy(&without))?;
    steps.run("lints of the wire types", &mut clippy(&["--package", EBPF, "--lib", "--tests"]))?;
    steps.run("lints of the eBPF programs", &mut ebpf(&toolchain)?)?;
    let doc = ["doc", "--workspace", "--no-deps", "--features", FEATURES];
    steps.run("documentation", cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(steps.summary())
}

/// clippy for the eBPF programs.
fn ebpf(toolchain: &Toolchain) -> Result<Command> {
    let linker = toolchain::linker().context("bpf-linker is gone")?;
    // Asked for clippy, cargo would take another's, the first that it finds.
    let mut command = toolchain.command("cargo-clippy", &linker, ARCH);
    command.current_dir(workspace());
    command.args(["clippy", "--release", "--locked", "-Z", "build-std=core"]);
    command.args(["--target", "bpfel-unknown-none", "--package", EBPF, "--lib", "--bins"]);
    command.args(["--all-features", "--target-dir"]);
    // The build script of flowlog has its things there too.
    command.arg(target()?.join("ebpf"));
    command.args(["--", "-D", "warnings"]);
    Ok(command)
}

/// Sees to it that the toolchain of the eBPF programs has clippy. Returns whether it has.
fn provide_clippy(toolchain: &Toolchain) -> Result<bool> {
    let there = || toolchain.beside("cargo-clippy").is_file();
    if there() {
        return Ok(true);
    }
    if !toolchain.stable {
        say!("missing: run `rustup component add --toolchain nightly clippy` and try again");
        return Ok(false);
    }
    if !is_root() || find("apt-get").is_none() {
        say!("run, and try again:\n  sudo {}", packages::by_hand(&[CLIPPY]));
        return Ok(false);
    }
    packages::install(&[CLIPPY])?;
    Ok(there())
}

fn has(verb: &str) -> bool {
    let mut command = cargo(&[verb, "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
