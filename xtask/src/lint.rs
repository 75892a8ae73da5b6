//! `cargo xtask lint`: formatting, lints and documentation, each without a warning.

use std::process::{ExitCode, Stdio};

use anyhow::Result;

use crate::cargo::cargo;
use crate::say::say;
use crate::step::Steps;

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
    let mut steps = Steps::default();
    steps.run("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features"];
    steps.run("lints", cargo(&clippy).args(["--", "-D", "warnings"]))?;
    let doc = ["doc", "--workspace", "--no-deps", "--all-features"];
    steps.run("documentation", cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(steps.summary())
}

fn has(verb: &str) -> bool {
    let mut command = cargo(&[verb, "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
