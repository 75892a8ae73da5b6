//! One line on the terminal that tells how far an answer is, if it takes a moment.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::verb::status_line::StatusLine;

/// Nobody sees what is faster.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two lines.
const PERIOD: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: usize = 30;

/// How much there is to do, and how much is done.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
    found: AtomicUsize,
}

impl Progress {
    /// So many pieces of work more.
    pub(super) fn add(&self, pieces: usize) {
        self.total.fetch_add(pieces, Ordering::Relaxed);
    }

    /// One of them is done, and so many records were found by it.
    pub(super) fn done(&self, found: usize) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.found.fetch_add(found, Ordering::Relaxed);
    }

    /// Shows it until the other end of the channel is gone.
    pub(super) fn show(&self, terminal: impl Write, until: &Receiver<()>) {
        let mut line = StatusLine::new(terminal);
        let mut patience = PATIENCE;
        while let Err(RecvTimeoutError::Timeout) = until.recv_timeout(patience) {
            line.replace(&self.line());
            patience = PERIOD;
        }
        line.clear();
    }

    fn line(&self) -> String {
        let [done, total, found] =
            [&self.done, &self.total, &self.found].map(|count| count.load(Ordering::Relaxed));
        let filled = (WIDTH * done).checked_div(total).unwrap_or(0).min(WIDTH);
        let (full, rest) = ("#".repeat(filled), ".".repeat(WIDTH - filled));
        format!("[{full}{rest}] {done} of {total} parts searched, {found} records found")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_fast_shows_nothing_and_what_is_slow_leaves_nothing() {
        let progress = Progress::default();
        let mut terminal = Vec::new();
        let (end, until) = mpsc::channel();
        drop(end);
        progress.show(&mut terminal, &until);
        assert_eq!(terminal, b"");
        progress.add(4);
        progress.done(7);
        assert_eq!(
            progress.line(),
            "[#######.......................] 1 of 4 parts searched, 7 records found"
        );
        let (end, until) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(PATIENCE + PERIOD);
                drop(end);
            });
            progress.show(&mut terminal, &until);
        });
        let (line, blank) = (progress.line(), " ".repeat(progress.line().len()));
        let text = String::from_utf8(terminal).unwrap();
        assert!(text.starts_with(&format!("\r{line}\r")), "{text:?}");
        assert!(text.ends_with(&format!("\r{blank}\r")), "{text:?}");
    }
}
