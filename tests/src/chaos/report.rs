//! The report of a run: a table of the stacks, the faults with their times, the promises.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::faults::Happened;
use super::ledger::Account;
use super::verdict::Promise;

/// The report of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How long it was to run.
    pub time: Duration,
    /// Flows that were made, and how many a second that was.
    pub flows: u32,
    /// See [`Report::flows`].
    pub rate: f64,
    /// The books of all stacks.
    pub accounts: Vec<Account>,
    /// The faults, in their order.
    pub happened: Vec<Happened>,
    /// The promises.
    pub promises: Vec<Promise>,
    /// What else is worth telling, a line each.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.promises.iter().all(Promise::kept)
    }
}

/// Lines that a broken promise gets.
const LINES: usize = 24;
/// The columns of the table.
const HEAD: [&str; 11] = [
    "sink", "expected", "logged", "kernel", "lost", "dropped", "refused", "unsure", "repeated",
    "again", "gone",
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults:")?;
        for one in &self.happened {
            let ended = one.ended.map_or(String::new(), |at| format!("{:8.1}", at.as_secs_f64()));
            let failed =
                one.failed.as_ref().map_or(String::new(), |why| format!("  NOT MADE: {why}"));
            let (kind, target) = (one.fault.kind, one.fault.target);
            let began = one.began.as_secs_f64();
            writeln!(f, "  {began:8.1} {ended:>8} s  {:<17} {target}{failed}", kind.name())?;
        }
        writeln!(f, "\n{} flows, {:.0} a second\n", self.flows, self.rate)?;
        let mut rows = vec![HEAD.map(str::to_owned)];
        rows.extend(self.accounts.iter().map(row));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; HEAD.len()] = std::array::from_fn(width);
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                write!(line, "{cell:>width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f)?;
        for promise in &self.promises {
            writeln!(f, "{}  {}", if promise.kept() { "kept  " } else { "BROKEN" }, promise.name)?;
            for line in promise.broken.iter().take(LINES) {
                writeln!(f, "          {}", line.trim_end().replace('\n', "\n            "))?;
            }
            if let Some(more @ 1..) = promise.broken.len().checked_sub(LINES) {
                writeln!(f, "          and {more} more")?;
            }
        }
        let verdict = if self.passed() { "PASS" } else { "FAIL" };
        let broken = self.promises.iter().filter(|promise| !promise.kept()).count();
        let time = self.time.as_secs();
        writeln!(f, "\n{verdict}: seed {}, {time} s, {broken} promises broken", self.seed)
    }
}

fn row(account: &Account) -> [String; HEAD.len()] {
    let Account { expected, logged, counted, kernel, abandoned, again, .. } = account;
    let kernel = if kernel.0 == kernel.1 {
        kernel.0.to_string()
    } else {
        format!("{}-{}", kernel.0, kernel.1)
    };
    [
        account.name.clone(),
        expected.to_string(),
        logged.to_string(),
        kernel,
        counted.lost.to_string(),
        counted.dropped.to_string(),
        counted.refused.to_string(),
        counted.unsure.to_string(),
        counted.repeated.to_string(),
        again.to_string(),
        abandoned.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_its_verdict_and_its_seed() {
        let kept = Promise { name: "one", broken: Vec::new() };
        let broken = Promise { name: "two", broken: vec!["because".to_owned()] };
        let report = |promises: Vec<Promise>| Report {
            seed: 42,
            time: Duration::from_secs(60),
            flows: 10,
            rate: 5.0,
            accounts: vec![Account { name: "emu1".to_owned(), expected: 20, ..Account::default() }],
            happened: Vec::new(),
            promises,
            notes: Vec::new(),
        };
        let text = report(vec![kept.clone()]).to_string();
        assert!(text.ends_with("PASS: seed 42, 60 s, 0 promises broken\n"), "{text}");
        let text = report(vec![kept, broken]).to_string();
        assert!(text.contains("BROKEN  two\n          because\n"), "{text}");
        assert!(text.ends_with("FAIL: seed 42, 60 s, 1 promises broken\n"));
    }
}
