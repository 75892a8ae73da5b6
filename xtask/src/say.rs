//! Words for the person at the terminal.

use std::fmt::Arguments;
use std::io::Write as _;

/// Writes a line to standard output.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}
pub(crate) use say;

/// Writes a line at once. A reader that has gone away has read enough, so failure is no error.
pub(crate) fn line(words: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{words}").and_then(|()| stdout.flush());
}
