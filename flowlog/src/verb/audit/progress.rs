//! One line on the terminal that tells how far an audit is.

use std::io::Write;
use std::time::Duration;

use crate::capture::crosscheck::Report;
use crate::stats::{Check, Counter};
use crate::verb::status_line::StatusLine;

/// Between two lines.
const PERIOD: Duration = Duration::from_millis(200);
/// Events that sources have lost by their own counters.
const LOST: [Counter; 6] = [
    Counter::NetlinkLost,
    Counter::EbpfLostNew,
    Counter::EbpfLostUpdate,
    Counter::EbpfLostDestroy,
    Counter::EbpfLostExpect,
    Counter::EbpfMissed,
];

/// The line.
pub(super) struct Progress<W> {
    line: StatusLine<W>,
    total: Duration,
    /// When the next line is due, since the start.
    due: Duration,
}

impl<W: Write> Progress<W> {
    pub(super) fn new(terminal: W, total: Duration) -> Self {
        Self { line: StatusLine::new(terminal), total, due: Duration::ZERO }
    }

    /// Writes the line anew if it is due.
    pub(super) fn show(&mut self, elapsed: Duration, report: impl FnOnce() -> Report) {
        if elapsed < self.due {
            return;
        }
        self.due = elapsed + PERIOD;
        self.line.replace(&line(elapsed, self.total, &report()));
    }

    /// Leaves nothing behind.
    pub(super) fn clear(&mut self) {
        self.line.clear();
    }
}

fn line(elapsed: Duration, total: Duration, report: &Report) -> String {
    let lost: u64 = LOST.iter().map(|counter| report.stats.get(*counter)).sum();
    format!(
        "{} of {} s: {} events matched, {} unexplained, {lost} lost",
        elapsed.as_secs(),
        total.as_secs_f64(),
        report.sum(Check::Matched),
        report.unexplained(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{made_up, nothing};
    use super::*;

    #[test]
    fn the_line_is_rewritten_in_place_five_times_a_second() {
        let mut progress = Progress::new(Vec::new(), Duration::from_secs(30));
        progress.show(Duration::ZERO, made_up);
        progress.show(Duration::from_millis(199), || panic!("too early"));
        progress.show(Duration::from_millis(1200), nothing);
        progress.clear();
        let text = String::from_utf8(progress.line.terminal).unwrap();
        let [first, second] = [
            "0 of 30 s: 1290 events matched, 3 unexplained, 12 lost",
            "1 of 30 s: 0 events matched, 0 unexplained, 0 lost",
        ];
        let width = first.len();
        let blank = " ".repeat(second.len());
        assert_eq!(text, format!("\r{first}\r\r{second:<width$}\r\r{blank}\r"));
    }
}
