//! A line on the terminal that is written anew in its place.

use std::io::Write;

/// The line. A terminal that cannot be written to is no reason to end.
#[derive(Debug)]
pub(super) struct StatusLine<W> {
    pub(super) terminal: W,
    /// Characters of the line that stands there.
    width: usize,
}

impl<W: Write> StatusLine<W> {
    pub(super) fn new(terminal: W) -> Self {
        Self { terminal, width: 0 }
    }

    /// Leaves nothing behind.
    pub(super) fn clear(&mut self) {
        if self.width > 0 {
            self.replace("");
        }
    }

    /// What was longer before is written over. The cursor waits at the
    /// beginning, where a message of others may come.
    pub(super) fn replace(&mut self, line: &str) {
        let width = self.width;
        self.width = line.chars().count();
        let _ = write!(self.terminal, "\r{line:<width$}\r").and_then(|()| self.terminal.flush());
    }
}
