//! Instructions for each flow, of every logger, in a guest whose clock counts them: exact and
//! repeatable, whatever else this host does. Caches and locks cost nothing there.

mod paced;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::say::say;
use crate::vm::{Ending, Guest, Machine, kernel};

/// How long the guest may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The lines of all loggers are in the guest's memory.
const MEMORY: u32 = 3072;
/// Whose cost is the measure of all others.
const PEER: &str = "ulogd2";
/// Whose cost is the load's own.
const NOBODY: &str = "nobody";

/// A logger's costs.
struct Row {
    name: String,
    flow: f64,
    user: f64,
    packet: f64,
    lines: u64,
    expected: u64,
}

/// Measures on the kernel of this series, and says the table.
///
/// # Errors
/// The guest cannot be run, or a logger failed in it.
pub(super) fn run(series: &str) -> Result<ExitCode> {
    let place = tempfile::Builder::new().prefix("flowlog-bench-").tempdir()?;
    for (program, name) in [(cargo::flowlog()?, "flowlog"), (cargo::cost()?, "cost")] {
        fs::copy(&program, place.path().join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    let kernel = kernel::provide(series)?;
    let command = ["sh", "-c", "FLOWLOG_BIN=/host/flowlog exec ./cost"].map(str::to_owned);
    let guest = Guest {
        kernel: &kernel,
        machine: Machine { processors: 1, memory: MEMORY, exact: true },
        directory: Some(place.path()),
        command: &command,
        out: None,
        limit: LIMIT,
    };
    let mut output = Vec::new();
    let ending = guest.run(&mut output)?;
    let output = String::from_utf8_lossy(&output);
    if ending != Ending::Exit(0) {
        bail!("{output}{}the measurement failed", ending.words(LIMIT).unwrap_or_default());
    }
    let rows: Vec<Row> = output.lines().filter_map(row).collect();
    say!("{}", table(series, &rows)?);
    say!("{}", paced::table(&output)?);
    Ok(ExitCode::SUCCESS)
}

fn row(line: &str) -> Option<Row> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some(Row {
        name: value["logger"].as_str()?.to_owned(),
        flow: value["instructions_per_flow"].as_f64()?,
        user: value["of_it_in_user_space"].as_f64()?,
        packet: value["instructions_per_packet"].as_f64()?,
        lines: value["lines"].as_u64()?,
        expected: value["expected"].as_u64()?,
    })
}

/// Costs over those of the load alone, and their share of the peer's.
fn table(series: &str, rows: &[Row]) -> Result<String> {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    let nobody = find(NOBODY).context("the load alone was not measured")?;
    let peer = find(PEER).with_context(|| format!("{PEER} was not measured"))?;
    let mut text = format!(
        "Linux {series}, one processor, instructions; the load alone takes {:.0} for a flow and \
         {:.0} for a packet of one\n\n\
         | logger | for a flow | of {PEER}'s | of it in user space | for a packet more | lines |\n\
         |---|---|---|---|---|---|\n",
        nobody.flow, nobody.packet
    );
    for row in rows.iter().filter(|row| row.name != NOBODY) {
        let (own, whole) = (row.flow - nobody.flow, peer.flow - nobody.flow);
        let share = 100.0 * own / whole;
        let Row { name, user, packet, lines, expected, .. } = row;
        let more = packet - nobody.packet;
        text += &format!(
            "| {name} | {own:.0} | {share:.1} % | {user:.0} | {more:.0} | {lines} of {expected} |\n"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{row, table};

    #[test]
    fn costs_are_those_over_the_load_alone() {
        let line = |name: &str, flow: u32| {
            format!(
                r#"{{"logger":"{name}","instructions_per_flow":{flow},"of_it_in_user_space":5,
                "instructions_per_packet":7,"lines":2,"expected":2}}"#
            )
            .replace('\n', "")
        };
        let lines = [line("nobody", 100), line("ulogd2", 1100), line("flowlog kprobe", 150)];
        let rows: Vec<_> = lines.iter().filter_map(|line| row(line)).collect();
        let text = table("6.12", &rows).unwrap();
        assert!(text.contains("| flowlog kprobe | 50 | 5.0 % | 5 | 0 | 2 of 2 |"), "{text}");
        assert!(row("noise").is_none());
        assert!(table("6.12", &rows[..1]).is_err());
    }
}
