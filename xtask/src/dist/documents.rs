//! Manual pages and completions, as flowlog's example `documents` writes them; pages are
//! compressed, as Debian's policy wants.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::succeed;
use crate::cargo::{self, cargo};

/// Writes them and returns their directory: target/release/documents, where cargo-deb looks.
///
/// # Errors
/// They cannot be written.
pub(super) fn write() -> Result<PathBuf> {
    let directory = cargo::target()?.join("release/documents");
    let words = ["run", "--quiet", "--locked", "--package", "flowlog", "--example", "documents"];
    succeed(cargo(&words).arg("--").arg(&directory))?;
    let pages = fs::read_dir(directory.join("man"))?.map(|page| Ok(page?.path()));
    let pages = pages.collect::<Result<Vec<_>>>().context("the manual pages are gone")?;
    // Without name and time of the file.
    succeed(Command::new("gzip").args(["-9", "-n", "-f"]).args(pages))?;
    Ok(directory)
}
