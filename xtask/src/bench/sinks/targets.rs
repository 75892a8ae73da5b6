//! What the sinks were to reach, and whether they do.

use std::path::Path;
use std::process::{Command, Stdio};

use ::tests::rates::Rate;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::far::PARQUET;
use super::replay::Row;
use crate::say::say;

/// Bytes of a flow in the archive, at most, and flows that a core takes to it in a second.
const BYTES: f64 = 30.0;
const PER_CORE: f64 = 500_000.0;
/// How many times ulogd2's rate.
const TIMES: f64 = 10.0;

/// What the archive's benchmark says: flows that a core takes in a second, and bytes of one.
pub(super) struct Archive {
    /// Without the spool.
    alone: f64,
    /// With it.
    sink: f64,
    bytes: f64,
}

impl Archive {
    /// Runs it.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub(super) fn measure(program: &Path) -> Result<Self> {
        say!("the archive's benchmark");
        let output = Command::new(program).arg("--bench").stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the archive's benchmark failed: {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let object: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        let number = |case: &str, name: &str| {
            object[case][name].as_f64().with_context(|| format!("no {case}.{name} in {text:?}"))
        };
        const RATE: &str = "flows_per_second_of_a_core";
        Ok(Self {
            alone: number("archive", RATE)?,
            sink: number("sink", RATE)?,
            bytes: number("archive", "bytes_per_flow")?,
        })
    }
}

/// The table of targets.
///
/// # Errors
/// One was not measured.
pub(super) fn table(
    rows: &[Row],
    live: &[(&'static str, Vec<Rate>)],
    archive: &Archive,
) -> Result<String> {
    let parquet = rows.iter().find(|row| row.name == PARQUET).context("no archive")?;
    let bytes = parquet.disk_bytes().context("no files")?;
    let core = parquet.per_core();
    let Archive { alone, sink, bytes: slow } = archive;
    let mut text = "\n| target | measured | reached |\n|---|---|---|\n".to_owned();
    text += &line(
        &format!("Parquet, bytes per flow ≤ {BYTES}"),
        &format!("{bytes:.1}; {slow:.1} in the archive's benchmark"),
        bytes.max(*slow) <= BYTES,
    );
    text += &line(
        &format!("Parquet through the spool, flows per second of a core ≥ {PER_CORE}"),
        &format!(
            "{core:.0}; in the archive's benchmark {sink:.0}, and {alone:.0} without the spool"
        ),
        core.min(*sink) >= PER_CORE,
    );
    for name in ["PGSQL", "SQLITE3"] {
        let (_, rates) = live.iter().find(|(other, _)| *other == name).context(name)?;
        let times = times(rates)?;
        let words: Vec<_> =
            times.iter().map(|(name, times)| format!("{name}: {times:.0}")).collect();
        text += &line(
            &format!("{name}, times the rate of ulogd2 ≥ {TIMES}"),
            &words.join("; "),
            times.iter().all(|(_, times)| *times >= TIMES),
        );
    }
    Ok(text)
}

/// Each way of flowlog's beside the first of ulogd2.
fn times(rates: &[Rate]) -> Result<Vec<(&'static str, f64)>> {
    let ulogd = rates.iter().find(|rate| rate.name.starts_with("ulogd2")).context("no ulogd2")?;
    let ours = rates.iter().filter(|rate| rate.name.starts_with("flowlog"));
    Ok(ours.map(|rate| (rate.name, rate.per_second() / ulogd.per_second())).collect())
}

fn line(target: &str, measured: &str, reached: bool) -> String {
    let reached = if reached { "yes" } else { "**no**" };
    format!("| {target} | {measured} | {reached} |\n")
}
