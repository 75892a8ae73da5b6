//! What is wrong with a configuration: `FILE:LINE: what; what to do`. Collected,
//! so that all faults are told at once.

use std::fmt;
use std::path::{Path, PathBuf};

use super::lines::{Reading, Readings};

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The daemon runs, and does what was probably meant. `flowlog check` lets
    /// it pass.
    Note,
    /// As [`Severity::Note`], but `flowlog check` refuses it: a name that
    /// nobody knows is likely a mistake.
    Unknown,
    /// The daemon does not start.
    Error,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// The configuration file.
    pub file: PathBuf,
    /// The line, from 1; absent when it concerns the file as a whole.
    pub line: Option<usize>,
    /// What, with which value; what to do.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// The findings of one file.
#[derive(Debug)]
pub struct Diagnostics {
    file: PathBuf,
    /// The findings so far.
    pub list: Vec<Diagnostic>,
    /// What the lines that were read are.
    pub readings: Readings,
}

impl Diagnostics {
    /// No findings yet.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), readings: Readings::new() }
    }

    /// Adds a finding.
    pub fn add(&mut self, severity: Severity, line: impl Into<Option<usize>>, message: String) {
        let line = line.into();
        let found = Diagnostic { severity, file: self.file.clone(), line, message };
        // Several stacks may read the same section.
        if !self.list.contains(&found) {
            self.list.push(found);
        }
    }

    /// Adds an error.
    pub fn error(&mut self, line: impl Into<Option<usize>>, message: String) {
        self.add(Severity::Error, line, message);
    }

    /// Adds a note.
    pub fn note(&mut self, line: impl Into<Option<usize>>, message: String) {
        self.add(Severity::Note, line, message);
    }

    /// Notes what a line is.
    pub fn read(&mut self, line: usize, reading: Reading) {
        self.readings.insert(line, reading);
    }

    /// Whether the daemon must not start.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }
}

/// `; did you mean NAME?`, when one of `names` is close to `word`.
pub fn nearest(word: &str, names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let scored = names.into_iter().map(|name| {
        let near = strsim::jaro_winkler(&word.to_lowercase(), &name.as_ref().to_lowercase());
        (near, name.as_ref().to_owned())
    });
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((near, name)) if near > 0.8 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        assert_eq!(nearest("evnet_mask", ["file", "event_mask"]), "; did you mean `event_mask`?");
        assert_eq!(nearest("zzz", ["file", "event_mask"]), "");
    }
}
