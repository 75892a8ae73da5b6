//! Every sink side by side: generated flows of a realistic mix into each in turn, until its far side
//! has all of them; then, over netlink, ulogd2's sinks for databases and collectors beside
//! flowlog's.
//!
//! | module | its one job |
//! |---|---|
//! | [`far`] | the sinks, and what is asked of a far side |
//! | [`files`] | sinks that write files |
//! | [`servers`] | sinks that ship to a server |
//! | [`replay`] | the flows of the mix into one of them |
//! | [`targets`] | what was to be reached |

use std::fs;
use std::path::PathBuf;

use ::tests::rates::{Rate, ipfix, pgsql, sqlite3};
use anyhow::{Context as _, Result};

use self::replay::Row;
use super::machine;
use crate::say::say;
use crate::{cargo, interrupt, python};

mod far;
mod files;
mod replay;
mod servers;
mod targets;

/// Flows of the mix that each sink gets.
pub(super) const FLOWS: u32 = 1_000_000;

/// The programs that it needs, and Python with DuckDB.
#[derive(Debug)]
pub(super) struct Programs {
    flowlog: PathBuf,
    host: PathBuf,
    kafka: PathBuf,
    archive: PathBuf,
    python: PathBuf,
}

impl Programs {
    /// Builds what the environment does not name.
    ///
    /// # Errors
    /// One does not build.
    pub(super) fn built() -> Result<Self> {
        let python = match std::env::var_os(python::PYTHON) {
            Some(python) => python.into(),
            None => python::provide()?,
        };
        Ok(Self {
            flowlog: cargo::flowlog()?,
            host: cargo::host()?,
            kafka: cargo::kafka_mock()?,
            archive: cargo::archive_bench()?,
            python,
        })
    }

    /// What tells another user where they are.
    pub(super) fn environment(&self) -> [(&'static str, &PathBuf); 5] {
        [
            (cargo::FLOWLOG, &self.flowlog),
            (cargo::HOST, &self.host),
            (cargo::KAFKA, &self.kafka),
            (cargo::ARCHIVE, &self.archive),
            (python::PYTHON, &self.python),
        ]
    }
}

/// Measures, and returns the report.
///
/// # Errors
/// Something cannot be run, or flows are missing.
pub(super) fn measure(programs: &Programs, flows: u32) -> Result<String> {
    let mut report = format!("Machine: {}. {}\n", machine::describe()?, load()?);
    let rows = replay::all(programs, flows)?;
    report += &format!("\n{flows} flows of the mix into each sink in turn:\n\n{}", Row::HEAD);
    report.extend(rows.iter().map(Row::line));
    let mut live = Vec::new();
    for (name, measure) in [
        ("SQLITE3", sqlite3::measure as fn() -> _),
        ("PGSQL", pgsql::measure),
        ("IPFIX", ipfix::measure),
    ] {
        interrupt::check()?;
        say!("ulogd2 and flowlog over netlink: {name}");
        let rates = measure()?;
        report += &format!("\n{name}, over netlink:\n\n{}", Rate::HEAD);
        report.extend(rates.iter().map(Rate::line));
        live.push((name, rates));
    }
    report += &targets::table(&rows, &live, &targets::Archive::measure(&programs.archive)?)?;
    Ok(report + &format!("\nAt the end: {}\n", load()?))
}

/// How busy the machine is.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let one = text.split(' ').next().context("no load")?;
    Ok(format!("Load of the last minute: {one}."))
}
