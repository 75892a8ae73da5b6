//! What looking on costs at 10,000 events per second, and whom.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::NOBODY;

/// Events per second, and instructions that the guest's processor executes in one.
const EVENTS: f64 = 10_000.0;
const CORE: f64 = 1e9;
/// Who stands for the daemon alone.
const DAEMON: &str = "daemon";

/// Instructions for each event.
struct Row {
    name: String,
    all: f64,
    daemon: f64,
    other: f64,
    /// Events that both have told, and that there were.
    told: [u64; 2],
    events: u64,
}

fn row(line: &str) -> Option<Row> {
    let value: Value = serde_json::from_str(line).ok()?;
    let number = |key: &str| value[key].as_f64();
    let told = ["lines_of_the_daemon", "events_of_the_other"].map(|key| value[key].as_u64());
    let [Some(daemon), Some(other)] = told else { return None };
    Some(Row {
        name: value["paced"].as_str()?.trim_start_matches("paced: ").to_owned(),
        all: number("instructions_per_event")?,
        daemon: number("of_the_daemon")?,
        other: number("of_the_other")?,
        told: [daemon, other],
        events: value["events"].as_u64()?,
    })
}

/// Costs over those of the load, or over those of the load and the daemon.
pub(super) fn table(output: &str) -> Result<String> {
    let rows: Vec<_> = output.lines().filter_map(row).collect();
    let find = |name: &str| {
        let found = rows.iter().find(|row| row.name == name);
        found.with_context(|| format!("{name} was not measured"))
    };
    let (nobody, daemon) = (find(NOBODY)?, find(DAEMON)?);
    let mut text = format!(
        "At 10,000 events a second, instructions for each event; the load alone takes {:.0}\n\n\
         | beside it | for an event | of it in its process | of a core | the daemon's process | \
         told |\n|---|--:|--:|--:|--:|---|\n",
        nobody.all
    );
    for row in rows.iter().filter(|row| row.name != NOBODY) {
        let before = if row.daemon > 0.0 && row.name != DAEMON { daemon } else { nobody };
        let more = row.all - before.all;
        let share = 100.0 * more * EVENTS / CORE;
        let process = if row.name == DAEMON { row.daemon } else { row.other };
        let daemon = if row.daemon > 0.0 { format!("{:.0}", row.daemon) } else { "–".to_owned() };
        let told = row.told.iter().filter(|told| **told > 0);
        let told: Vec<_> = told.map(|told| format!("{told} of {}", row.events)).collect();
        text += &format!(
            "| {} | {more:.0} | {process:.0} | {share:.1} % | {daemon} | {} |\n",
            row.name,
            told.join(", ")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn costs_are_those_over_what_runs_besides() {
        let line = |name: &str, all: u32, daemon: u32, other: u32| {
            let (written, counted) = (u32::from(daemon > 0) * 7, u32::from(other > 0) * 8);
            format!(
                r#"{{"paced":"paced: {name}","instructions_per_event":{all},"of_the_daemon":{daemon},"of_the_other":{other},"lines_of_the_daemon":{written},"events_of_the_other":{counted},"events":9}}"#
            )
        };
        let lines = [
            line("nobody", 1000, 0, 0),
            line("top", 4900, 0, 1500),
            line("daemon", 4000, 1800, 0),
            line("daemon, beside it top", 8000, 1810, 1500),
        ];
        let text = table(&lines.join("\n")).unwrap();
        for row in [
            "| top | 3900 | 1500 | 3.9 % | – | 8 of 9 |",
            "| daemon | 3000 | 1800 | 3.0 % | 1800 | 7 of 9 |",
            "| daemon, beside it top | 4000 | 1500 | 4.0 % | 1810 | 7 of 9, 8 of 9 |",
        ] {
            assert!(text.contains(row), "{text}");
        }
        assert!(table(&lines[0]).is_err());
    }
}
