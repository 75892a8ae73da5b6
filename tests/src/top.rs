//! `flowlog top` in a pseudo-terminal or as text, and what it shows, as numbers.

use std::collections::BTreeMap;
use std::fs::{self, File};

use anyhow::{Context, Result, ensure};

use crate::daemon::Program;
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;
use crate::terminal::Terminal;

/// Rows and columns of a screen on which everything has room.
pub const ROOMY: (u16, u16) = (40, 120);

/// Starts it on a terminal, and waits until its screen is there.
///
/// # Errors
/// It is not there.
pub fn start(namespace: &Namespace, args: &str, size: (u16, u16)) -> Result<Terminal> {
    let args = format!("top {args}");
    let top = Terminal::start(namespace, Program::Flowlog.path()?, &args, size)?;
    top.wait_row("lost ")?;
    Ok(top)
}

/// The text of `--once`, made while `meanwhile` is done: for so many seconds.
///
/// # Errors
/// It fails, or what is done does.
pub fn once(
    namespace: &Namespace,
    args: &str,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let said = dir.path().join("stderr");
    let mut command = namespace.command(Program::Flowlog.path()?);
    command.arg("top").arg("--once").args(args.split_whitespace());
    command.stdout(File::create(dir.path().join("stdout"))?).stderr(File::create(&said)?);
    let mut process = Guarded::spawn(&mut command)?;
    poll::until("it to listen", || {
        ensure!(process.ended()?.is_none(), "{}", fs::read_to_string(&said)?);
        Ok(fs::read_to_string(&said)?.contains("flowlog top listens ").then_some(()))
    })?;
    meanwhile()?;
    let code = process.wait()?;
    ensure!(code == Some(0), "{code:?}: {}", fs::read_to_string(&said)?);
    let text = fs::read_to_string(dir.path().join("stdout"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The numbers in a row, under the words of the row of headings: what was counted above, or a row
/// of a table.
///
/// # Errors
/// They are none.
pub fn numbers(rows: &[String], heading: &str, row: &str) -> Result<BTreeMap<String, f64>> {
    let at = |from: usize, words: &str| {
        let found = rows[from..].iter().position(|row| row.trim_start().starts_with(words));
        found.map(|place| from + place).with_context(|| format!("no {words:?} in {rows:#?}"))
    };
    let heading = at(0, heading)?;
    let row = at(heading, row)?;
    let mut names: Vec<_> = rows[heading].split_whitespace().rev().collect();
    let mut values: Vec<_> = rows[row].split_whitespace().rev().collect();
    let numeric = |value: &&str| value.trim_end_matches('+').parse::<f64>().is_ok();
    let length = values.iter().take_while(|value| numeric(value)).count().min(names.len());
    names.truncate(length);
    values.truncate(length);
    let number = |(name, value): (&&str, &str)| -> Result<(String, f64)> {
        Ok(((*name).to_owned(), value.trim_end_matches('+').parse()?))
    };
    names.iter().zip(values).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_their_names() {
        let rows = ["  events  new", "in all  3   1", "PORT EVENTS/s  EVENTS", "tcp/80 0.5  7+"];
        let rows = rows.map(str::to_owned);
        let all = numbers(&rows, "events", "in all").unwrap();
        assert_eq!((all["events"], all["new"]), (3.0, 1.0));
        let port = numbers(&rows, "PORT", "tcp/80").unwrap();
        assert_eq!((port["EVENTS/s"], port["EVENTS"]), (0.5, 7.0));
        assert!(numbers(&rows, "PORT", "udp").is_err());
    }
}
