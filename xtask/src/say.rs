//! Words for the person at the terminal.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line to standard output.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line($crate::say::out(), format_args!($($words)*)) };
}
pub(crate) use say;

/// Writes a line to standard error, beside what belongs to a command that is run.
macro_rules! note {
    ($($words:tt)*) => { $crate::say::line(std::io::stderr().lock(), format_args!($($words)*)) };
}
pub(crate) use note;

/// Standard output.
#[cfg(not(test))]
pub(crate) fn out() -> impl Write {
    io::stdout().lock()
}

/// Nowhere: what tests make others say would be taken for results of tests.
#[cfg(test)]
pub(crate) fn out() -> impl Write {
    io::sink()
}

/// Writes a line at once. A reader that has gone away has read enough, so failure is no error.
pub(crate) fn line(mut to: impl Write, words: Arguments<'_>) {
    let _: io::Result<()> = writeln!(to, "{words}").and_then(|()| to.flush());
}
