//! What making packages needs besides Debian's packages: cargo-deb, and the standard library for
//! static programs.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use super::{output, succeed};
use crate::cargo::cargo;
use crate::packages::find;
use crate::say::note;

/// cargo-deb: what cargo is told.
const CARGO_DEB: [&str; 5] = ["install", "cargo-deb", "--version", "^3.8", "--locked"];

/// The target of the static program: musl's C library looks users and hosts up without plugins,
/// which a static program with glibc could not load.
pub(super) fn target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Installs what is missing. Returns whether all is there; if not, what is to be done was said.
///
/// # Errors
/// An installation failed.
pub(super) fn provide() -> Result<bool> {
    let target = target();
    if !has_library(&target)? {
        if find("rustup").is_none() {
            note!("the compiler has no standard library for {target}; install it");
            return Ok(false);
        }
        succeed(Command::new("rustup").args(["target", "add", &target]))?;
        ensure!(has_library(&target)?, "rustup has installed {target} for another compiler");
    }
    if !has_cargo_deb() {
        let mut command = cargo(&CARGO_DEB);
        // What it is made of is of no use later, so let cargo take a directory that it removes.
        succeed(command.env_remove("CARGO_TARGET_DIR"))?;
        ensure!(has_cargo_deb(), "cargo does not find the cargo-deb that it has installed");
    }
    Ok(true)
}

/// Whether the compiler that cargo uses can build for a target.
fn has_library(target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let place = ["--print", "target-libdir", "--target", target];
    let directory = output(Command::new(rustc).args(place).current_dir(crate::cargo::workspace()))?;
    let mut files = std::fs::read_dir(directory.trim()).into_iter().flatten().flatten();
    Ok(files.any(|file| file.file_name().as_encoded_bytes().starts_with(b"libstd-")))
}

fn has_cargo_deb() -> bool {
    let mut command = cargo(&["deb", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}
